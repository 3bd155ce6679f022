"""The follower: what is good and newer replaces the local file, and nothing else does."""

from __future__ import annotations

import json
import os
import random
import stat
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

import abkit.fetch
import abkit.follow
from abkit.errors import ConfigError, StoreError
from abkit.fetch import read_snapshot
from abkit.follow import Follower
from abkit.snapshot import MAX_BYTES, SCHEMA, Snapshot, write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PUBLISHED = 1_700_000_000.0


def make(version: int, *, published: float | None = None) -> bytes:
    """The content of a snapshot that was published as many seconds late as its version says."""
    moment = PUBLISHED + version if published is None else published
    return Snapshot.of([], version=version, published=moment).to_bytes()


class Pair:
    """A source file, a target file, and a follower between them."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.source = folder / "source.json"
        self.target = folder / "target" / "snapshot.json"
        self.target.parent.mkdir(exist_ok=True)
        self.lines: list[str] = []
        self.follower = Follower(self.source, self.target, report=self.lines.append, **options)

    def version(self) -> int:
        return Snapshot.from_bytes(self.target.read_bytes()).version


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    pair = Pair(tmp_path)
    write_atomically(pair.source, make(5))
    assert pair.follower.poll().status == "new"
    return pair


# What is taken


def test_the_first_poll_brings_the_file_and_the_next_leaves_it(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    write_atomically(pair.source, make(1))
    first, second = pair.follower.poll(), pair.follower.poll()
    checksum = Snapshot.from_bytes(make(1)).checksum
    assert (first.changed, first.version, first.checksum) == (True, 1, checksum)
    assert (second.changed, second.version, second.checksum) == (False, 1, checksum)
    assert (first.status, second.status) == ("new", "same")
    assert first.error == second.error == ""
    assert pair.target.read_bytes() == pair.source.read_bytes()
    assert len(pair.lines) == 1


def test_content_is_compared_and_not_the_time_of_the_file(pair: Pair) -> None:
    before = pair.source.stat()
    content = make(6)
    assert len(content) == before.st_size
    pair.source.write_bytes(content)
    os.utime(pair.source, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert pair.follower.poll().version == 6


def test_an_unchanged_source_is_neither_parsed_nor_written(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr("abkit.follow.Snapshot.from_bytes", fail)
    monkeypatch.setattr(abkit.follow, "write_atomically", fail)
    os.utime(pair.source)
    assert pair.follower.poll().status == "same"


def test_a_new_follower_leaves_an_equal_file_alone(pair: Pair) -> None:
    before = pair.target.stat()
    again = Follower(pair.source, pair.target)
    assert [again.poll().status, again.poll().status] == ["same", "same"]
    assert pair.target.stat().st_ino == before.st_ino


@pytest.mark.parametrize("harm", [b"", b"{}", make(5)[:-9], None])
def test_a_local_file_that_somebody_broke_is_mended(pair: Pair, harm: bytes | None) -> None:
    if harm is None:
        pair.target.unlink()
    else:
        pair.target.write_bytes(harm)
    assert pair.follower.poll().changed
    assert pair.version() == 5


def test_a_config_map_that_is_switched_is_followed(tmp_path: Path) -> None:
    """As Kubernetes mounts one: the file is a link through `..data`, a link that is replaced."""
    mount = tmp_path / "mount"
    for version in (1, 2):
        folder = mount / f"..{version}"
        folder.mkdir(parents=True)
        (folder / "snapshot.json").write_bytes(make(version))
        os.utime(folder / "snapshot.json", ns=(0, 0))
    (mount / "..data").symlink_to("..1")
    (mount / "snapshot.json").symlink_to("..data/snapshot.json")
    follower = Follower(mount / "snapshot.json", tmp_path / "local.json")
    assert follower.poll().version == 1
    (mount / "..fresh").symlink_to("..2")
    (mount / "..fresh").replace(mount / "..data")
    assert follower.poll().version == 2
    assert not (tmp_path / "local.json").is_symlink()


# What is refused


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "not valid JSON"),
        (b"<html>502 Bad Gateway</html>", "not valid JSON"),
        (make(9)[:-1], "not valid JSON"),
        (make(9).replace(b'"version": 9', b'"version": 8'), "checksum"),
        (make(9).replace(SCHEMA.encode(), b"abkit.snapshot/v9"), "abkit.snapshot/v9"),
        (b"[" * 100_000, "not valid JSON"),
    ],
)
def test_bad_content_never_replaces_a_good_file(pair: Pair, content: bytes, word: str) -> None:
    pair.source.write_bytes(content)
    for _ in range(3):
        result = pair.follower.poll()
        assert (result.changed, result.status, result.version) == (False, "bad", 5)
        assert word in result.error
    assert pair.version() == 5
    assert len(pair.lines) == 2, "one line for a failure that stays the same"
    write_atomically(pair.source, make(5))
    assert pair.follower.poll().status == "same"
    assert pair.lines[-1].endswith("is well again")
    write_atomically(pair.source, make(10))
    assert pair.follower.poll().version == 10


def vanish(path: Path) -> None:
    path.unlink()


def become_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def become_a_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def become_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def become_huge(path: Path) -> None:
    os.truncate(path, MAX_BYTES + 1)


@pytest.mark.parametrize(
    "harm", [vanish, become_a_folder, become_a_loop, become_a_pipe, become_huge]
)
def test_a_source_that_is_no_file_never_replaces_a_good_one(
    pair: Pair, harm: Callable[[Path], None]
) -> None:
    harm(pair.source)
    result = pair.follower.poll()
    assert (result.changed, result.status, result.version) == (False, "unreachable", 5)
    assert result.error
    assert pair.version() == 5


def test_a_follower_starts_without_a_source(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    result = pair.follower.poll()
    assert (result.version, result.checksum, result.status) == (0, "", "unreachable")
    assert "no file is in place" in pair.lines[0]
    write_atomically(pair.source, make(1))
    assert pair.follower.poll().changed


@pytest.mark.parametrize("harm", ["absent", "folder"])
def test_a_target_that_cannot_be_written_is_counted_and_tried_again(
    tmp_path: Path, harm: str
) -> None:
    pair = Pair(tmp_path)
    write_atomically(pair.source, make(1))
    if harm == "absent":
        pair.target.parent.rmdir()
    else:
        pair.target.mkdir()
    for _ in range(2):
        result = pair.follower.poll()
        assert (result.changed, result.status, result.version) == (False, "unwritable", 0)
    assert len(pair.lines) == 1
    if harm == "absent":
        pair.target.parent.mkdir()
    else:
        pair.target.rmdir()
    assert pair.follower.poll().changed
    assert [path.name for path in pair.target.parent.iterdir()] == [pair.target.name]


def test_a_link_in_the_place_of_the_target_is_replaced_and_not_followed(pair: Pair) -> None:
    elsewhere = pair.target.with_name("elsewhere")
    elsewhere.write_bytes(make(9))
    pair.target.unlink()
    pair.target.symlink_to(elsewhere)
    assert pair.follower.poll().changed
    assert not pair.target.is_symlink()
    assert elsewhere.read_bytes() == make(9)


# The order of versions


def test_a_stale_copy_is_refused(pair: Pair) -> None:
    write_atomically(pair.source, make(4))
    result = pair.follower.poll()
    assert (result.changed, result.status, result.version) == (False, "older", 5)
    assert "version 4" in result.error
    assert "version 5" in result.error
    assert "allow_older" in result.error
    assert pair.version() == 5
    assert pair.follower.delay_seconds() == 1.0, "the next answer may be the right one"


def test_a_stale_copy_is_taken_where_that_is_allowed(tmp_path: Path) -> None:
    pair = Pair(tmp_path, allow_older=True)
    for version in (5, 4):
        write_atomically(pair.source, make(version))
        assert pair.follower.poll().changed
    assert pair.version() == 4
    assert any("goes back from 5 to 4: allowed" in line for line in pair.lines)


def test_a_publisher_that_lost_its_counter_is_followed(pair: Pair) -> None:
    """A lower version, published later: a restored workspace. A halt in it must arrive."""
    write_atomically(pair.source, make(1, published=PUBLISHED + 1000))
    result = pair.follower.poll()
    assert (result.changed, result.version, result.error) == (True, 1, "")
    assert any("goes back from 5 to 1" in line for line in pair.lines)


def test_an_equal_version_with_other_content_is_followed(pair: Pair) -> None:
    write_atomically(pair.source, make(5, published=PUBLISHED))
    assert pair.follower.poll().changed


def test_the_same_content_written_in_another_way_is_the_same(pair: Pair) -> None:
    before = pair.target.read_bytes()
    write_atomically(pair.source, json.dumps(json.loads(before)).encode())
    assert pair.follower.poll().status == "same"
    assert pair.target.read_bytes() == before


def test_a_file_that_was_replaced_during_a_fetch_decides_about_the_order(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_atomically(pair.source, make(6))
    real = abkit.fetch.FileSource.fetch

    def slow(source: Any, tag: str) -> tuple[bytes | None, str]:
        answer = real(source, tag)
        write_atomically(pair.target, make(7))  # another follower of the same file
        return answer

    monkeypatch.setattr(abkit.fetch.FileSource, "fetch", slow)
    assert pair.follower.poll().status == "older"
    assert pair.version() == 7


def test_two_followers_of_one_file_agree_in_the_end(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    other = Follower(pair.source, pair.target)
    for version in (1, 2, 3):
        write_atomically(pair.source, make(version))
        assert {pair.follower.poll().version, other.poll().version} == {version}
    write_atomically(pair.target, make(2))  # one of them was slow and wrote last
    assert pair.follower.poll().version == other.poll().version == 3


# Time


def test_delays_double_up_to_half_a_minute_with_jitter(tmp_path: Path) -> None:
    pair = Pair(tmp_path, jitter=random.Random(3))
    assert pair.follower.delay_seconds() == 1.0
    delays = []
    for _ in range(60):
        pair.follower.poll()
        delays.append(pair.follower.delay_seconds())
    for index, delay in enumerate(delays):
        longest = min(30.0, 2.0 ** (index + 1))
        assert longest / 2 <= delay <= longest
    assert len(set(delays)) == len(delays)
    write_atomically(pair.source, make(1))
    pair.follower.poll()
    assert pair.follower.delay_seconds() == 1.0


def test_an_interval_longer_than_half_a_minute_is_kept(tmp_path: Path) -> None:
    pair = Pair(tmp_path, interval_seconds=120.0)
    pair.follower.poll()
    assert 60.0 <= pair.follower.delay_seconds() <= 120.0


def test_a_follower_runs_until_told_to_stop(tmp_path: Path) -> None:
    pair = Pair(tmp_path, interval_seconds=0.01)
    write_atomically(pair.source, make(1))
    stop = threading.Event()
    thread = threading.Thread(target=pair.follower.run, args=(stop,), daemon=True)
    thread.start()
    deadline = threading.Event()
    for _ in range(1000):
        if pair.target.exists():
            break
        deadline.wait(0.01)
    stop.set()
    thread.join(10)
    assert not thread.is_alive()
    assert pair.version() == 1


# Files around it


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644])
def test_the_file_has_the_mode_that_was_asked_for(tmp_path: Path, mode: int) -> None:
    before = os.umask(0o077)
    try:
        pair = Pair(tmp_path, mode=mode)
        write_atomically(pair.source, make(1))
        pair.follower.poll()
    finally:
        os.umask(before)
    assert stat.S_IMODE(pair.target.stat().st_mode) == mode


def test_a_file_of_an_earlier_follower_gets_the_mode_too(pair: Pair) -> None:
    again = Follower(pair.source, pair.target, mode=0o640)
    assert again.poll().status == "same"
    assert stat.S_IMODE(pair.target.stat().st_mode) == 0o640


def test_health_is_a_file(tmp_path: Path) -> None:
    health_path = tmp_path / "health.json"
    pair = Pair(tmp_path, health_path=health_path, clock=lambda: PUBLISHED + 61)
    pair.follower.poll()
    health = json.loads(health_path.read_text("utf-8"))
    assert (health["version"], health["age_seconds"], health["status"]) == (0, None, "unreachable")
    write_atomically(pair.source, make(1))
    result = pair.follower.poll()
    pair.source.unlink()
    pair.follower.poll()
    health = json.loads(health_path.read_text("utf-8"))
    assert health["last_error"].startswith("FileNotFoundError")
    assert health == {
        "checked": PUBLISHED + 61,
        "status": "unreachable",
        "version": 1,
        "checksum": result.checksum,
        "age_seconds": 60.0,
        "errors": 2,
        "errors_in_a_row": 1,
        "last_error": health["last_error"],
    }


def test_a_health_file_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    pair = Pair(tmp_path, health_path=tmp_path / "absent" / "health.json")
    write_atomically(pair.source, make(1))
    assert pair.follower.poll().changed
    assert pair.follower.poll().status == "same"
    assert sum("health.json" in line for line in pair.lines) == 1


def test_what_a_killed_follower_left_behind_is_removed_when_it_is_old(pair: Pair) -> None:
    old, young, foreign = (
        pair.target.parent / name
        for name in (".snapshot.json.7-aa", ".snapshot.json.8-bb", ".other.json.9-cc")
    )
    for path in (old, young, foreign):
        path.write_bytes(b"{")
    for path in (old, foreign):
        os.utime(path, (0, 0))
    stop = threading.Event()
    stop.set()
    pair.follower.run(stop)
    assert not old.exists()
    assert young.exists()
    assert foreign.exists()


def test_a_source_can_be_read_once(pair: Pair, tmp_path: Path) -> None:
    assert read_snapshot(pair.source).version == 5
    pair.source.write_bytes(b"")
    for path in (pair.source, tmp_path / "absent"):
        with pytest.raises(StoreError, match=f"{path} cannot be read: "):
            read_snapshot(path)


# Arguments


@pytest.mark.parametrize(
    ("source", "options", "word"),
    [
        ("ftp://host/x", {}, "fsspec"),
        ("http://", {}, "http://HOST/PATH"),
        ("http://host:0/x", {}, "http://HOST/PATH"),
        ("http://host:x/x", {}, "http://HOST/PATH"),
        ("http://host/a b", {}, "http://HOST/PATH"),
        ("http://host/a\r\nX-Evil: 1", {}, "http://HOST/PATH"),
        ("http://hôst/", {}, "http://HOST/PATH"),
        ("https://user:hunter2@host/x", {}, "token"),
        ("http://host/x", {"token": "hunter2\n"}, "token"),
        ("http://host/x", {"timeout_seconds": 0}, "timeout_seconds"),
        ("a.json", {"interval_seconds": 0.0}, "interval_seconds"),
        ("a.json", {"interval_seconds": float("nan")}, "interval_seconds"),
        ("a.json", {"mode": 0o666}, "mode must be one of 600, 640, 604, 644 (octal), got 666"),
        ("b.json", {}, "same file"),
    ],
)
def test_an_argument_that_is_not_usable_is_refused(
    source: str, options: dict[str, Any], word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    monkeypatch.setattr(abkit.fetch, "find_spec", lambda name: None)
    with pytest.raises(ConfigError) as caught:
        Follower(source, "b.json", **options)
    assert word in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_secrets_of_an_address_stand_in_no_message(tmp_path: Path) -> None:
    lines: list[str] = []
    address = "http://127.0.0.1:1/snapshot.json?X-Amz-Signature=hunter2"
    follower = Follower(
        address,
        tmp_path / "a.json",
        token="hunter2",  # noqa: S106 - what must not be shown
        health_path=tmp_path / "health.json",
        report=lines.append,
    )
    result = follower.poll()
    assert result.status == "unreachable"
    shown = [*lines, repr(result), repr(follower), (tmp_path / "health.json").read_text("utf-8")]
    assert "http://127.0.0.1:1/snapshot.json" in lines[0]
    assert not any("hunter2" in text for text in shown)


def test_an_object_store_is_read_with_fsspec_where_it_is_installed(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec", reason="fsspec is optional")
    address = "memory://abkit/snapshot.json"
    follower = Follower(address, tmp_path / "a.json")
    assert follower.poll().status == "unreachable"
    for version in (1, 2):
        with fsspec.open(address, "wb") as file:
            file.write(make(version))
        assert follower.poll().version == version
    assert follower.poll().status == "same"
