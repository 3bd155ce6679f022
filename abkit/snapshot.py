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
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from abkit.bucketing.scheme import is_vendor
from abkit.compiler import compile_arms
from abkit.errors import AbkitError, ConfigError, SchemaVersionError, StoreError
from abkit.experiment import Experiment
from abkit.layer import HELD_OUT, Holdout, Layer
from abkit.records import check_count, is_number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from abkit.assignment import Sticky
    from abkit.compiler import Choose

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
        layers: the layers by key.
        holdouts: the holdouts by key.
    """

    version: int
    published: float
    experiments: Mapping[str, Experiment]
    checksum: str = ""
    layers: Mapping[str, Layer] = field(default_factory=dict)
    holdouts: Mapping[str, Holdout] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        experiments: Iterable[Experiment],
        *,
        layers: Iterable[Layer] = (),
        holdouts: Iterable[Holdout] = (),
        version: int,
        published: float,
    ) -> Snapshot:
        """A snapshot of these experiments, layers and holdouts.

        Raises:
            ConfigError: two of them have the same key, or an experiment names a layer or
                holdout that is not there.
        """
        tables = by_key(experiments), by_key(layers), by_key(holdouts)
        _check_references(*tables)
        bare = cls(version, published, tables[0], "", tables[1], tables[2])
        return replace(bare, checksum=_checksum(bare._body()))

    def _body(self) -> dict[str, Any]:
        body: dict[str, Any] = {"version": self.version, "published": self.published}
        for name in ("experiments", "layers", "holdouts"):
            table = getattr(self, name)
            if table or name == "experiments":
                body[name] = [table[key].to_dict() for key in sorted(table)]
        return body

    def to_bytes(self) -> bytes:
        """The content of the file."""
        body = self._body()
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
            layers = by_key(Layer.from_dict(item) for item in body.get("layers", ()))
            holdouts = by_key(Holdout.from_dict(item) for item in body.get("holdouts", ()))
            _check_references(table, layers, holdouts)
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            msg = f"the snapshot's content is not usable: {error!r}"
            raise StoreError(msg) from None
        return cls(version, float(published), table, checksum, layers, holdouts)


def write_atomically(
    path: Path, content: bytes, *, mode: int = 0o600, is_durable: bool = True
) -> None:
    """Replace a file in one step that survives a crash: readers see the old or the new one.

    Args:
        path: the file.
        content: what it holds then.
        mode: its permissions, set before the step: there is no moment with others.
        is_durable: whether it also survives loss of power.
    """
    name = path.parent / f".{path.name}.{os.getpid()}-{os.urandom(8).hex()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(name, flags, 0o600), "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            if is_durable:
                os.fsync(file.fileno())
        name.replace(path)
    except BaseException:
        with contextlib.suppress(OSError, ValueError):
            name.unlink()
        raise
    if not is_durable:
        return
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
        errors: reads of the file that failed since start; that there is none yet is no error.
        last_error: why the last read failed that did; empty for none, and after a good one.
        origin: where the snapshot in use came from: "file", "fallback", or "none".
    """

    version: int
    checksum: str
    age_seconds: float | None
    errors: int
    last_error: str
    origin: str = "file"


class SnapshotSource:
    """The compiled experiments of a snapshot file, fresh to half a second.

    Args:
        path: the snapshot file; it may appear later.
        fallback: a snapshot file packaged with the application, in use until the first good
            one; None for none.
        poll_seconds: how often to look at the file at most.
        clock: seconds since 1970, for the age.
        monotonic: seconds that never jump, for the polling.
        sticky: remembers what units met.
    """

    __slots__ = (
        "_clock",
        "_errors",
        "_last_error",
        "_monotonic",
        "_origin",
        "_path",
        "_poll_seconds",
        "_sticky",
        "due",
        "state",
    )

    def __init__(
        self,
        path: Path,
        *,
        fallback: str | os.PathLike[str] | None = None,
        poll_seconds: float = POLL_SECONDS,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sticky: Sticky | None = None,
    ) -> None:
        """Look at the file for the first time; whatever it holds, nothing is raised."""
        self._path = os.fspath(path)
        self._poll_seconds = poll_seconds
        self._clock = clock
        self._monotonic = monotonic
        self._sticky = sticky
        self._errors = 0
        self._last_error = ""
        self._origin = "none"
        # With the file's signature, swapped as one: of two threads that refresh at once, the one
        # with the older file can win, and the next look sees that.
        self.state: tuple[Snapshot | None, dict[str, Choose], tuple[int, ...]] = (None, {}, ())
        self.due = monotonic() + poll_seconds
        self._look()
        if self.state[0] is None and fallback is not None:
            self._take_fallback(os.fspath(fallback))

    def refresh(self) -> None:
        """Look at the file, for callers that found the time past `due`; never raises."""
        self.due = self._monotonic() + self._poll_seconds
        self._look()

    def table(self) -> dict[str, Choose]:
        """The functions that choose an arm, by experiment key; never raises."""
        if self._monotonic() >= self.due:
            self.refresh()
        return self.state[1]

    def snapshot(self) -> Snapshot | None:
        """The snapshot in use, or None before the first good one."""
        self.table()
        return self.state[0]

    def health(self) -> SourceHealth:
        """Version, age and errors."""
        snapshot, errors, last = self.state[0], self._errors, self._last_error
        if snapshot is None:
            return SourceHealth(0, "", None, errors, last, "none")
        age = max(0.0, self._clock() - snapshot.published)
        return SourceHealth(snapshot.version, snapshot.checksum, age, errors, last, self._origin)

    def _look(self) -> None:
        try:
            status = os.stat(self._path)  # noqa: PTH116 - a Path object costs more than the call
            signature = (status.st_mtime_ns, status.st_size, status.st_ino)
            if signature == self.state[2]:
                return
            snapshot = Snapshot.from_bytes(_read_regular(self._path, status))
            table = compile_snapshot(snapshot, self._sticky)
        except FileNotFoundError as error:
            # Before the first one that is no error: serving may start before it is published.
            self._count(error, is_error=self.state[0] is not None)
            return
        except AbkitError as error:
            # It is the file that is bad: it is not parsed again until it changes.
            self._count(error)
            self.state = (*self.state[:2], signature)
            return
        except Exception as error:  # noqa: BLE001 - such as no memory or no descriptor: look again
            self._count(error)
            return
        self._origin = "file"
        self._last_error = ""
        self.state = (snapshot, table, signature)

    def _take_fallback(self, path: str) -> None:
        try:
            snapshot = Snapshot.from_bytes(_read_regular(path, os.stat(path)))  # noqa: PTH116
            table = compile_snapshot(snapshot, self._sticky)
        except Exception as error:  # noqa: BLE001 - the same: default variants are served
            self._count(error)
            return
        self._origin = "fallback"
        self.state = (snapshot, table, self.state[2])

    def _count(self, error: Exception, *, is_error: bool = True) -> None:
        self._errors += is_error
        self._last_error = f"{type(error).__name__}: {error}"


