"""Prometheus: a collector over `client.health()`.

::

    from prometheus_client import REGISTRY
    from abkit.integrations.prometheus import AbkitCollector

    REGISTRY.register(AbkitCollector(ab))

The numbers are those of the process that answers the scrape, and nothing is shared between
processes. Where one port has several workers behind it, as with gunicorn, a scrape meets one of
them by chance: pass `worker_label=True`, so that each worker has series of its own and no counter
seems to run backwards, or give each worker a port. `PROMETHEUS_MULTIPROC_DIR` does not help:
prometheus_client leaves custom collectors out of that mode, so a registry made for it, with a
`MultiProcessCollector`, needs this collector registered too. What the whole fleet lost is in the
event log, exactly, and in the store: this is for alerts.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from abkit.errors import MissingExtraError

try:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
except ModuleNotFoundError as error:
    raise MissingExtraError(
        f"abkit.integrations.prometheus needs {error.name}: pip install prometheus-client"
    ) from error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

    from abkit.client import Client, ClientHealth


class AbkitCollector:
    """Configuration and events of one process, as Prometheus metrics.

    Gauges `abkit_snapshot_version`, `abkit_snapshot_age_seconds` (absent without a snapshot) and
    `abkit_events_queued`; counters `abkit_snapshot_errors_total`, `abkit_events_accepted_total`,
    `abkit_events_written_total`, `abkit_events_dropped_total` by experiment, variant and reason,
    and `abkit_rejected_total` by reason; `abkit_snapshot_info` with checksum and origin.

    Args:
        client: whose health it tells.
        worker_label: add a label `worker`, the process id, to every series.
    """

    def __init__(self, client: Client, *, worker_label: bool = False) -> None:
        """Remember both."""
        self._client = client
        self._has_worker = worker_label

    def describe(self) -> Iterator[Metric]:
        """The metrics without their values: what registering checks for names taken twice."""
        yield from self._families().values()

    def collect(self) -> Iterator[Metric]:
        """The metrics with the values of now."""
        families, health = self._families(), self._client.health()
        # Asked for on each scrape: after a fork it is another one.
        own = [str(os.getpid())] if self._has_worker else []
        self._configuration(families, health, own)
        events = health.events
        families["accepted"].add_metric(own, events.accepted)
        families["written"].add_metric(own, events.written)
        families["queued"].add_metric(own, events.queued)
        for key, count in events.dropped.items():
            families["dropped"].add_metric([*own, *key], count)
        for reason, count in health.rejected.items():
            families["rejected"].add_metric([*own, reason], count)
        yield from families.values()

    def _configuration(
        self, families: dict[str, Any], health: ClientHealth, own: list[str]
    ) -> None:
        snapshot = health.snapshot
        if snapshot is None:  # a client with fixed experiments
            return
        families["version"].add_metric(own, snapshot.version)
        if snapshot.age_seconds is not None:
            families["age"].add_metric(own, snapshot.age_seconds)
        families["errors"].add_metric(own, snapshot.errors)
        about = {"checksum": snapshot.checksum, "origin": snapshot.origin}
        families["snapshot"].add_metric(own, about)

    def _families(self) -> dict[str, Any]:
        own = ["worker"] if self._has_worker else []
        return {
            "snapshot": InfoMetricFamily("abkit_snapshot", "The snapshot in use.", labels=own),
            "version": GaugeMetricFamily(
                "abkit_snapshot_version", "Version of the snapshot in use; 0 for none.", labels=own
            ),
            "age": GaugeMetricFamily(
                "abkit_snapshot_age_seconds", "Time since it was published.", labels=own
            ),
            "errors": CounterMetricFamily(
                "abkit_snapshot_errors", "Reads of the snapshot file that failed.", labels=own
            ),
            "accepted": CounterMetricFamily(
                "abkit_events_accepted", "Events handed to the log.", labels=own
            ),
            "written": CounterMetricFamily(
                "abkit_events_written", "Events handed to the operating system.", labels=own
            ),
            "queued": GaugeMetricFamily(
                "abkit_events_queued", "Events waiting in memory.", labels=own
            ),
            "dropped": CounterMetricFamily(
                "abkit_events_dropped",
                "Events lost.",
                labels=[*own, "experiment", "variant", "reason"],
            ),
            "rejected": CounterMetricFamily(
                "abkit_rejected",
                "Calls that could not do all that was asked.",
                labels=[*own, "reason"],
            ),
        }
