"""The snapshot: a bad file never replaces a good one, and a good one arrives whole and in time."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import stat
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import abkit.snapshot
from abkit.errors import ConfigError, SchemaVersionError, StoreError
from abkit.experiment import Experiment
from abkit.snapshot import MAX_BYTES, SCHEMA, Snapshot, SnapshotSource, write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PUBLISHED = 1_700_000_000.0


def make(version: int) -> Snapshot:
    """A snapshot whose content says its version: a torn mixture would be seen."""
    experiments = [
        Experiment.from_dict(
            {
                "key": key,
                "salt": f"salt-{key}",
                "control": "a",
                "variants": {"a": 0.5, "b": 0.25, "c": 0.25},
                "overrides": {"東京-👩": "b"},
                "rollout": 0.001 * (version % 1000),
                "epoch": version,
                "metrics": [{"key": "error", "kind": "proportion", "direction": "decrease"}],
            }
        )
        for key in ("ranker", "search")
    ]
    return Snapshot.of(experiments, version=version, published=PUBLISHED)


GOOD = make(1)
CONTENT = GOOD.to_bytes()


def sealed(body: object, *, schema: object = SCHEMA, **changes: object) -> bytes:
    """Content with a right checksum, made without abkit."""
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    checksum = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    document = {"schema": schema, "checksum": checksum, "body": body} | changes
    return json.dumps(document).encode()


def body(**changes: Any) -> dict[str, Any]:
    return {"version": 2, "published": PUBLISHED, "experiments": []} | changes


def nested(depth: int) -> bytes:
    # json.dumps can't write what is deeper than the recursion limit.
    inside = b"[" * depth + b"]" * depth
    return b'{"schema": "%b", "checksum": "", "body": {"x": %b}}' % (SCHEMA.encode(), inside)


EXPERIMENT = GOOD.experiments["ranker"].to_dict()

# What a file can hold instead of a snapshot, and a word of the message.
BAD: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "not valid JSON"),
    "NUL bytes": (bytes(len(CONTENT)), "not valid JSON"),
    "HTML": (b"<!doctype html><html><h1>502 Bad Gateway</h1></html>", "not valid JSON"),
    "no UTF-8": (b"\xff\xfe\x80" + CONTENT, "not valid JSON"),
    "two documents": (CONTENT + CONTENT, "not valid JSON"),
    "a number": (b"7", "no body"),
    "null": (b"null", "no body"),
    "a list": (b"[]", "no body"),
    "an empty table": (b"{}", "no body"),
    "a body that is a list": (sealed([]), "no body"),
    "an old schema": (sealed(body(), schema="abkit.snapshot/v0"), "'abkit.snapshot/v0'"),
    "a new schema": (sealed(body(), schema="abkit.snapshot/v2"), "'abkit.snapshot/v2'"),
    "a schema that is a list": (sealed(body(), schema=["abkit.snapshot/v1"]), "schema"),
    "no schema": (b'{"body": {}}', "schema is None"),
    "no checksum": (b'{"schema": "%b", "body": {}}' % SCHEMA.encode(), "checksum"),
    "a checksum that is null": (sealed(body(), checksum=None), "checksum"),
    "another's checksum": (sealed(body(), checksum=GOOD.checksum), "checksum"),
    "a key twice": (CONTENT.replace(b'"state"', b'"key"', 1), "'key' stands twice"),
    "a schema twice": (CONTENT.replace(b"{", b'{"schema": "x",', 1), "'schema' stands twice"),
    "no experiments": (sealed({"version": 2, "published": 0.0}), "not usable"),
    "experiments: null": (sealed(body(experiments=None)), "list of experiments"),
    "experiments: a number": (sealed(body(experiments=5)), "list of experiments"),
    "experiments: a table": (sealed(body(experiments={"ranker": EXPERIMENT})), "list of exp"),
    "experiments: an empty table": (sealed(body(experiments={})), "list of experiments"),
    "experiments: an empty text": (sealed(body(experiments="")), "list of experiments"),
    "an experiment: null": (sealed(body(experiments=[None])), "not usable"),
    "an experiment: empty": (sealed(body(experiments=[{}])), "no salt"),
    "an experiment: more keys": (sealed(body(experiments=[EXPERIMENT | {"x": 1}])), "'x'"),
    "an experiment: huge share": (
        sealed(body(experiments=[EXPERIMENT | {"rollout": 10**400}])),
        "rollout",
    ),
    "an experiment: odd types": (
        sealed(body(experiments=[EXPERIMENT | {"control": {"a": 1}}])),
        "control",
    ),
    "an experiment twice": (sealed(body(experiments=[EXPERIMENT, EXPERIMENT])), "two experiments"),
    "no version": (sealed({"published": 0.0, "experiments": []}), "version"),
    "version: null": (sealed(body(version=None)), "version must be a whole number"),
    "version: a word": (sealed(body(version="2")), "version must be a whole number"),
    "version: true": (sealed(body(version=True)), "version must be a whole number"),
    "version: below 0": (sealed(body(version=-1)), "version must be a whole number"),
    "version: half": (sealed(body(version=1.5)), "version must be a whole number"),
    "version: infinite": (sealed(body(version=float("inf"))), "version must be a whole number"),
    "version: too many digits": (b'{"version": ' + b"9" * 5000 + b"}", "not valid JSON"),
    "published: a word": (sealed(body(published="today")), "time of its publication"),
    "published: a huge number": (sealed(body(published=10**400)), "time of its publication"),
    "published: NaN": (sealed(body(published=float("nan"))), "time of its publication"),
    "deep nesting": (b"[" * 200_000, "not valid JSON"),
    "a deep body": (nested(100_000), "not valid JSON"),
}


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "snapshot.json"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def source(path: Path, clock: Clock) -> SnapshotSource:
    """A source that holds the good snapshot."""
    write_atomically(path, CONTENT)
    source = SnapshotSource(path, monotonic=clock, clock=lambda: PUBLISHED + 60)
    assert source.snapshot() == GOOD
    return source


def polled(source: SnapshotSource, clock: Clock) -> int:
    """Version that the source serves after its next look; all ways to ask agree on it."""
    clock.now += 0.5
    version = source.table()["ranker"]("unit").version
    snapshot = source.snapshot()
    assert snapshot is not None
    assert version == snapshot.version == source.health().version
    return version


# Reading


def test_what_is_written_is_read_back() -> None:
    again = Snapshot.from_bytes(CONTENT)
    assert again == GOOD
    assert again.to_bytes() == CONTENT
    assert again.experiments == GOOD.experiments


def test_a_snapshot_can_be_empty() -> None:
    empty = Snapshot.of([], version=3, published=0.0)
    assert Snapshot.from_bytes(empty.to_bytes()) == empty


def test_the_checksum_covers_everything_and_anyone_can_compute_it() -> None:
    document = json.loads(CONTENT)
    assert json.loads(sealed(document["body"])) == document
    assert len({make(version).checksum for version in (1, 2)}) == 2


def test_the_order_of_experiments_changes_no_checksum() -> None:
    experiments = list(GOOD.experiments.values())
    one, other = (
        Snapshot.of(items, version=1, published=PUBLISHED)
        for items in (experiments, experiments[::-1])
    )
    assert one.checksum == other.checksum
    assert one.to_bytes() == other.to_bytes()


def test_two_experiments_with_one_key_are_refused() -> None:
    experiment = GOOD.experiments["ranker"]
    with pytest.raises(ConfigError, match="two experiments have the key 'ranker'"):
        Snapshot.of([experiment, experiment], version=1, published=0.0)


@pytest.mark.parametrize("name", BAD)
def test_content_that_is_no_snapshot_is_refused_with_a_reason(name: str) -> None:
    content, word = BAD[name]
    with pytest.raises(StoreError) as caught:
        Snapshot.from_bytes(content)
    assert word in str(caught.value)


@pytest.mark.parametrize("name", ["an old schema", "a new schema", "no schema"])
def test_another_schema_is_its_own_error(name: str) -> None:
    with pytest.raises(SchemaVersionError, match=r"reads 'abkit.snapshot/v1'"):
        Snapshot.from_bytes(BAD[name][0])


@pytest.mark.parametrize("depth", range(100, 1200, 25))
def test_nesting_of_any_depth_is_refused(depth: int) -> None:
    with pytest.raises(StoreError):
        Snapshot.from_bytes(nested(depth))


def test_a_snapshot_cut_anywhere_is_refused() -> None:
    for end in range(len(CONTENT)):
        with pytest.raises(StoreError):
            Snapshot.from_bytes(CONTENT[:end])


def test_a_flipped_bit_anywhere_is_refused_or_changes_nothing() -> None:
    for place, bit in itertools.product(range(len(CONTENT)), range(8)):
        content = bytearray(CONTENT)
        content[place] ^= 1 << bit
        try:
            found = Snapshot.from_bytes(bytes(content))
        except StoreError:
            continue
        assert found == GOOD, (place, bit)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from([*EXPERIMENT, "variants", "x"]), inner, max_size=6)
    ),
    max_leaves=12,
)
mutated = st.builds(
    lambda key, value: EXPERIMENT | {key: value}, st.sampled_from([*EXPERIMENT, "variants"]), plain
)
bodies = st.fixed_dictionaries(
    {
        "version": st.just(2) | plain,
        "published": st.just(0.0) | plain,
        "experiments": st.lists(mutated, min_size=1, max_size=2) | plain,
    }
)


@given(content=bodies.map(sealed) | plain.map(sealed) | st.binary())
@settings(max_examples=300)
def test_content_is_a_snapshot_or_a_store_error(content: bytes) -> None:
    """Whatever the file holds, no other error comes out, right checksum or not."""
    try:
        found = Snapshot.from_bytes(content)
    except StoreError:
        return
    again = Snapshot.of(
        found.experiments.values(), version=found.version, published=found.published
    )
    assert Snapshot.from_bytes(again.to_bytes()) == again


# The source


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_never_replaces_a_good_snapshot(
    name: str, path: Path, source: SnapshotSource, clock: Clock
) -> None:
    content, word = BAD[name]
    write_atomically(path, content)
    for _ in range(3):
        assert polled(source, clock) == 1
    health = source.health()
    assert health.errors == 1, "the same bad file is read once"
    assert word in health.last_error
    assert health.checksum == GOOD.checksum
    write_atomically(path, make(2).to_bytes())
    assert polled(source, clock) == 2
    assert source.health().errors == 1


@pytest.mark.parametrize("name", BAD)
def test_a_source_starts_on_a_bad_file(name: str, path: Path, clock: Clock) -> None:
    path.write_bytes(BAD[name][0])
    source = SnapshotSource(path, monotonic=clock)
    assert source.table() == {}
    assert source.snapshot() is None
    health = source.health()
    assert (health.version, health.checksum, health.age_seconds, health.errors) == (0, "", None, 1)
    write_atomically(path, CONTENT)
    assert polled(source, clock) == 1


def test_a_file_cut_at_any_byte_never_replaces_a_good_snapshot(
    path: Path, source: SnapshotSource, clock: Clock
) -> None:
    for end in range(len(CONTENT)):
        path.write_bytes(CONTENT[:end])
        assert polled(source, clock) == 1
        assert source.health().errors == end + 1


def test_a_file_with_a_flipped_byte_never_replaces_a_good_snapshot(
    path: Path, source: SnapshotSource, clock: Clock
) -> None:
    for place in range(0, len(CONTENT), 7):
        content = bytearray(CONTENT)
        content[place] ^= 0x55
        path.unlink()
        path.write_bytes(content)
        # Its time too, as two files written in the same tick of the kernel's clock have the same.
        os.utime(path, ns=(0, place))
        errors = source.health().errors
        assert polled(source, clock) == 1
        assert source.health().errors == errors + 1


def vanish(path: Path) -> None:
    path.unlink()


def become_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def become_a_dangling_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def become_a_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def become_huge(path: Path) -> None:
    os.truncate(path, MAX_BYTES + 1)


def lose_its_folder(path: Path) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))


@pytest.mark.parametrize(
    "harm",
    [
        vanish,
        become_a_folder,
        become_a_dangling_link,
        become_a_loop,
        become_huge,
        lose_its_folder,
    ],
)
def test_a_file_that_is_none_never_replaces_a_good_snapshot(
    harm: Callable[[Path], None], path: Path, source: SnapshotSource, clock: Clock
) -> None:
    harm(path)
    assert polled(source, clock) == 1
    health = source.health()
    assert health.errors == 1
    assert ": " in health.last_error, "kind of error and what the system said"


@pytest.mark.parametrize(
    ("name", "is_error"),
    [("absent.json", 0), ("absent/snapshot.json", 0), ("a\x00b", 1), ("x" * 5000, 1)],
)
def test_a_source_starts_without_a_file(
    tmp_path: Path, name: str, is_error: int, clock: Clock
) -> None:
    """That there is none yet is no error, and is told all the same."""
    source = SnapshotSource(tmp_path / name, monotonic=clock)
    assert source.table() == {}
    assert source.health().errors == is_error
    clock.now += 0.5
    assert source.table() == {}
    assert source.health().errors == 2 * is_error
    assert source.health().last_error


def test_a_file_that_is_gone_is_an_error_and_one_that_is_back_is_none(
    path: Path, source: SnapshotSource, clock: Clock
) -> None:
    content = path.read_bytes()
    path.unlink()
    assert polled(source, clock)
    assert (source.health().errors, "FileNotFound" in source.health().last_error) == (1, True)
    path.write_bytes(content)
    polled(source, clock)
    assert (source.health().errors, source.health().last_error) == (1, "")


def test_a_pipe_in_the_place_of_the_file_holds_nobody_up(path: Path) -> None:
    """Opening one waits for a writer that may never come."""
    os.mkfifo(path)
    script = (
        "import sys, pathlib; from abkit.snapshot import SnapshotSource\n"
        "source = SnapshotSource(pathlib.Path(sys.argv[1]))\n"
        "print(source.table(), source.health().last_error)"
    )
    command = [sys.executable, "-c", script, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout == f"{{}} StoreError: the snapshot {path} is not a regular file\n"


def test_a_link_that_is_switched_is_followed(tmp_path: Path, clock: Clock) -> None:
    """As Kubernetes mounts a ConfigMap: a link to a folder is replaced by another link."""
    for version in (1, 2):
        (tmp_path / f"v{version}").mkdir()
        (tmp_path / f"v{version}" / "snapshot.json").write_bytes(make(version).to_bytes())
    data, fresh = tmp_path / "data", tmp_path / "fresh"
    data.symlink_to("v1")
    source = SnapshotSource(data / "snapshot.json", monotonic=clock)
    assert polled(source, clock) == 1
    fresh.symlink_to("v2")
    fresh.replace(data)
    assert polled(source, clock) == 2


def test_the_file_is_looked_at_once_per_poll_on_the_monotonic_clock(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_atomically(path, CONTENT)
    looks = 0
    real = os.stat

    def counting(*args: Any, **kwargs: Any) -> os.stat_result:
        nonlocal looks
        looks += args[0] == os.fspath(path)
        return real(*args, **kwargs)

    monkeypatch.setattr("abkit.snapshot.os.stat", counting)
    source = SnapshotSource(path, poll_seconds=2.0, monotonic=clock, clock=lambda: 0.0)
    assert looks == 1
    write_atomically(path, make(2).to_bytes())
    clock.now += 1.999
    for _ in range(100):
        assert source.table()["ranker"]("u").version == 1
    assert looks == 1
    clock.now += 0.001
    for _ in range(100):
        assert source.table()["ranker"]("u").version == 2
    assert looks == 2


def test_a_jump_of_the_wall_clock_changes_no_polling(path: Path, clock: Clock) -> None:
    write_atomically(path, CONTENT)
    wall = Clock()
    source = SnapshotSource(path, monotonic=clock, clock=wall)
    write_atomically(path, make(2).to_bytes())
    wall.now += 1e9
    assert source.table()["ranker"]("u").version == 1
    wall.now -= 2e9
    assert polled(source, clock) == 2
    assert source.health().age_seconds == 0.0, "published in the future: not a negative age"


def test_the_age_counts_from_the_publication(source: SnapshotSource) -> None:
    assert source.health().age_seconds == 60.0


def test_a_file_that_did_not_change_is_not_parsed_again(
    source: SnapshotSource, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(abkit.snapshot.Snapshot, "from_bytes", fail)
    assert polled(source, clock) == 1
    assert source.health().errors == 0


def test_an_older_refresh_that_ends_last_is_put_right_by_the_next(
    path: Path, source: SnapshotSource, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two threads refresh: one has read version 2 and is slow, the other installs version 3."""
    real = abkit.snapshot.compile_snapshot

    def slow(snapshot: Snapshot, sticky: Any) -> Any:
        monkeypatch.setattr(abkit.snapshot, "compile_snapshot", real)
        write_atomically(path, make(3).to_bytes())
        source.refresh()  # the other thread, from beginning to end
        return real(snapshot, sticky)

    monkeypatch.setattr(abkit.snapshot, "compile_snapshot", slow)
    write_atomically(path, make(2).to_bytes())
    assert polled(source, clock) == 2
    assert polled(source, clock) == 3


