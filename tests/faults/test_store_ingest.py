"""What the ingester meets: poison, numbers beyond reason, a failing disk: it goes on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from abkit.errors import StoreError
from abkit.log import LogReader, SegmentWriter
from abkit.log.frames import EVENTS, encode_frame, encode_metadata
from abkit.store import ingest as ingest_module
from abkit.store.batches import read_batch
from abkit.store.connect import DamagedStoreError
from abkit.store.ingest import Ingested, Ingester
from abkit.store.rebuild import rebuild
from abkit.store.reconcile import reconcile
from abkit.workspace import Workspace

if TYPE_CHECKING:
    from pathlib import Path

SOUND = ["o", 1.7e9, "unit-1", "clicks", 2.0, "", ""]
POISON = [
    '["o",1.7e9,"u","m",1e999,"",""]',
    '["o",1.7e9,"u","m",-1e999,"",""]',
    '["o",1e999,"u","m",1,"",""]',
    '["o","' + "9" * 200_000 + '","u","m",1,"",""]',
    '["o",' + "9" * 4_000 + ',"u","m",1,"",""]',
    '["o",-1,"u","m",1,"",""]',
    '["o",1e300,"u","m",1,"",""]',
    '["o",1.7e9,"u","m","1","",""]',
    '["o",1.7e9,"u","m",null,"",""]',
    '["o",1.7e9,"u","m",' + "[" * 400 + "]" * 400 + ',"",""]',
    '["o",1.7e9,"\\ud800","m",1,"",""]',
    '["o",1.7e9,"u","m\\u0000",1,"",""]',
    '["o",1.7e9,"' + "u" * 200_000 + '","m",1,"",""]',
    '["o",1.7e9,"u","' + "m" * 1_000 + '",1,"",""]',
    '["o"]',
    '["e",1.7e9,"r","u","v",1e999]',
    '["e",1.7e9,"r","u","v",99999999999]',
    '["e",1.7e9,"r","u",{"v":1},1]',
    '["d",1.7e9,"r",1,"no JSON"]',
    '["d",1.7e9,"r",1,"{\\"look\\":1,\\"rollout\\":\\"r\\",\\"x\\":NaN}"]',
    '["d",1.7e9,"r",1,{"look":1}]',
    '["zz",{"any":["thing"]}]',
    '["",1]',
    '["\\ud800"]',
]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path / "ws")
    workspace.create()
    return workspace


def segment(workspace: Workspace, *frames: bytes, number: int = 1) -> Path:
    path = workspace.log_path / "w-1" / f"{number:08d}.seg"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"".join(frames))
    return path


def events(first: int, *texts: str) -> bytes:
    return encode_frame(EVENTS, first, len(texts), f"[{','.join(texts)}]".encode())


END = encode_metadata(0, [("s", 0.0, "dead")])


@pytest.mark.parametrize("text", POISON, ids=range(len(POISON)))
def test_a_poisonous_event_is_quarantined_and_its_neighbours_are_stored(
    workspace: Workspace, text: str
) -> None:
    good = json.dumps(SOUND)
    segment(workspace, events(1, good, text, good), events(4, good), END)
    with Ingester(workspace) as ingester:
        assert ingester.ingest() == Ingested(3, 1)
        assert ingester.ingest() == Ingested()
        ingester.publish()
        found = ingester.connection.execute("SELECT sequence FROM outcome ORDER BY 1").fetchall()
        assert found == [(1,), (3,), (4,)]
        (reason,) = ingester.connection.execute("SELECT reason FROM quarantine").fetchone() or ()
        assert len(reason) <= 200
    balance = reconcile(workspace.path)
    assert balance.balanced
    assert balance.total.quarantined == 1
    assert rebuild(workspace, check=True).equal


def test_all_poison_at_once(workspace: Workspace) -> None:
    segment(workspace, events(1, *POISON), events(1 + len(POISON), *POISON), END)
    with Ingester(workspace) as ingester:
        assert ingester.ingest() == Ingested(0, 2 * len(POISON))
        ingester.publish()
    assert reconcile(workspace.path).balanced


def test_text_that_is_no_json_costs_its_frame_alone(workspace: Workspace) -> None:
    good = json.dumps(SOUND)
    for_all = ["NaN", '["o",NaN,"u","m",1,"",""]', "[", '["o",' + "9" * 200_000 + "]"]
    frames = [events(2 * i + 1, text) + events(2 * i + 2, good) for i, text in enumerate(for_all)]
    segment(workspace, *frames, END)
    with Ingester(workspace) as ingester:
        assert ingester.ingest() == Ingested(len(for_all), len(for_all))
        ingester.publish()
    balance = reconcile(workspace.path)
    assert balance.balanced
    assert balance.total.quarantined == len(for_all)


@pytest.mark.parametrize("number", [2**63 - 1, 2**63, 2**64 - 2, 2**48 + 1])
def test_a_number_beyond_reason_takes_no_later_event_with_it(
    workspace: Workspace, number: int
) -> None:
    good = json.dumps(SOUND)
    segment(workspace, events(1, good), events(number, good), END)
    with Ingester(workspace) as ingester:
        assert ingester.ingest().events == 1
        assert ingester.watermark() == {"w-1": 1}
        segment(workspace, events(2, good, good), END, number=2)
        assert ingester.ingest().events == 2
        ingester.publish()
        reasons = ingester.connection.execute("SELECT reason, events FROM quarantine").fetchall()
        assert ("an impossible number", 0) in reasons
    balance = reconcile(workspace.path)
    assert balance.total.accepted == balance.total.stored == 3


@pytest.mark.parametrize("count", [-1, -(2**70), 2**63, 2**200])
def test_a_count_of_losses_beyond_reason_is_noted_and_not_counted(
    workspace: Workspace, count: int
) -> None:
    losses = [("l", 1.0, "r", "v", "queue_full", count), ("l", 1.0, "r", "v", "busy", 2)]
    odd = [("l", 1.0, "\ud800", "v", "busy", 1), ("l", 1.0, "r" * 300, "v\0", "busy", 1)]
    frame = encode_metadata(6, losses)
    text = json.dumps(odd).encode()  # with escapes, as the log itself would never write them
    other = encode_frame(2, 6, 0, text)
    segment(workspace, events(1, json.dumps(SOUND)), frame, other, END)
    with Ingester(workspace) as ingester:
        ingester.ingest()
        ingester.publish()
    balance = reconcile(workspace.path)
    assert balance.total.dropped == 4
    assert balance.balanced


def test_one_odd_event_in_a_full_batch_costs_no_second_arrow_table_each(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SegmentWriter(workspace.log_path, durability="buffered", flush_records=500) as writer:
        for number in range(20_000):
            value: Any = "odd" if number == 7_777 else 1.0
            writer.append(("o", 1.7e9, f"u{number}", "m", value, "", ""))
        writer.flush()
    from abkit.store import columns

    built: list[int] = []
    whole = columns._whole

    def counted(rows: Any, fields: Any) -> Any:
        built.append(len(rows))
        return whole(rows, fields)

    monkeypatch.setattr(columns, "_whole", counted)
    with Ingester(workspace) as ingester:
        assert ingester.ingest() == Ingested(19_999, 1)
    assert len(built) <= 4


def test_batches_are_bounded_in_bytes(workspace: Workspace) -> None:
    with SegmentWriter(workspace.log_path, segment_bytes=2**20) as writer:
        for number in range(300):
            writer.append(("o", 1.7e9, "u" * 16_000, "m", float(number), "", ""))
    reader, positions, sizes = LogReader(workspace.log_path), {}, []
    while True:
        chunk = read_batch(reader, workspace.log_path, positions, most_records=64, most_bytes=10**6)
        positions = chunk.positions
        sizes.append(len(chunk))
        if not chunk.has_more:
            break
    assert sum(sizes) == 300
    assert max(sizes) <= 65
    one = read_batch(reader, workspace.log_path, {}, most_records=10**6, most_bytes=10**6)
    assert 0 < len(one) < 100  # and not a whole step of thousands
    assert one.has_more


def test_what_duckdb_may_use_is_bounded(workspace: Workspace) -> None:
    with Ingester(workspace, memory_limit="256MB", threads=1) as ingester:
        query = "SELECT current_setting('memory_limit'), current_setting('threads')"
        assert ingester.connection.execute(query).fetchone() == ("244.1 MiB", 1)


def test_the_files_of_the_store_are_for_the_owner_alone(workspace: Workspace) -> None:
    with SegmentWriter(workspace.log_path) as writer:
        writer.append(tuple(SOUND))
        with Ingester(workspace) as ingester:
            ingester.ingest()
            ingester.publish()
            found = sorted(path.name for path in workspace.store_path.iterdir())
            assert found == ["abkit.duckdb", "abkit.duckdb.wal", "published.duckdb"]
            for path in workspace.store_path.iterdir():
                assert path.stat().st_mode & 0o777 == 0o600, path


def test_drafts_of_publishers_that_were_killed_are_removed(workspace: Workspace) -> None:
    for name in (".published.duckdb.99", ".published.duckdb.99.wal", ".draft.duckdb"):
        (workspace.store_path / name).write_bytes(b"x")
    with Ingester(workspace) as ingester:
        ingester.publish()
    found = sorted(path.name for path in workspace.store_path.iterdir())
    assert found == ["abkit.duckdb", "published.duckdb"]


def test_an_old_store_is_brought_up_to_date_by_the_log_alone(workspace: Workspace) -> None:
    with SegmentWriter(workspace.log_path) as writer:
        writer.append(tuple(SOUND))
        with Ingester(workspace) as ingester:
            ingester.ingest()
        kept = workspace.path / "backup"
        shutil.copy(workspace.store_path / "abkit.duckdb", kept)
        writer.append(tuple(SOUND))
        with Ingester(workspace) as ingester:
            ingester.ingest()
        shutil.copy(kept, workspace.store_path / "abkit.duckdb")
        with Ingester(workspace) as ingester:
            assert ingester.ingest() == Ingested(1, 0)


def test_a_damaged_store_says_what_to_do_and_is_mended_on_request(workspace: Workspace) -> None:
    with SegmentWriter(workspace.log_path) as writer:
        writer.append(tuple(SOUND))
        with Ingester(workspace) as ingester:
            ingester.ingest()
    store = workspace.store_path / "abkit.duckdb"
    store.write_bytes(b"not a database")
    with pytest.raises(DamagedStoreError, match=r"nothing is lost.*`abkit rebuild "):
        Ingester(workspace)
    assert store.read_bytes() == b"not a database"
    with Ingester(workspace, mend=True) as ingester:
        assert ingester.ingest() == Ingested(1, 0)
    (kept,) = workspace.store_path.glob("abkit.duckdb.damaged-*")
    assert kept.read_bytes() == b"not a database"


def test_a_folder_that_refuses_is_no_damage(workspace: Workspace) -> None:
    (workspace.store_path / "abkit.duckdb").mkdir()
    with pytest.raises(StoreError, match="cannot open the store") as caught:
        Ingester(workspace, mend=True)
    assert not isinstance(caught.value, DamagedStoreError)


def test_a_store_that_duckdb_gave_up_is_opened_again(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [2]
    load = ingest_module.Loader.load

    def failing(self: Any, chunk: Any) -> Ingested:
        if failures[0] and len(chunk):
            failures[0] -= 1
            raise duckdb.FatalException("fsync failed!")
        return load(self, chunk)

    monkeypatch.setattr(ingest_module.Loader, "load", failing)
    with SegmentWriter(workspace.log_path) as writer, Ingester(workspace) as ingester:
        writer.append(tuple(SOUND))
        with pytest.raises(StoreError, match="fails again after being opened anew: fsync failed!"):
            ingester.ingest()
        assert ingester.watermark() == {}
        failures[0] = 1
        assert ingester.ingest() == Ingested(1, 0)
        assert ingester.loaded == 1
        assert ingester.ingest() == Ingested()


FAILING = """
import sys
from abkit.errors import StoreError
from abkit.log import SegmentWriter
from abkit.store.ingest import Ingester
from abkit.workspace import Workspace

