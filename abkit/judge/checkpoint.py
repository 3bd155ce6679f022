"""What the judge remembers, on disk: a restarted controller goes on from there.

A checkpoint saves work and decides nothing. It is used only if all of it fits: its own checksum,
the version of the code, and the decision record of its look. Anything else, and every record is
replayed, as it is by `abkit replay` at all times.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from abkit import __version__
from abkit.decision import sha256_of
from abkit.errors import DataError
from abkit.judge.state import JudgeState
from abkit.snapshot import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA: Final = "abkit.checkpoint/v1"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The judge's memory after one look.

    Args:
        rollout: key of the rollout.
        look: number of the look.
        decision_id: of the record of that look.
        state: what the judge remembered after it.
    """

    rollout: str
    look: int
    decision_id: str
    state: JudgeState

    def write(self, path: Path) -> bool:
        """Replace the file; False where the disk refuses, which costs the next start a replay."""
        data = {
            "schema": SCHEMA,
            "code_version": __version__,
            "rollout": self.rollout,
            "look": self.look,
            "decision_id": self.decision_id,
            "state": self.state.to_dict(),
        }
        content = json.dumps({**data, "checksum": sha256_of(data)}, allow_nan=False)
        try:
            write_atomically(path, content.encode())
        except OSError:
            return False
        return True

    @classmethod
    def read(cls, path: Path, *, rollout: str) -> Checkpoint | None:
        """The checkpoint of a rollout; None where there is none that this code can go on from."""
        try:
            data: Any = json.loads(path.read_bytes())
            said = data.pop("checksum")
            if (
                (data["schema"], data["code_version"]) != (SCHEMA, __version__)
                or data["rollout"] != rollout
                or said != sha256_of(data)
            ):
                return None
            state = JudgeState.from_dict(data["state"])
            return cls(rollout, int(data["look"]), str(data["decision_id"]), state)
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            RecursionError,
            DataError,
        ):
            return None
