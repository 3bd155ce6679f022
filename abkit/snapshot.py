"""The snapshot: how configuration reaches serving workers.

One JSON file, replaced atomically. Workers `stat` it at most every half second on the caller's
own thread, check its checksum and schema, and swap one dict; a bad file never replaces a good
one. There is no thread, so forks are safe by construction.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from abkit.assignment import Assignment, compile_experiment
from abkit.errors import ConfigError, SchemaVersionError, StoreError
from abkit.experiment import Experiment
from abkit.records import check_count, is_number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    _State = tuple[tuple[int, ...], "Snapshot | None", dict[str, Callable[[object], Assignment]]]

SCHEMA = "abkit.snapshot/v1"
MAX_BYTES = 64 << 20
POLL_SECONDS = 0.5
_BODY = ("version", "published", "experiments")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All experiments at one version.

    Args:
        version: grows by one at each publication; 0 for none.
        published: seconds since 1970 in UTC.
        experiments: the experiments by key.
        checksum: sha256 of the content, in hex.
    """

    version: int
    published: float
    experiments: Mapping[str, Experiment]
    checksum: str

    @classmethod
    def of(cls, experiments: Iterable[Experiment], *, version: int, published: float) -> Snapshot:
        """A snapshot of these experiments.

        Raises:
            ConfigError: two of them have the same key.
        """
        table = by_key(experiments)
        body = _body(version, published, table)
        return cls(version, published, table, _checksum(body))

    def to_bytes(self) -> bytes:
        """The content of the file."""
        body = _body(self.version, self.published, self.experiments)
        document = {"schema": SCHEMA, "checksum": self.checksum, "body": body}
        return json.dumps(document, ensure_ascii=False, indent=1).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> Snapshot:
        """Read a snapshot, believing nothing.

        Raises:
            StoreError: not JSON, wrong shape, or a checksum that does not match.
            SchemaVersionError: written by a version of abkit that this one does not know.
        """
        try:
            document = json.loads(content, object_pairs_hook=_no_duplicates)
        except (ValueError, RecursionError) as error:
            msg = f"the snapshot is not valid JSON: {error}"
            raise StoreError(msg) from None
        if not isinstance(document, dict) or not isinstance(document.get("body"), dict):
            msg = "the snapshot has no body"
            raise StoreError(msg)
        if document.get("schema") != SCHEMA:
            msg = (
                f"the snapshot's schema is {document.get('schema')!r}, this abkit reads {SCHEMA!r}"
            )
            raise SchemaVersionError(msg)
        body = document["body"]
        try:
            checksum = _checksum(body)
            if document.get("checksum") != checksum:
                msg = "the snapshot's checksum does not match its content"
                raise StoreError(msg)
            version, published, items = (body[name] for name in _BODY)
            check_count("the snapshot", "version", version)
            if not (isinstance(items, list) and is_number(published)):
                msg = "the snapshot needs a list of experiments and the time of its publication"
                raise StoreError(msg)
            table = by_key(Experiment.from_dict(item) for item in items)
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            msg = f"the snapshot's content is not usable: {error!r}"
            raise StoreError(msg) from None
        return cls(version, float(published), table, checksum)


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file in one step that survives a crash: readers see the old or the new one."""
    name = path.parent / f".{path.name}.{os.getpid()}-{os.urandom(8).hex()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(name, flags, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        name.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            name.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@dataclass(frozen=True, slots=True)
class SourceHealth:
    """What a worker knows of its configuration.

    Args:
        version: of the snapshot in use; 0 for none.
        checksum: of the snapshot in use; empty for none.
        age_seconds: since that snapshot was published; None without one.
        errors: reads of the file that failed since start.
        last_error: why the last of them failed; empty for none.
    """

    version: int
    checksum: str
    age_seconds: float | None
    errors: int
    last_error: str


class SnapshotSource:
    """The compiled experiments of a snapshot file, fresh to half a second.

    Args:
        path: the snapshot file; it may appear later.
        poll_seconds: how often to look at the file at most.
        clock: seconds since 1970, for the age.
        monotonic: seconds that never jump, for the polling.
    """

    __slots__ = (
        "_clock",
        "_errors",
        "_last_error",
        "_monotonic",
        "_next",
        "_path",
        "_poll_seconds",
        "_state",
    )

    def __init__(
        self,
        path: Path,
        *,
        poll_seconds: float = POLL_SECONDS,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Look at the file for the first time; whatever it holds, nothing is raised."""
        self._path = os.fspath(path)
        self._poll_seconds = poll_seconds
        self._clock = clock
        self._monotonic = monotonic
        # The file's signature together with what came of it, swapped as one: of two threads that
        # refresh at once, the one with the older file can win, and the next look sees that.
        self._state: _State = ((), None, {})
        self._errors = 0
        self._last_error = ""
        self._next = monotonic() + poll_seconds
        self._refresh()

    def table(self) -> dict[str, Callable[[object], Assignment]]:
        """The functions that assign, by experiment key; never raises."""
        now = self._monotonic()
        if now >= self._next:
            self._next = now + self._poll_seconds
            self._refresh()
        return self._state[2]

    def snapshot(self) -> Snapshot | None:
        """The snapshot in use, or None before the first good one."""
        self.table()
        return self._state[1]

    def health(self) -> SourceHealth:
        """Version, age and errors."""
        snapshot = self._state[1]
        if snapshot is None:
            return SourceHealth(0, "", None, self._errors, self._last_error)
        age = max(0.0, self._clock() - snapshot.published)
        return SourceHealth(
            snapshot.version, snapshot.checksum, age, self._errors, self._last_error
        )

    def _refresh(self) -> None:
        try:
            status = os.stat(self._path)  # noqa: PTH116 - a Path object costs more than the call
            signature = (status.st_mtime_ns, status.st_size, status.st_ino)
            if signature == self._state[0]:
                return
            if not stat.S_ISREG(status.st_mode):
                msg = "the snapshot is not a regular file"  # opening a pipe would wait for ever
                raise StoreError(msg)  # noqa: TRY301 - counted like any other bad file
            if status.st_size > MAX_BYTES:
                msg = f"the snapshot is larger than {MAX_BYTES} bytes"
                raise StoreError(msg)  # noqa: TRY301 - counted like any other bad file
            with open(self._path, "rb") as file:  # noqa: PTH123
                content = file.read(MAX_BYTES)
            # Remembered even if it is bad: it is not parsed again until it changes.
            self._state = (signature, *self._state[1:])
            snapshot = Snapshot.from_bytes(content)
            table = compile_snapshot(snapshot)
        except Exception as error:  # noqa: BLE001 - fail static: keep the last good one, count it
            self._errors += 1
            self._last_error = f"{type(error).__name__}: {error}"
            return
        self._state = (signature, snapshot, table)


def compile_snapshot(snapshot: Snapshot) -> dict[str, Callable[[object], Assignment]]:
    """The functions that assign, by experiment key."""
    return {
        key: compile_experiment(item, version=snapshot.version, snapshot=snapshot.checksum)
        for key, item in snapshot.experiments.items()
    }


def by_key(experiments: Iterable[Experiment]) -> dict[str, Experiment]:
    """Experiments by key.

    Raises:
        ConfigError: two of them have the same key.
    """
    table: dict[str, Experiment] = {}
    for experiment in experiments:
        if experiment.key in table:
            msg = f"two experiments have the key {experiment.key!r}"
            raise ConfigError(msg)
        table[experiment.key] = experiment
    return table


def _body(version: int, published: float, experiments: Mapping[str, Experiment]) -> dict[str, Any]:
    items = [experiments[key].to_dict() for key in sorted(experiments)]
    return {"version": version, "published": published, "experiments": items}


def _checksum(body: object) -> str:
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        names = [name for name, _ in pairs]
        doubled = next(name for name in names if names.count(name) > 1)
        msg = f"key {doubled!r} stands twice"
        raise ValueError(msg)
    return table
