"""One line of the trail: JSON that ends with a MAC over all that stands before it."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import stat
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from abkit.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

KEY_VARIABLE: Final = "ABKIT_AUDIT_KEY"
KEY_FILE_VARIABLE: Final = "ABKIT_AUDIT_KEY_FILE"
HEAD_VARIABLE: Final = "ABKIT_AUDIT_HEAD"
FIRST: Final = "0" * 64
LEAST_KEY_CHARACTERS: Final = 16
_SEALED: Final = re.compile(rb'\A(\{.*),"mac":"([0-9a-f]{64})"\}\Z', re.DOTALL)
_CONTEXT: Final = b"abkit.trail/v1\n"


@dataclass(frozen=True, slots=True)
class Entry:
    """What one line says.

    Args:
        sequence: number of the line, from 1.
        time: when it was written, in seconds since 1970 in UTC.
        actor: who moved it; "abkit" for the controller.
        verb: what was done, such as "advance" or "halt"; "gap" where moves have no line.
        kind: "rollout", "experiment", "layer", "holdout", or "trail" for the trail itself.
        key: of what was moved.
        before: where it stood; None for what is new.
        after: where it stands now; None for what is gone.
        reason: in words.
        decision_id: of the decision that led to it; empty for a person's.
        snapshot: version of the snapshot that serving got; 0 for none.
        torn: sha256 of an unfinished line in front of this one; empty without one.
    """

    sequence: int
    time: float
    actor: str
    verb: str
    kind: str
    key: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    reason: str = ""
    decision_id: str = ""
    snapshot: int = 0
    torn: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Line:
    """A line as it stands in the file.

    Args:
        entry: what it says.
        prev: MAC of the line before.
        key_id: which key signed it; empty for none.
        mac: HMAC-SHA256 over `body`, or a plain SHA-256 without a key.
        body: what is signed.
    """

    entry: Entry
    prev: str
    key_id: str
    mac: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Head:
    """How far a trail had got at some moment.

    Args:
        count: number of entries.
        hash: MAC of the last of them.
        source: where this is kept.
    """

    count: int
    hash: str
    source: str = ""


class Keys:
    """The keys that sign and check lines: the first signs, the others check older lines.

    Args:
        secrets: the keys, newest first; without one lines carry a plain SHA-256.

    Raises:
        ConfigError: one is shorter than 16 characters.
    """

    def __init__(self, secrets: tuple[bytes, ...] = ()) -> None:
        """Name each key by the beginning of its hash."""
        for secret in secrets:
            if len(secret) < LEAST_KEY_CHARACTERS:
                raise ConfigError(
                    f"an audit key has {len(secret)} characters; take {LEAST_KEY_CHARACTERS} or "
                    "more, such as those of `openssl rand -hex 32`"
                )
        self._by_id = {hmac.digest(s, b"abkit.key-id", "sha256").hex()[:8]: s for s in secrets}
        self.signs = next(iter(self._by_id), "")

    def __bool__(self) -> bool:
        """Whether there is a key at all."""
        return bool(self._by_id)

    def __contains__(self, key_id: object) -> bool:
        """Whether this key is among them."""
        return key_id in self._by_id

    @classmethod
    def find(cls, workspace: Path) -> Self:
        """The keys that the environment names.

        Raises:
            ConfigError: the key file cannot be used, or lies in the workspace that it protects.
        """
        text, name = os.environ.get(KEY_VARIABLE, ""), os.environ.get(KEY_FILE_VARIABLE, "")
        if text and name:
            raise ConfigError(f"set {KEY_VARIABLE} or {KEY_FILE_VARIABLE}, not both")
        if name:
            return cls(_read_keys(Path(name), workspace))
        return cls((text.encode("utf-8", "surrogateescape"),) if text else ())

    def mac(self, body: bytes, key_id: str) -> str:
        """The MAC of a body under a key of these; a plain hash for the empty name."""
        if key_id:
            return hmac.digest(self._by_id[key_id], _CONTEXT + body, "sha256").hex()
        return hashlib.sha256(_CONTEXT + body).hexdigest()

    def sealed(self, entry: Entry, prev: str) -> tuple[bytes, str]:
        """The line of an entry with its line feed, and its MAC.

        Raises:
            ValueError: a number in it is none, such as a share of NaN.
        """
        data = {**entry.to_dict(), "prev": prev, "key_id": self.signs}
        body = json.dumps(data, separators=(",", ":"), allow_nan=False)[:-1].encode("ascii")
        mac = self.mac(body, self.signs)
        return b'%s,"mac":"%s"}\n' % (body, mac.encode("ascii")), mac


def parse(raw: bytes) -> Line | None:
    """A line without its line feed; None for one that abkit did not write so."""
    found = _SEALED.match(raw)
    if found is None:
        return None
    try:
        data = json.loads(raw)
        data.pop("mac")
        prev, key_id = data.pop("prev"), data.pop("key_id")
        entry = Entry(**data)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    kinds: dict[str, Any] = {"sequence": int, "time": (int, float), "snapshot": int}
    kinds |= dict.fromkeys(("before", "after"), (dict, type(None)))
    texts = isinstance(prev, str) and isinstance(key_id, str)
    if not texts or not all(
        isinstance(getattr(entry, item.name), kinds.get(item.name, str)) for item in fields(entry)
    ):
        return None
    return Line(entry, prev, key_id, found[2].decode("ascii"), found[1])


def _read_keys(path: Path, workspace: Path) -> tuple[bytes, ...]:
    if path.resolve().is_relative_to(workspace.resolve()):
        raise ConfigError(
            f"the audit key file {path} lies in the workspace that it protects; keep it elsewhere"
        )
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigError(f"cannot read the audit key file {path}: {error.strerror}") from None
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"the audit key file {path} is no plain file")
        if status.st_mode & 0o077:
            raise ConfigError(
                f"the audit key file {path} can be read by others (mode "
                f"{status.st_mode & 0o777:o}); chmod 600 it, and take a new key"
            )
        content = file.read(1 << 16)
    found = tuple(line.strip() for line in content.splitlines() if line.strip())
    if not found:
        raise ConfigError(f"the audit key file {path} is empty; one key per line, the newest first")
    return found
