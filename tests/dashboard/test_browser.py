"""The dashboard as a visitor sees it: `abkit dashboard` in headless Chromium, light and dark.

Screenshots are kept in the folder that ABKIT_SCREENSHOTS names.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Writer

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser") if (found := shutil.which(name))), None
)
READY = "[data-testid=stApp][data-test-script-state=notRunning]"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-background-networking",
]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def serve(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Start `abkit dashboard` and wait until it answers."""
    port = free_port()
    command = [sys.executable, "-m", "abkit.cli", "dashboard", str(folder), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{address}/_stcore/health", timeout=2):  # noqa: S310 - ours
                return process, address
        except (urllib.error.URLError, OSError):
            assert process.poll() is None, "the dashboard ended while it started"
            time.sleep(0.2)
    process.kill()
    raise AssertionError("the dashboard did not answer within 60 s")


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(20)


def test_a_stopped_dashboard_leaves_nothing_behind(workspace: Path) -> None:
    process, address = serve(workspace)
    stop(process)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", int(address.rpartition(":")[2]))) != 0


@pytest.fixture(scope="module")
def address(workspace: Path) -> Iterator[str]:
    process, address = serve(workspace)
    yield address
    stop(process)


def open_page(context: Any, url: str, element: str) -> Any:
    page = context.new_page()
    page.goto(url)
    page.wait_for_selector(READY, timeout=60_000)
    page.get_by_text(element).first.wait_for(timeout=30_000)
    return page


def keep(page: Any, name: str, tmp_path: Path) -> None:
    folder = Path(os.environ.get("ABKIT_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=str(folder / f"{name}.png"))
    assert (folder / f"{name}.png").stat().st_size > 10_000


PAGES = {
    "overview": ("/", "bad-canary"),
    "halted": ("/experiment?rollout=bad-canary", "error is worse in treatment"),
    "promoted": ("/experiment?rollout=good-canary", "relative risk below 1.25 is shown"),
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_the_page_shows_asks_nobody_else_and_is_accessible(
    browser: Any, address: str, tmp_path: Path, name: str, scheme: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is missing")
    path, words = PAGES[name]
    context = browser.new_context(color_scheme=scheme, viewport={"width": 1440, "height": 1000})
    asked: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    page = open_page(context, address + path, words)
    if name != "overview":
        page.wait_for_selector(".js-plotly-plot .main-svg", timeout=30_000)
    keep(page, f"{name}-{scheme}", tmp_path)
    local = (address, address.replace("http", "ws"), "data:", "blob:")
    assert [url for url in asked if not url.startswith(local)] == []
    found = axe.Axe().run(page).response["violations"]
    serious = [item for item in found if item["impact"] in ("serious", "critical")]
    context.close()
    assert [(item["id"], item["nodes"][0]["html"][:200]) for item in serious] == []


def test_hostile_words_run_nothing(browser: Any, address: str) -> None:
    context = browser.new_context()
    dialogs: list[str] = []
    page = open_page(context, f"{address}/experiment?rollout=by-hand", "alert(1)")
    page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    assert page.locator("a[href*='evil.example']").count() == 0
    assert page.locator("script", has_text="alert(1)").count() == 0
    context.close()
    assert dialogs == []


def test_an_address_without_a_choice_gets_one(browser: Any, address: str) -> None:
    context = browser.new_context()
    page = open_page(context, f"{address}/experiment", "What would change it")
    page.wait_for_url("**/experiment?rollout=*", timeout=30_000)
    context.close()


def test_a_halt_appears_and_no_choice_is_lost(browser: Any, writer: Writer) -> None:
    writer.start("watched", "ranker")
    writer.serve("ranker", {"old": 0.02, "new": 0.02})
    process, address = serve(writer.workspace.path)
    try:
        context = browser.new_context(viewport={"width": 1440, "height": 1000})
        view = "experiment?rollout=watched&look=1&log=all+looks"
        page = open_page(context, f"{address}/{view}", "watched")
        # The first page that a server shows has the navigation too.
        assert page.get_by_test_id("stTopNavLink").count() == 2
        page.get_by_text("The record as stored").click()
        page.get_by_test_id("stJson").wait_for(timeout=30_000)
        assert page.get_by_text("error is worse in treatment").count() == 0

        def write() -> None:
            while writer.workspace.rollout("watched").live:
                writer.serve("ranker", {"old": 0.02, "new": 0.3})

        thread = threading.Thread(target=write)
        thread.start()
        page.get_by_text("error is worse in treatment").first.wait_for(timeout=30_000)
        thread.join()
        assert page.get_by_text("Look 1", exact=True).count() == 1
        assert page.get_by_test_id("stJson").is_visible()
        assert "look=1" in page.url
        assert "log=all+looks" in page.url
        context.close()
    finally:
        stop(process)
