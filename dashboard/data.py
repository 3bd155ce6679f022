"""What the pages read: bounded, cached reads of one workspace, and words for what is missing.

Everything is keyed by the stamp of the file it came from, so a page that refreshes every second
costs one `stat` until the controller publishes. Nothing is written, and no SQL stands here: the
published file is opened by `StoreReader`, read-only and with its settings locked.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import streamlit as st

from abkit.errors import AbkitError
from abkit.store.reader import StoreReader
from abkit.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Callable

    from abkit.experiment import Experiment
    from abkit.rollout import Rollout
    from abkit.store.reader import WriterCounts

_T = TypeVar("_T")
Record = dict[str, Any]
Stamp = tuple[int, int, int]
Problem = Literal["no_workspace", "missing", "unpublished", "damaged"]

WORKSPACE_VARIABLE = "ABKIT_WORKSPACE"
PUBLISHED = Path("store") / "published.duckdb"
MOST_LOOKS = 1_000
NEWEST_LOOKS = 24
# What charts and tables need; the rest of a record is read when somebody opens it.
HEAVY = ("rollout_state", "watermark")


class Unavailable(Exception):  # noqa: N818 - a state of the world that pages show, not a fault
    """There is nothing to show, and this says why.

    Args:
        problem: which kind of nothing.
        detail: what was found, for people; may hold text from files.
        path: the workspace, where there is one.
    """

    def __init__(self, problem: Problem, detail: str, path: Path | None = None) -> None:
        super().__init__(detail)
        self.problem = problem
        self.detail = detail
        self.path = path


@dataclass(frozen=True, slots=True)
class Listing:
    """The rollouts of a workspace.

    Args:
        rollouts: those that can be read, the newest first.
        damaged: for each of the others, what is wrong with it.
    """

    rollouts: tuple[Rollout, ...]
    damaged: tuple[str, ...] = ()

    def find(self, key: str) -> Rollout | None:
        """The rollout of this key."""
        return next((item for item in self.rollouts if item.key == key), None)

    def newest_of(self, experiment: str) -> Rollout | None:
        """The newest rollout of an experiment."""
        return next((item for item in self.rollouts if item.experiment.key == experiment), None)


@dataclass(frozen=True, slots=True)
class Published:
    """The file that the controller published last.

    Args:
        path: the workspace.
        stamp: changes whenever a new file is published.
        age_seconds: how long ago it was written, by this machine's clock.
    """

    path: Path
    stamp: Stamp
    age_seconds: float


def workspace_path() -> Path:
    """The folder that this dashboard shows.

    Raises:
        Unavailable: none is named, or it is not there.
    """
    named = os.environ.get(WORKSPACE_VARIABLE, "")
    if not named:
        raise Unavailable("no_workspace", f"{WORKSPACE_VARIABLE} is not set")
    path = Path(named)
    if not path.is_dir():
        raise Unavailable("missing", f"no folder {named}", path)
    return path


def listing() -> Listing:
    """All rollouts; a damaged state file does not hide the others.

    Raises:
        Unavailable: there is no workspace.
    """
    path = workspace_path()
    return _listing(str(path), _stamp(path / "rollouts"))


def serving() -> dict[str, Experiment]:
    """What serving code reads now, by experiment; empty where nothing is published or readable."""
    path = workspace_path()
    return _serving(str(path), _stamp(path / "snapshot.json"))


def published() -> Published:
    """The published file.

    Raises:
        Unavailable: the controller has not published yet.
    """
    path = workspace_path()
    stamp = _stamp(path / PUBLISHED)
    if not any(stamp):
        raise Unavailable("unpublished", "the controller has not published yet", path)
    return Published(path, stamp, _age(stamp))


def decisions(source: Published, key: str) -> tuple[Record, ...]:
    """The newest decision records of a rollout, oldest first, without their heaviest parts.

    Raises:
        Unavailable: the published file cannot be read.
    """
    return _tail(str(source.path), key).at(source)


def decision(source: Published, record: Record, *, newest: int) -> Record | None:
    """The whole of one decision record; None if it is not there any more.

    Args:
        source: the published file.
        record: the record as `decisions` returned it.
        newest: number of the newest look.

    Raises:
        Unavailable: the published file cannot be read.
    """
    limit = min(max(newest - record["look"] + 1, 1), MOST_LOOKS)
    return _decision(str(source.path), record["rollout"], record["decision_id"], limit)


def traffic(source: Published, experiment: str) -> list[dict[str, Any]]:
    """Exposures of an experiment by minute, epoch and variant.

    Raises:
        Unavailable: the published file cannot be read.
    """
    return _traffic(str(source.path), source.stamp, experiment)


def writers(source: Published) -> list[WriterCounts]:
    """What became of every writer's events.

    Raises:
        Unavailable: the published file cannot be read.
    """
    return _writers(str(source.path), source.stamp)


# ---- cached reads --------------------------------------------------------------------------------
# These are resources, not data: streamlit hands out the same object instead of a copy, which costs
# nothing; no page changes what it was given. Every cache is bounded.


@st.cache_resource(max_entries=4, ttl="10s", show_spinner=False)
def _listing(path: str, stamp: Stamp, /) -> Listing:  # noqa: ARG001 - the stamp keys the cache
    workspace = Workspace(path)
    try:
        return Listing(tuple(workspace.rollouts()))
    except Exception:  # noqa: BLE001 - whatever a damaged file raises; it is named below
        return _readable_ones(workspace)


def _readable_ones(workspace: Workspace) -> Listing:
    found: list[Rollout] = []
    damaged: list[str] = []
    for file in sorted((workspace.path / "rollouts").glob("*.json")):
        try:
            found.append(workspace.rollout(file.stem))
        except Exception as error:  # noqa: BLE001 - the same
            damaged.append(f"rollouts/{file.name}: {_words(error)}")
    found.sort(key=lambda item: (item.started or 0.0, item.key), reverse=True)
    return Listing(tuple(found), tuple(damaged))


@st.cache_resource(max_entries=4, show_spinner=False)
def _serving(path: str, stamp: Stamp, /) -> dict[str, Experiment]:  # noqa: ARG001 - the stamp keys the cache
    try:
        snapshot = Workspace(path).snapshot()
    except AbkitError:
        return {}  # serving code keeps what it had; the pages say that they do not know
    return {} if snapshot is None else dict(snapshot.experiments)


@st.cache_resource(max_entries=16, show_spinner=False)
def _tail(path: str, key: str, /) -> Tail:
    return Tail(path, key)


@st.cache_resource(max_entries=16, show_spinner=False)
def _decision(path: str, key: str, decision_id: str, _limit: int, /) -> Record | None:
    """Streamlit keys by what has no leading underscore: a record never changes."""
    records = _read(path, lambda reader: reader.decisions(key, limit=_limit))
    return next((record for record in records if record["decision_id"] == decision_id), None)


@st.cache_resource(max_entries=8, show_spinner=False)
def _traffic(path: str, stamp: Stamp, experiment: str, /) -> list[dict[str, Any]]:  # noqa: ARG001 - the stamp keys the cache
    return _read(path, lambda reader: reader.traffic(experiment))


@st.cache_resource(max_entries=4, show_spinner=False)
def _writers(path: str, stamp: Stamp, /) -> list[WriterCounts]:  # noqa: ARG001 - the stamp keys the cache
    return _read(path, lambda reader: reader.writers())


class Tail:
    """The decision records of one rollout, read once and then only as far as they are new.

    Args:
        path: the workspace.
        key: key of the rollout.
    """

    def __init__(self, path: str, key: str) -> None:
        """Begin with nothing."""
        self._path = path
        self._key = key
        self._lock = threading.Lock()
        self._stamp: Stamp | None = None
        self._records: tuple[Record, ...] = ()

    def at(self, source: Published) -> tuple[Record, ...]:
        """The records of this published file, oldest first."""
        with self._lock:
            if source.stamp != self._stamp:
                self._records = self._grown() or self._newest(MOST_LOOKS)
                self._stamp = source.stamp
            return self._records

    def _grown(self) -> tuple[Record, ...]:
        """What is known with what is new; empty where the two do not meet."""
        if not self._records:
            return ()
        fresh = self._newest(NEWEST_LOOKS)
        if not fresh:
            return ()
        last = self._records[-1]["decision_id"]
        seen = [number for number, item in enumerate(fresh) if item["decision_id"] == last]
        if not seen:
            return ()  # a burst of looks, or another history under the same name: read it all
        return (*self._records, *fresh[seen[0] + 1 :])[-MOST_LOOKS:]

    def _newest(self, limit: int) -> tuple[Record, ...]:
        records = _read(self._path, lambda reader: reader.decisions(self._key, limit=limit))
        return tuple(_slim(record) for record in records)


def _slim(record: Record) -> Record:
    light = {name: value for name, value in record.items() if name not in HEAVY}
    light["observation"] = {"exposures": record["observation"]["exposures"]}
    return light


def _read(path: str, question: Callable[[StoreReader], _T]) -> _T:
    try:
        return question(StoreReader(path))
    except Exception as error:  # noqa: BLE001 - whatever a damaged file raises becomes words
        raise Unavailable("damaged", _words(error), Path(path)) from None


def _words(error: Exception) -> str:
    """An error for people: abkit's own say what to do, others only what kind they are."""
    return str(error) if isinstance(error, AbkitError) else f"not readable ({type(error).__name__})"


def _age(stamp: Stamp) -> float:
    """Seconds since a file was written, by this machine's clock."""
    return max(0.0, time.time() - stamp[0] / 1e9)


def _stamp(path: Path) -> Stamp:
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_mtime_ns, found.st_ino, found.st_size)
