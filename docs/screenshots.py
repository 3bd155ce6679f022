"""Take the pictures of the dashboard in docs/images, from a demo workspace.

python3 dev.py screenshots                       # runs the demo first
python3 dev.py screenshots --workspace abkit-demo
"""

from __future__ import annotations

import argparse
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from playwright.sync_api import FloatRect, Page, ViewportSize, sync_playwright

IMAGES = Path(__file__).parent / "images"
READY = "[data-testid=stApp][data-test-script-state=notRunning]"
PAGES = {
    "overview": "/",
    "halted": "/experiment?rollout=logistic-canary",
    "promoted": "/experiment?rollout=student-rollout",
}
# Each picture ends a little below the last of these.
LAST = {
    "overview": "[data-testid=stMarkdown]",
    "halted": "[data-testid=stPlotlyChart] >> nth=0",
    "promoted": "[data-testid=stPlotlyChart] >> nth=0",
}
SIZE: ViewportSize = {"width": 1280, "height": 1800}


def main() -> None:
    """Serve a workspace and photograph each page in light and dark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workspace", type=Path, help="made by `abkit demo`; else it is run now")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.workspace or Path(scratch) / "workspace"
        abkit = [sys.executable, "-m", "abkit.cli"]
        if options.workspace is None:
            subprocess.run([*abkit, "demo", "--workspace", str(folder)], check=True)
        port = free_port()
        command = [*abkit, "dashboard", str(folder), "--port", str(port)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            wait_for(f"http://127.0.0.1:{port}/_stcore/health")
            photograph(f"http://127.0.0.1:{port}")
        finally:
            process.terminate()
            process.wait(20)


def photograph(address: str) -> None:
    """Take every picture."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise SystemExit("no Chromium here: apt install chromium")
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        for scheme in ("light", "dark"):
            for name, path in PAGES.items():
                context = browser.new_context(color_scheme=scheme, viewport=SIZE)
                page = context.new_page()
                page.goto(address + path)
                page.wait_for_selector(READY, timeout=60_000)
                page.wait_for_selector(".js-plotly-plot .main-svg", timeout=30_000)
                page.wait_for_timeout(1_500)  # charts settle
                file = IMAGES / f"{name}-{scheme}.png"
                page.screenshot(path=str(file), clip=down_to(page, LAST[name]))
                print(f"{file.name}: {file.stat().st_size / 1024:.0f} KiB")
                context.close()
        browser.close()


def down_to(page: Page, selector: str) -> FloatRect:
    """The part of a page that ends a little below an element."""
    box = page.locator(selector).last.bounding_box()
    if box is None:
        raise SystemExit(f"nothing like {selector} on {page.url}")
    return {"x": 0, "y": 0, "width": SIZE["width"], "height": box["y"] + box["height"] + 24}


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(url: str, seconds: float = 60.0) -> None:
    """Return when the dashboard answers."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=2):  # noqa: S310 - our own server
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise SystemExit(f"{url} did not answer within {seconds:.0f} s")


if __name__ == "__main__":
    main()
