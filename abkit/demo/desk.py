"""The demo's HTTP server: what a pipeline would ask, is asked after each move.

The story is told by what `abkit serve` answers, not by what the controller knows.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING, Any, Final, Self

from abkit.errors import StoreError

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

ANSWER_SECONDS: Final = 30.0


class Desk:
    """`abkit serve` in a process of its own, read-only, on a free port of this machine.

    Args:
        folder: the workspace.

    Raises:
        StoreError: it did not start.
    """

    def __init__(self, folder: Path) -> None:
        """Start it, and wait until it serves."""
        command = [sys.executable, "-m", "abkit.cli", "serve", str(folder), "--port", "0"]
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            command,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,  # Ctrl-C is for the parent, which stops it
        )
        line = "" if self._process.stderr is None else self._process.stderr.readline()
        self.url = line.strip().removeprefix("abkit: ")
        if not self.url.startswith("http://127.0.0.1:"):
            self.close()
            raise StoreError(f"`abkit serve` did not start: {line.strip() or 'it said nothing'}")

    def decision(self, rollout: str) -> dict[str, Any]:
        """What it answers to whoever asks what to do with a rollout."""
        address = f"{self.url}/v1/rollouts/{rollout}/decision"
        with urllib.request.urlopen(address, timeout=ANSWER_SECONDS) as answer:  # noqa: S310 - ours
            found: dict[str, Any] = json.load(answer)
        return found

    def close(self) -> None:
        """Stop it."""
        self._process.terminate()
        self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()

    def __enter__(self) -> Self:
        """The desk itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop it."""
        self.close()
