"""What a request can be refused with: JSON with the cause and the way out, never a traceback."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from abkit.errors import (
    AbkitError,
    ConfigError,
    StoreBusyError,
    TransitionError,
    UnknownExperimentError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


class Problem(Exception):  # noqa: N818 - it is an answer, not a fault
    """A request that is refused.

    Args:
        status: of the answer.
        message: what was wrong, the value, and what to do.
        hint: the way out, where the message does not say it.
        headers: of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        hint: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Remember all of it."""
        super().__init__(message)
        self.status = status
        self.message = message
        self.hint = hint
        self.headers = dict(headers or {})

    def body(self) -> bytes:
        """The answer's body."""
        told: dict[str, Any] = {"error": self.message}
        if self.hint:
            told["hint"] = self.hint
        return dumps(told)


def dumps(data: object) -> bytes:
    """Compact JSON; NaN and infinity are faults of ours."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # A reason typed in a foreign encoding holds lone surrogates.
    return text.encode("utf-8", "replace")


def problem_of(error: Exception) -> Problem:  # noqa: PLR0911 - one return a kind
    """The answer to an error; of one that nobody raised on purpose, nothing is told."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, OSError):  # a full disk
        return Problem(503, "the workspace cannot be read or written now", headers=RETRY)
    if not isinstance(error, AbkitError):
        return Problem(500, "the server failed", hint="its log says where")
    if isinstance(error, UnknownExperimentError):
        return Problem(404, str(error), hint="GET /v1/rollouts lists them")
    if isinstance(error, TransitionError):
        return Problem(409, str(error), hint="read the rollout again, and send its version")
    if isinstance(error, StoreBusyError):
        return Problem(503, "another process holds the state; try again", headers=RETRY)
    if isinstance(error, ConfigError):
        return Problem(400, str(error))
    return Problem(503, "the workspace cannot be read or written now", headers=RETRY)


RETRY = {"Retry-After": "1"}
