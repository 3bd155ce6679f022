"""The Prometheus collector, in a registry and in both exposition formats."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from abkit.client import Client, MemorySink
from abkit.experiment import Experiment
from abkit.snapshot import Snapshot, write_atomically
from abkit.workspace import Workspace

pytest.importorskip(
    "prometheus_client",
    reason="prometheus_client is not installed; `python3 dev.py conformance` brings it",
)

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as open_metrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import text_string_to_metric_families as plain_families

from abkit.integrations.prometheus import AbkitCollector

if TYPE_CHECKING:
    from pathlib import Path

RANKER = Experiment.create("ranker", {"teacher": 1.0}, salt="s")


@pytest.fixture
def client(tmp_path: Path) -> Client:
    """A client that read a snapshot 60 seconds old, logged twice and refused twice."""
    workspace = Workspace(tmp_path / "workspace")
    workspace.path.mkdir()
    snapshot = Snapshot.of([RANKER], version=7, published=1_000.0)
    write_atomically(workspace.snapshot_path, snapshot.to_bytes())
    client = Client(workspace.path, clock=lambda: 1_060.0)
    client.expose(client.assign("ranker", "ann"))
    client.record("ann", "score", 1.0)
    client.record("ann", "score", float("nan"))
    client.record("ann", "not a name", 1.0)
    return client


def registry(client: Client, **options: Any) -> CollectorRegistry:
    made = CollectorRegistry()
    made.register(AbkitCollector(client, **options))
    return made


def test_configuration_and_events_are_told(client: Client) -> None:
    value = registry(client).get_sample_value
    assert value("abkit_snapshot_version") == 7
    assert value("abkit_snapshot_age_seconds") == 60
    assert value("abkit_snapshot_errors_total") == 0
    assert value("abkit_events_accepted_total") == 2
    assert value("abkit_events_written_total") == 2
    assert value("abkit_events_queued") == 0
    assert value("abkit_rejected_total", {"reason": "invalid_value"}) == 1
    assert value("abkit_rejected_total", {"reason": "invalid_metric"}) == 1
    health = client.health().snapshot
    assert health is not None
    about = {"checksum": health.checksum, "origin": "file"}
    assert value("abkit_snapshot_info", about) == 1


def test_dropped_events_are_told_by_variant_and_reason() -> None:
    client = Client.from_experiments([RANKER], sink=MemorySink(limit=0))
    client.expose(client.assign("ranker", "ann"))
    labels = {"experiment": "ranker", "variant": "teacher", "reason": "queue_full"}
    assert registry(client).get_sample_value("abkit_events_dropped_total", labels) == 1


def test_types_are_right_in_both_formats(client: Client) -> None:
    made = registry(client)
    expected = {
        "abkit_snapshot": "info",
        "abkit_snapshot_version": "gauge",
        "abkit_snapshot_age_seconds": "gauge",
        "abkit_snapshot_errors": "counter",
        "abkit_events_accepted": "counter",
        "abkit_events_written": "counter",
        "abkit_events_queued": "gauge",
        "abkit_events_dropped": "counter",
        "abkit_rejected": "counter",
    }
    strict = text_string_to_metric_families(open_metrics(made).decode())
    assert {family.name: family.type for family in strict} == expected
    plain = {family.name: family.type for family in plain_families(generate_latest(made).decode())}
    assert plain["abkit_events_accepted"] == "counter"
    assert plain["abkit_snapshot_info"] == "gauge"


def test_every_metric_has_a_sentence_of_help(client: Client) -> None:
    assert all(family.documentation.endswith(".") for family in AbkitCollector(client).describe())


def test_a_client_without_a_workspace_tells_its_events_alone() -> None:
    client = Client.from_experiments([RANKER])
    value = registry(client).get_sample_value
    assert value("abkit_events_accepted_total") == 0
    assert value("abkit_snapshot_version") is None


def test_no_snapshot_is_version_zero_and_has_no_age(tmp_path: Path) -> None:
    value = registry(Client(tmp_path / "empty")).get_sample_value
    assert value("abkit_snapshot_version") == 0
    assert value("abkit_snapshot_age_seconds") is None
    assert value("abkit_snapshot_info", {"checksum": "", "origin": "none"}) == 1


def test_a_collector_is_not_registered_twice(client: Client) -> None:
    made = registry(client)
    with pytest.raises(ValueError, match="Duplicated"):
        made.register(AbkitCollector(client))


def test_workers_behind_one_port_have_series_of_their_own(client: Client) -> None:
    """The label is that of the process which answers, also after a fork."""
    made = registry(client, worker_label=True)
    assert made.get_sample_value("abkit_events_accepted_total", {"worker": str(os.getpid())}) == 2
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            own = {"worker": str(os.getpid())}
            value = made.get_sample_value("abkit_events_accepted_total", own)
            os.write(write, str(float(value or 0)).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as told:
        assert told.read() == b"0.0"
    os.waitpid(pid, 0)
