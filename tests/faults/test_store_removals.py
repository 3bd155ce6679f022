"""What is nowhere else: an archive that is lost, old or damaged, and removals that are cut off."""

from __future__ import annotations

import contextlib
import json
import os
from datetime import UTC
from typing import TYPE_CHECKING, Any

import pytest

from abkit.cli import main
from abkit.errors import StoreError
from abkit.log import Chunk, Loss, Position, SegmentWriter
from abkit.log.frames import EVENTS, encode_frame, encode_metadata
from abkit.store.archive import Archive, export
from abkit.store.compact import compact
from abkit.store.erasures import BEGUN, PENDING, UNSEALED, pending
from abkit.store.forget import forget
from abkit.store.index import take_place
from abkit.store.ingest import Ingester
from abkit.store.loader import Loader
from abkit.store.reader import StoreReader
from abkit.store.rebuild import rebuild
from abkit.store.reconcile import reconcile
from abkit.store.retention import retain
from abkit.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DAY = 86_400.0
NOW = 1_700_000_000.0
UNIT = "unit-7"


def clock() -> float:
    return NOW


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Ten days of events of a writer that has ended."""
    workspace = Workspace(tmp_path / "ws", clock=clock)
    workspace.create()
    with SegmentWriter(workspace.log_path, segment_bytes=4_000, clock=clock) as writer:
        write(writer, 200)
    return workspace


def write(writer: SegmentWriter, number: int) -> None:
    for i in range(number):
        at = NOW - 10 * DAY + i * 10 * DAY / number
        writer.append(("o", at, f"unit-{i % 20}", "clicks", i / 7, "", ""))


@contextlib.contextmanager
def opened(workspace: Workspace) -> Any:
    with Ingester(workspace, clock=clock) as ingester:
        yield ingester


def rows(ingester: Ingester, unit: str = "%") -> int:
    row = ingester.connection.execute(
        "SELECT count(*) FROM outcome WHERE unit_id LIKE ?", [unit]
    ).fetchone()
    assert row is not None
    return int(row[0])


def check(workspace: Workspace, events: int) -> None:
    """So many events are stored, each is explained, and a new store is equal."""
    with opened(workspace) as ingester:
        ingester.ingest()
        assert rows(ingester) == events
        ingester.publish()
    assert reconcile(workspace.path).balanced
    assert rebuild(workspace, check=True, clock=clock).equal


def compacted(workspace: Workspace) -> Archive:
    with opened(workspace) as ingester:
        compact(ingester)
        ingester.publish()
    return Archive(workspace.path)


def test_a_lost_manifest_takes_no_archived_file_with_it(workspace: Workspace) -> None:
    archive = compacted(workspace)
    files = sorted(archive.path.glob("*/*/*.parquet"))
    manifest = archive.path / "manifest.json"
    content = manifest.read_bytes()
    manifest.unlink()
    for ask in (lambda: Ingester(workspace), lambda: rebuild(workspace), archive.draft):
        with pytest.raises(StoreError, match=r"manifest\.json is gone.* backup"):
            ask()
    assert sorted(archive.path.glob("*/*/*.parquet")) == files != []
    manifest.write_bytes(content)
    check(workspace, 200)


def test_the_manifest_is_there_before_the_first_file_is(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Archive, "commit", refuse_all_but_an_empty_one(Archive.commit))
    with opened(workspace) as ingester, pytest.raises(OSError, match="full"):
        compact(ingester)
    monkeypatch.undo()
    assert list(workspace.path.glob("archive/*/*/*.parquet"))
    check(workspace, 200)
    assert not list(workspace.path.glob("archive/*/*/*.parquet"))


def refuse_all_but_an_empty_one(commit: Callable[..., None]) -> Callable[..., None]:
    def refusing(archive: Archive, manifest: Any) -> None:
        if manifest.files:
            raise OSError("the disk is full")
        commit(archive, manifest)

    return refusing


def test_a_store_is_not_made_anew_of_an_archive_that_is_older_or_gone(
    workspace: Workspace,
) -> None:
    with opened(workspace) as ingester:
        assert retain(ingester, 5).expired == 100
        ingester.publish()
    archive = workspace.path / "archive"
    away = archive.rename(workspace.path / "away")
    with pytest.raises(StoreError, match="the archive is gone, or an old copy"):
        Ingester(workspace)
    away.rename(archive)
    check(workspace, 100)


def damage(archive: Archive) -> tuple[Path, bytes]:
    """Flip one bit of a value that Parquet does not miss."""
    path = archive.path / min(archive.manifest().files)
    good = path.read_bytes()
    path.write_bytes(good[:40] + bytes([good[40] ^ 1]) + good[41:])
    return path, good


def test_a_store_that_lags_keeps_its_events_when_an_archived_file_is_damaged(
    workspace: Workspace,
) -> None:
    archive = compacted(workspace)
    manifest = archive.path / "manifest.json"
    content = manifest.read_text()
    manifest.write_text(content.replace('"removals": 0', '"removals": 1'))
    path, good = damage(archive)
    with pytest.raises(StoreError, match="missing or damaged; take it from a backup"):
        Ingester(workspace)
    manifest.write_text(content)
    with opened(workspace) as ingester:
        assert rows(ingester) == 200
    path.write_bytes(good)
    check(workspace, 200)


@pytest.mark.parametrize("remove", [lambda i: retain(i, 5), lambda i: forget(i, UNIT)])
def test_a_damaged_archived_file_is_never_rewritten_into_a_sound_one(
    workspace: Workspace, remove: Callable[[Ingester], Any]
) -> None:
    archive = compacted(workspace)
    path, good = damage(archive)
    with opened(workspace) as ingester:
        with pytest.raises(StoreError, match="missing or damaged"):
            remove(ingester)
        assert rows(ingester) == 200
    assert archive.damaged_files() == [path.relative_to(archive.path).as_posix()]
    with opened(workspace) as ingester:  # an erasure that waits for the file stops no event
        write_one(workspace)
        ingester.ingest()
        assert rows(ingester) == 201
    path.write_bytes(good)
    with opened(workspace) as ingester:
        remove(ingester)
        ingester.publish()
    assert reconcile(workspace.path).balanced
    assert rebuild(workspace, check=True, clock=clock).equal


def write_one(workspace: Workspace) -> None:
    with SegmentWriter(workspace.log_path, clock=clock) as writer:
        writer.append(("o", NOW, "another", "clicks", 1.0, "", ""))


def test_segments_go_only_once_readers_know_of_their_events(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "ws", clock=clock)
    workspace.create()
    with SegmentWriter(workspace.log_path, segment_bytes=1_000, clock=clock) as writer:
        write(writer, 10)
        with opened(workspace) as ingester:
            ingester.ingest()
            ingester.publish()
            write(writer, 50)
            assert compact(ingester).segments > 2  # and killed before it publishes
        found = reconcile(workspace.path)
        assert found.balanced
        assert found.total.accepted == 60


@pytest.mark.parametrize("place", [2, -1])
def test_a_segment_that_was_cut_off_does_not_keep_its_writers_log_for_ever(
    workspace: Workspace, place: int
) -> None:
    paths = sorted(workspace.log_path.glob("*/*.seg"))
    assert len(paths) > 3
    path = paths[place]
    path.write_bytes(path.read_bytes()[:-20])  # within the end mark
    os.utime(path, (NOW - DAY, NOW - DAY))
    with opened(workspace) as ingester:
        done = compact(ingester)
        ingester.publish()
    assert done.segments == len(paths)
    assert not list(workspace.log_path.glob("*/*.seg"))
    check(workspace, 200)


def test_what_a_cut_off_segment_lost_is_still_known_once_it_is_archived(
    workspace: Workspace,
) -> None:
    paths = sorted(workspace.log_path.glob("*/*.seg"))
    path = paths[1]
    path.write_bytes(path.read_bytes()[:-120])  # the end mark and an event
    with opened(workspace) as ingester:
        ingester.ingest()
        stored = rows(ingester)
        ingester.publish()
    assert stored < 200
    before = reconcile(workspace.path).total
    assert (before.quarantined, before.unexplained) == (200 - stored, 0)
    compacted(workspace)
    assert not list(workspace.log_path.glob("*/*.seg"))
    (workspace.store_path / "abkit.duckdb").unlink()
    check(workspace, stored)
    assert reconcile(workspace.path).total == before


def test_the_same_finding_in_two_archived_segments_fits_into_a_new_store(
    workspace: Workspace,
) -> None:
    folder = workspace.log_path / "w-1"
    folder.mkdir()
    end = encode_metadata(1, [("s", 0.0, "sealed")])
    wild = encode_metadata(1, [("l", 0.0, "r", "a", "ENOSPC", 2**60)])
    for number in (1, 2):
        (folder / f"{number:08d}.seg").write_bytes(wild + end)
        compacted(workspace)
    assert not list(folder.iterdir())
    (workspace.store_path / "abkit.duckdb").unlink()
    check(workspace, 200)


@pytest.mark.parametrize("name", ["\u00b2.seg", "1.seg", "x.seg"])
def test_files_that_are_no_segments_stop_nothing(workspace: Workspace, name: str) -> None:
    compacted(workspace)
    (folder,) = workspace.log_path.iterdir()
    (folder / name).write_bytes(b"")
    check(workspace, 200)
    assert (folder / name).exists()


def test_a_unit_that_is_still_being_erased_stays_out_of_every_store(
    workspace: Workspace,
) -> None:
    with SegmentWriter(workspace.log_path, clock=clock) as writer:
        write(writer, 20)
        with opened(workspace) as ingester:
            assert forget(ingester, UNIT).unsealed
            write(writer, 20)
            ingester.ingest()
            assert rows(ingester, UNIT) == 0
            ingester.publish()
        assert pending(workspace.path) == {UNIT: UNSEALED}
        check(workspace, 190 + 38)
        (workspace.store_path / "abkit.duckdb").unlink()
        check(workspace, 190 + 38)
    compacted(workspace)  # the next ingester erases first
    assert pending(workspace.path) == {}
    check(workspace, 190 + 38)


def test_a_segment_whose_writer_died_is_erased_before_it_is_archived(
    workspace: Workspace,
) -> None:
    writer = SegmentWriter(workspace.log_path, clock=clock)
    write(writer, 20)
    with opened(workspace) as ingester:
        assert forget(ingester, UNIT).unsealed
    segment = writer._journal.segments._segment
    assert segment is not None
    segment._close()  # as the system does when a process dies
    compacted(workspace)
    assert pending(workspace.path) == {}
    check(workspace, 190 + 19)


def test_a_sealed_segment_is_erased_and_archived_while_the_unit_goes_on(
    workspace: Workspace,
) -> None:
    with SegmentWriter(workspace.log_path, segment_bytes=2_000, clock=clock) as writer:
        write(writer, 20)
        with opened(workspace) as ingester:
            assert forget(ingester, UNIT).unsealed
        write(writer, 100)
        while not any(
            UNIT.encode() + b'"' in path.read_bytes()
            for path in workspace.log_path.glob("*/*.open")
        ):
            writer.append(("o", NOW, UNIT, "clicks", 1.0, "", ""))
        compacted(workspace)
        assert pending(workspace.path) == {UNIT: UNSEALED}


def test_an_erasure_that_goes_on_and_is_cut_off_again_is_known_as_such(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SegmentWriter(workspace.log_path, clock=clock) as writer:
        writer.append(("odd", UNIT))  # of no use, and quarantined until its place is a tombstone
        with opened(workspace) as ingester:
            assert forget(ingester, UNIT).unsealed
            ingester.publish()
    with monkeypatch.context() as patch:
        patch.setattr("abkit.store.forget._erase_store", fail)
        with opened(workspace):
            pass
    assert pending(workspace.path) == {UNIT: BEGUN}
    check(workspace, 190)
    assert not (workspace.path / PENDING).exists()


def fail(*_: object) -> int:
    raise StoreError("the power fails here")


def test_an_ingester_starts_although_an_erasure_fails_in_any_way(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workspace.path / PENDING).write_text(json.dumps({UNIT: BEGUN}))

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("abkit.store.forget._erase_states", refuse)
        with opened(workspace) as ingester:
            ingester.ingest()
            assert rows(ingester) == 200
    check(workspace, 190)


def test_what_cannot_be_erased_yet_is_not_called_absent(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(workspace.path)
    with SegmentWriter(workspace.log_path) as writer:
        writer.append(("o", NOW, "the-one", "clicks", 1.0, "", ""))
        assert main(["forget", path, "the-one"]) == 1
        capsys.readouterr()
        assert main(["forget", path, "--pending"]) == 1
        shown = capsys.readouterr().out
        assert "nothing of this unit was found that can be taken out now" in shown
        assert "is still being written" in shown
    assert main(["forget", path, "--pending"]) == 0
    assert main(["forget", path, "the-one"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "nothing of this unit was found"


def test_a_store_without_its_folder_is_not_called_damaged(workspace: Workspace) -> None:
    workspace.store_path.rmdir()
    with pytest.raises(StoreError, match=r"there is no folder .*Workspace\.create") as caught:
        Ingester(workspace, mend=True)
    assert "damaged" not in str(caught.value)


def test_a_swap_that_the_system_refuses_leaves_an_ingester_that_works(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    with opened(workspace) as ingester:
        ingester.ingest()
        with monkeypatch.context() as patch:
            patch.setattr("abkit.store.ingest.take_place", refuse)
            with pytest.raises(PermissionError):
                forget(ingester, UNIT)
        write_one(workspace)
        ingester.ingest()
        assert rows(ingester, "another") == 1
    check(workspace, 191)


def test_folders_of_dead_writers_do_not_pile_up(workspace: Workspace) -> None:
    (folder,) = workspace.log_path.iterdir()
    compacted(workspace)
    with opened(workspace):
        assert folder.exists()  # its writer may be about to go on
    os.utime(folder, (NOW, NOW))
    other = workspace.log_path / "w-2"
    other.mkdir()
    os.utime(other, (NOW, NOW))
    check(workspace, 200)
    assert list(workspace.log_path.iterdir()) == [other]  # nobody knows of it


def test_a_store_from_before_a_compaction_is_filled_from_the_archive(workspace: Workspace) -> None:
    path = workspace.store_path / "abkit.duckdb"
    with opened(workspace) as ingester:
        write_one(workspace)
        ingester.ingest()
    old = path.read_bytes()
    with SegmentWriter(workspace.log_path, clock=clock) as writer:
        write(writer, 20)
    compacted(workspace)
    path.write_bytes(old)
    check(workspace, 221)


def test_a_new_store_never_meets_the_write_ahead_log_of_the_old_one(tmp_path: Path) -> None:
    draft, path = tmp_path / "draft", tmp_path / "store"
    draft.write_bytes(b"new")
    path.write_bytes(b"old")
    wal = tmp_path / "store.wal"
    wal.write_bytes(b"of the old one")
    take_place(draft, path)
    assert path.read_bytes() == b"new"
    assert not wal.exists()


def test_a_lower_count_of_losses_that_is_read_later_changes_nothing(workspace: Workspace) -> None:
    def lost(count: int) -> Chunk:
        loss = Loss("w-1", 0.0, "r", "a", "ENOSPC", count)
        return Chunk(losses=[loss], positions={"w-1": Position(1, count, 1)})

    with opened(workspace) as ingester:
        loader = Loader(ingester.connection, clock=clock)
        for count in (5, 7, 6):
            loader.load(lost(count))
        found = ingester.connection.execute("SELECT count FROM loss").fetchall()
    assert found == [(7,)]


def test_decisions_are_no_news_for_a_look(workspace: Workspace) -> None:
    with opened(workspace) as ingester:
        ingester.ingest()
        before = ingester.loaded
        assert before == 200
        with SegmentWriter(workspace.log_path, clock=clock) as writer:
            writer.append(("d", NOW, "r", 1, json.dumps({"rollout": "r", "look": 1})))
        assert ingester.ingest().events == 1
        assert ingester.loaded == before
        write_one(workspace)
        ingester.ingest()
        assert ingester.loaded == before + 1


def test_ingestion_seals_what_the_dead_left(workspace: Workspace) -> None:
    writer = SegmentWriter(workspace.log_path, clock=clock)
    write(writer, 3)
    segment = writer._journal.segments._segment
    assert segment is not None
    segment._close()
    with opened(workspace) as ingester:
        ingester.ingest()
        assert not list(workspace.log_path.glob("*/*.open"))
    check(workspace, 203)


def test_retention_that_counts_other_rows_in_the_store_makes_it_anew(workspace: Workspace) -> None:
    compacted(workspace)
    with opened(workspace) as ingester:
        ingester.connection.execute("DELETE FROM outcome WHERE sequence = 3")  # it expires below
        assert retain(ingester, 5).expired == 100
        assert rows(ingester) == 100
        ingester.publish()
    check(workspace, 100)


def test_a_parquet_file_that_does_not_hold_its_rows_is_never_committed(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(connection: Any, query: str, *rest: Any) -> Any:
        yield from export(
            connection, query.replace("SELECT ", "SELECT DISTINCT ON (unit_id) ", 1), *rest
        )

    with monkeypatch.context() as patch:
        patch.setattr("abkit.store.compact.export", other)
        with opened(workspace) as ingester, pytest.raises(StoreError, match="nothing was archived"):
            compact(ingester)
    assert not Archive(workspace.path).manifest().files
    check(workspace, 200)


def test_the_newest_event_of_a_writer_is_the_newest_in_any_order(workspace: Workspace) -> None:
    with SegmentWriter(workspace.log_path, clock=clock) as writer, opened(workspace) as ingester:
        for at in (NOW, NOW - DAY):
            writer.append(("o", at, "another", "clicks", 1.0, "", ""))
            ingester.ingest()
        ingester.publish()
    found = {item.writer: item.last_event for item in StoreReader(workspace.path).writers()}
    last = found[writer.counts.writer_id]
    assert last is not None
    assert last.replace(tzinfo=UTC).timestamp() == NOW


def test_what_its_writer_dropped_is_not_also_counted_as_damaged(workspace: Workspace) -> None:
    folder = workspace.log_path / "w-1"
    folder.mkdir()
    event = encode_frame(EVENTS, 1, 1, b'[["o",1.7e9,"u","m",1,"",""]]')
    told = encode_metadata(4, [("l", 0.0, "r", "a", "ENOSPC", 1), ("s", 0.0, "sealed")])
    (folder / "00000001.seg").write_bytes(event + b"an event of two numbers" + told)
    for is_loaded in (False, True):
        if is_loaded:
            with opened(workspace) as ingester:
                ingester.ingest()
                ingester.publish()
        found = reconcile(workspace.path)
        (mine,) = (item for item in found.writers if item.writer == "w-1")
        assert (mine.accepted, mine.dropped, mine.quarantined, mine.unexplained) == (3, 1, 1, 0)