def _read_regular(path: str, status: os.stat_result) -> bytes:
    if not stat.S_ISREG(status.st_mode):
        # Opening a pipe would wait for ever.
        raise StoreError(f"the snapshot {path} is not a regular file")
    if status.st_size > MAX_BYTES:
        raise StoreError(f"the snapshot {path} is larger than {MAX_BYTES} bytes")
    with open(path, "rb") as file:  # noqa: PTH123 - a Path object costs more than the call
        return file.read(MAX_BYTES)


def compile_snapshot(snapshot: Snapshot, sticky: Sticky | None = None) -> dict[str, Choose]:
    """The functions that choose an arm, by key of experiment or holdout."""
    items = [*snapshot.experiments.values()]
    items += [
        Experiment(key=item.key, salt=item.salt, control=HELD_OUT, ranges=item.ranges)
        for item in snapshot.holdouts.values()
    ]
    return {
        item.key: compile_arms(
            item,
            version=snapshot.version,
            snapshot=snapshot.checksum,
            layers=snapshot.layers,
            holdouts=snapshot.holdouts,
            sticky=sticky,
        )
        for item in items
    }


class _Keyed(Protocol):
    @property
    def key(self) -> str: ...


_Item = TypeVar("_Item", bound=_Keyed)


def by_key(items: Iterable[_Item]) -> dict[str, _Item]:
    """Experiments, layers or holdouts by key.

    Raises:
        ConfigError: two of them have the same key.
    """
    table: dict[str, _Item] = {}
    for item in items:
        if item.key in table:
            msg = f"two {type(item).__name__.lower()}s have the key {item.key!r}"
            raise ConfigError(msg)
        table[item.key] = item
    return table


def _check_references(
    experiments: Mapping[str, Experiment],
    layers: Mapping[str, Layer],
    holdouts: Mapping[str, Holdout],
) -> None:
    for item in experiments.values():
        if item.layer and item.layer not in layers:
            raise ConfigError(
                f"experiment {item.key!r} is in layer {item.layer!r}, which is not there"
            )
        for key in item.holdouts:
            if key not in holdouts:
                raise ConfigError(
                    f"experiment {item.key!r} names the holdout {key!r}, which is not there"
                )
        if item.key in holdouts:
            raise ConfigError(f"an experiment and a holdout have the key {item.key!r}")
        _check_salts(item, layers, holdouts)


def _check_salts(
    item: Experiment, layers: Mapping[str, Layer], holdouts: Mapping[str, Holdout]
) -> None:
    """Two steps with one salt are one step: a layer's part would hold a single variant."""
    seen = {(item.hash, item.salt): "the experiment"}
    steps = [(f"the holdout {key!r}", "abkit-v1", holdouts[key].salt) for key in item.holdouts]
    if item.layer:
        layer = layers[item.layer]
        steps.append((f"the layer {layer.key!r}", layer.hash, layer.salt))
    for name, hash_name, salt in steps:
        other = seen.setdefault((hash_name, salt), name)
        # What came from a vendor is served as there, whatever one thinks of it.
        if other != name and not is_vendor(hash_name):
            raise ConfigError(
                f"experiment {item.key!r}: {other} and {name} have the same salt {salt!r}, so "
                "that one decides the other; give each a salt of its own"
            )


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
