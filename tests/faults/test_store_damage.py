"""A store that is flipped, cut or gone: seen, or harmless, and always made anew from the log."""

from __future__ import annotations

import contextlib
import multiprocessing
import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from abkit.errors import StoreError
from abkit.log import SegmentWriter
from abkit.store.archive import Archive
from abkit.store.compact import compact
from abkit.store.ingest import Ingester
from abkit.store.rebuild import rebuild
from abkit.store.reconcile import reconcile
from abkit.workspace import Workspace

FLIPS = 30
CUTS = 12
EVENTS = 3_000

# A flipped store may crash DuckDB itself: that is for a process of its own.
SPAWN = multiprocessing.get_context("forkserver")
SPAWN.set_forkserver_preload(["abkit.store.rebuild"])


def flip_and_check(template: str, folder: str, name: str, places: list[int], pipe: Any) -> None:
    """Flip one bit of a store at a time, and tell what a check finds."""
    for place in places:
        workspace = copied(Path(template), Path(folder))
        path = workspace.store_path / name
        content = bytearray(path.read_bytes())
        content[place // 8] ^= 1 << place % 8
        path.write_bytes(content)
        result = rebuild(workspace, check=True)
        word = "unreadable" if result.fault else "harmless" if result.equal else "different"
        assert result.events == TOTAL, place
        if word == "harmless":
            assert counted(workspace) == (TOTAL, TOTAL), place
        pipe.send(word)
    pipe.send("done")


def fill(workspace: Workspace) -> None:
    workspace.create()
    with SegmentWriter(workspace.log_path, segment_bytes=50_000) as writer:
        for number in range(EVENTS // 2):
            at, unit = 1.7e9 + number, f"unit-{number % 700}"
            writer.append(("e", at, "ranker", unit, "new", 1), "ranker", "new")
            writer.append(("o", at, unit, "clicks", number / 7, "", ""))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose store has half of its rows in the file and half in its WAL."""
    folder = tmp_path_factory.mktemp("damage")
    workspace = Workspace(folder / "ws")
    fill(workspace)
    with Ingester(workspace) as ingester:
        ingester.ingest()
        ingester.checkpoint()
        with SegmentWriter(workspace.log_path) as writer:
            for number in range(EVENTS // 2):
                writer.append(("o", 1.7e9, f"unit-{number % 700}", "late", 0.5, "", ""))
        ingester.ingest()
        ingester.publish()
        shutil.copytree(workspace.path, folder / "copy")
    assert (folder / "copy" / "store" / "abkit.duckdb.wal").stat().st_size > 10_000
    return folder / "copy"


def copied(template: Path, tmp_path: Path) -> Workspace:
    target = tmp_path / "ws"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(template, target)
    return Workspace(target)


TOTAL = EVENTS + EVENTS // 2


def counted(workspace: Workspace) -> tuple[int, int]:
    with Ingester(workspace) as ingester:
        ingester.ingest()
        ingester.publish()
        row = ingester.connection.execute(
            "SELECT count(*), count(DISTINCT (writer, sequence)) FROM "
            "(SELECT writer, sequence FROM exposure UNION ALL SELECT writer, sequence FROM outcome)"
        ).fetchone()
    assert row is not None
    return row


def counted_in_the_end(workspace: Workspace) -> tuple[int, int]:
    """The same; where the store says that it needs a rebuild, after one."""
    try:
        return counted(workspace)
    except StoreError as error:
        words = str(error)
    assert "abkit rebuild" in words
    rebuild(workspace)
    return counted(workspace)


@pytest.mark.parametrize("name", ["abkit.duckdb", "abkit.duckdb.wal"])
def test_a_flipped_bit_is_seen_or_harmless(template: Path, tmp_path: Path, name: str) -> None:
    dice = random.Random(name)
    size = (template / "store" / name).stat().st_size
    places = [dice.randrange(8 * size) for _ in range(FLIPS)]
    seen: Counter[str] = Counter()
    while places:
        ours, theirs = SPAWN.Pipe()
        arguments = (str(template), str(tmp_path), name, places, theirs)
        process = SPAWN.Process(target=flip_and_check, args=arguments)
        process.start()
        theirs.close()
        words: list[str] = []
        with contextlib.suppress(EOFError):
            while not words or words[-1] != "done":
                words.append(ours.recv())
        process.join()
        assert process.exitcode is not None
        assert process.exitcode <= 0, "a check failed, and said why on standard error"
        if process.exitcode < 0:
            words.append("crashed DuckDB")
        seen.update(word for word in words if word != "done")
        places = places[len(words) :] if process.exitcode else []
    print(f"{name}: {dict(seen)}")  # noqa: T201 - the figures are wanted
    assert seen.total() == FLIPS


@pytest.mark.parametrize("name", ["abkit.duckdb", "abkit.duckdb.wal"])
def test_a_rebuild_heals_what_is_beyond_reading(template: Path, tmp_path: Path, name: str) -> None:
    workspace = copied(template, tmp_path)
    (workspace.store_path / name).write_bytes(b"x" * 5_000)
    result = rebuild(workspace)
    assert result.events == TOTAL
    # A write-ahead log of garbage opens as an empty one: an older store, with its own watermark.
    assert bool(result.fault) == (result.kept is not None) == (name == "abkit.duckdb")
    assert rebuild(workspace, check=True).equal
    assert counted(workspace) == (TOTAL, TOTAL)


def test_a_wal_that_is_cut_costs_no_event(template: Path, tmp_path: Path) -> None:
    dice = random.Random("cut")
    size = (template / "store" / "abkit.duckdb.wal").stat().st_size
    for number in range(CUTS):
        workspace = copied(template, tmp_path)
        wal = workspace.store_path / "abkit.duckdb.wal"
        cut = 0 if number == 0 else dice.randrange(size)
        wal.write_bytes(wal.read_bytes()[:cut])
        assert counted_in_the_end(workspace) == (TOTAL, TOTAL), cut
        assert rebuild(workspace, check=True).equal, cut
        assert reconcile(workspace.path).balanced


@pytest.mark.parametrize("gone", [["abkit.duckdb"], ["abkit.duckdb.wal"], ["abkit.duckdb", ".wal"]])
def test_deleted_files_are_made_anew(template: Path, tmp_path: Path, gone: list[str]) -> None:
    workspace = copied(template, tmp_path)
    for path in workspace.store_path.iterdir():
        if any(path.name.endswith(name) for name in gone):
            path.unlink()
    assert counted_in_the_end(workspace) == (TOTAL, TOTAL)
    assert rebuild(workspace, check=True).equal


def test_a_store_that_is_gone_comes_back_from_the_archive(template: Path, tmp_path: Path) -> None:
    workspace = copied(template, tmp_path)
    with Ingester(workspace) as ingester:
        assert compact(ingester).events == TOTAL
        ingester.publish()
    shutil.rmtree(workspace.store_path)
    workspace.create()
    assert counted(workspace) == (TOTAL, TOTAL)
    assert rebuild(workspace, check=True).equal
    assert reconcile(workspace.path).balanced


def test_a_store_that_lost_rows_is_never_archived(template: Path, tmp_path: Path) -> None:
    workspace = copied(template, tmp_path)
    with Ingester(workspace) as ingester:
        ingester.ingest()
        ingester.connection.execute("DELETE FROM outcome WHERE sequence = 2")
        segments = sorted(workspace.log_path.glob("*/*.seg"))
        with pytest.raises(StoreError, match=r"differs from the log in outcome; .*abkit rebuild"):
            compact(ingester)
        assert sorted(workspace.log_path.glob("*/*.seg")) == segments
    result = rebuild(workspace)
    assert [item.table for item in result.tables if not item.equal] == ["outcome"]
    assert result.kept is not None
    assert result.kept.exists()
    assert counted(workspace) == (TOTAL, TOTAL)


def test_a_damaged_archive_is_named_and_stops_what_would_need_it(
    template: Path, tmp_path: Path
) -> None:
    workspace = copied(template, tmp_path)
    with Ingester(workspace) as ingester:
        compact(ingester)
    archive = Archive(workspace.path)
    name = next(iter(archive.manifest().files))
    path = archive.path / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert archive.damaged_files() == [name]
    with pytest.raises(StoreError, match="take it from a backup"):
        rebuild(workspace)
    assert counted(workspace) == (TOTAL, TOTAL)  # the store itself is well
    (archive.path / "manifest.json").write_bytes(b"{")
    with pytest.raises(StoreError, match=r"manifest\.json is damaged"):
        Ingester(workspace)