workspace = Workspace(sys.argv[1])
workspace.create()
with SegmentWriter(workspace.log_path) as writer, Ingester(workspace) as ingester:
    for number in range(6):
        for _ in range(20):
            assert writer.append(("o", 1.7e9, "unit-1", "clicks", 2.0, "", ""))
        try:
            ingester.ingest()
        except StoreError as error:
            assert "fails again" in str(error), error
            print("refused")
            continue
        query = "SELECT count(*), count(DISTINCT sequence) FROM outcome"
        (found,) = ingester.connection.execute(query).fetchall()
        (mark,) = ingester.watermark().values()
        assert found == (mark, mark) == (20 * number + 20,) * 2, (found, mark)
        print("stored")
"""


@pytest.mark.parametrize("when", ["4", "3..4"])
def test_an_fsync_that_fails_costs_no_event_and_acknowledges_none(
    workspace: Workspace, when: str
) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("no strace: install the package strace")
    probe = subprocess.run([strace, "-o", os.devnull, "true"], check=False, capture_output=True)
    if probe.returncode:
        pytest.skip("strace may not trace here")
    trace = workspace.path / "trace"
    command = [strace, "-f", "-qq", "-o", str(trace), "-e", "trace=fsync,fdatasync"]
    command += ["-e", f"inject=fsync,fdatasync:error=EIO:when={when}"]
    script = [sys.executable, "-c", FAILING, str(workspace.path)]
    done = subprocess.run([*command, *script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # strace counts calls by thread, so more than one may fail; a refusal takes more than one.
    injected = trace.read_text().count("INJECTED")
    assert injected > 0
    said = done.stdout.split()
    assert len(said) == 6
    assert said.count("refused") < injected
    assert said[-1] == "stored"
    with Ingester(workspace) as ingester:
        ingester.ingest()
        ingester.publish()
    assert reconcile(workspace.path).total.stored == 120
    assert rebuild(workspace, check=True).equal