def test_readers_never_see_a_torn_snapshot(path: Path) -> None:
    rewrites, readers = 300, 4
    write_atomically(path, CONTENT)
    done = threading.Event()
    faults: list[str] = []
    reads = [0] * readers

    def read(index: int) -> None:
        source = SnapshotSource(path, poll_seconds=0.0)
        newest = 0
        while not done.is_set() or newest < rewrites:
            table = source.table()
            found = [table[key]("unit") for key in ("ranker", "search")]
            versions = {item.version for item in found} | {item.epoch for item in found}
            if len(versions) != 1 or min(versions) < newest:
                faults.append(f"{versions} after {newest}")
                return
            newest = max(versions)
            if source.health().errors:
                faults.append(source.health().last_error)
                return
            reads[index] += 1

    threads = [threading.Thread(target=read, args=(i,), daemon=True) for i in range(readers)]
    for thread in threads:
        thread.start()
    for version in range(1, rewrites + 1):
        write_atomically(path, make(version).to_bytes())
    done.set()
    for thread in threads:
        thread.join(20)
    assert faults == []
    assert not any(thread.is_alive() for thread in threads), "the last version never came"
    assert min(reads) > 0
    assert [item.name for item in path.parent.iterdir()] == [path.name], "nothing is left behind"


FORK = """
import os, sys, pathlib
from abkit.snapshot import SnapshotSource
path, fresh = map(pathlib.Path, sys.argv[1:])
now = [0.0]
source = SnapshotSource(path, monotonic=lambda: now[0])
assert source.table()["ranker"]("u").version == 1
fresh.replace(path)
child = os.fork()
assert source.table()["ranker"]("u").version == 1
now[0] = 0.5
seen = source.table()["ranker"]("u").version
if child == 0:
    os._exit(seen)
print(seen, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_child_sees_a_flip(path: Path, tmp_path: Path) -> None:
    path.write_bytes(CONTENT)
    fresh = tmp_path / "fresh"
    fresh.write_bytes(make(2).to_bytes())
    command = [sys.executable, "-c", FORK, str(path), str(fresh)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.stdout == "2 2\n", done.stderr


# Writing


def test_a_file_is_for_its_owner_alone(path: Path) -> None:
    path.write_bytes(b"")
    path.chmod(0o644)
    write_atomically(path, b"x")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_link_in_the_place_of_the_file_is_replaced_and_not_followed(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"keep")
    link.symlink_to(target)
    write_atomically(link, b"new")
    assert target.read_bytes() == b"keep"
    assert (link.is_symlink(), link.read_bytes()) == (False, b"new")


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    target = "abkit.snapshot.os.fsync" if step == "fsync" else "pathlib.Path.replace"
    with monkeypatch.context() as patch:
        patch.setattr(target, fail)
        with pytest.raises(OSError, match="No space left"):
            write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [item.name for item in path.parent.iterdir()] == [path.name]
