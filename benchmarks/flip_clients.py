"""The clients that `flip_time.py` compares, and the app in which gunicorn serves each.

Periods are half a second for what reads a file and a second for what asks a server, the least that
Unleash takes. A client is a function that returns the variant of one unit.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Answer = Callable[[], str]

KEY = "ranker"
UNIT = "user-1"
VALUES = ("teacher", "student")
WORKING_SECONDS = 0.004  # a request's own work: while it lasts, another worker takes the next


def abkit_file(source: str) -> Answer:
    """A snapshot file, looked at every half second on the caller's own thread."""
    import abkit

    ab = abkit.Client(source)
    return lambda: ab.variant(KEY, UNIT)


def launchdarkly_file(source: str) -> Answer:
    """LaunchDarkly's file data source, which follows the file on a thread."""
    import ldclient
    from ldclient.integrations import Files

    files = Files.new_data_source([source], auto_update=True, poll_interval=0.5, force_polling=True)
    config = ldclient.Config("sdk-key", update_processor_class=files, send_events=False)
    client = ldclient.LDClient(config)
    context = ldclient.Context.create(UNIT)
    return lambda: str(client.variation(KEY, context, "control"))


def launchdarkly_server(source: str) -> Answer:
    """LaunchDarkly's stream, as it comes."""
    import ldclient

    config = ldclient.Config(
        "sdk-key", base_uri=source, stream_uri=source, events_uri=source, send_events=False
    )
    client = ldclient.LDClient(config)
    context = ldclient.Context.create(UNIT)
    return lambda: str(client.variation(KEY, context, "control"))


def unleash(source: str) -> Answer:
    """Unleash, which polls on a thread; its period is in whole seconds."""
    from UnleashClient import UnleashClient

    client = UnleashClient(
        f"{source}/unleash",
        "flip",
        refresh_interval=1,
        disable_metrics=True,
        disable_registration=True,
        cache_directory=tempfile.mkdtemp(dir=os.environ.get("FLIP_FOLDER")),
    )
    client.initialize_client()
    return lambda: VALUES[client.is_enabled(KEY, {"userId": UNIT})]


def growthbook_swr(source: str) -> Answer:
    """GrowthBook, stale while revalidate: a thread refreshes."""
    from growthbook import GrowthBook

    client = GrowthBook(
        api_host=f"{source}/growthbook",
        client_key="sdk-key",
        attributes={"id": UNIT},
        cache_ttl=1,
        stale_while_revalidate=True,
        stale_ttl=1,
    )
    return lambda: str(client.get_feature_value(KEY, "control"))


def growthbook_ttl(source: str) -> Answer:
    """GrowthBook, by time to live: the request that finds it expired asks the server and waits."""
    from growthbook import GrowthBook

    client = GrowthBook(
        api_host=f"{source}/growthbook", client_key="sdk-key", attributes={"id": UNIT}, cache_ttl=1
    )

    def answer() -> str:
        client.load_features()
        return str(client.get_feature_value(KEY, "control"))

    return answer


def eppo(source: str) -> Answer:
    """Eppo, which polls on a thread of its Rust core."""
    import eppo_client

    client = eppo_client.init(
        eppo_client.ClientConfig(
            api_key="sdk-key",
            base_url=f"{source}/eppo",
            assignment_logger=eppo_client.AssignmentLogger(),
            poll_interval_seconds=1,
            poll_jitter_seconds=0,
        )
    )
    client.wait_for_initialization()
    return lambda: str(client.get_string_assignment(KEY, UNIT, {}, "control"))


def optimizely(source: str) -> Answer:
    """Optimizely, whose config manager polls on a thread."""
    from optimizely.config_manager import PollingConfigManager
    from optimizely.optimizely import Optimizely

    manager = PollingConfigManager(url=f"{source}/optimizely", update_interval=1)
    client = Optimizely(config_manager=manager)
    return lambda: client.get_variation(KEY, UNIT) or "control"


@dataclass(frozen=True)
class Contender:
    """One client: its modules, how it is made, its period, and where its configuration is."""

    modules: tuple[str, ...]
    make: Callable[[str], Answer]
    period: str
    source: str = "server"
    flips: bool = True


CONTENDERS = {
    "abkit": Contender(("abkit.client",), abkit_file, "0.5 s", "workspace"),
    "LaunchDarkly, file": Contender(
        ("ldclient", "ldclient.integrations"), launchdarkly_file, "0.5 s", "file"
    ),
    "Unleash": Contender(("UnleashClient",), unleash, "1 s"),
    "GrowthBook, SWR": Contender(("growthbook",), growthbook_swr, "1 s"),
    "GrowthBook, TTL": Contender(("growthbook",), growthbook_ttl, "1 s"),
    "Eppo": Contender(("eppo_client",), eppo, "1 s"),
    "Optimizely": Contender(
        ("optimizely.config_manager", "optimizely.optimizely"), optimizely, "1 s"
    ),
    "LaunchDarkly, stream": Contender(("ldclient",), launchdarkly_server, "pushed", flips=False),
}


def eppo_document(value: str, number: int) -> dict[str, Any]:
    """A flag that gives everybody this value."""
    split = {"variationKey": value, "shards": []}
    flag = {
        "key": KEY,
        "enabled": True,
        "variationType": "STRING",
        "variations": {name: {"key": name, "value": name} for name in VALUES},
        "allocations": [{"key": "all", "rules": [], "splits": [split], "doLog": False}],
        "totalShards": 10_000,
    }
    return {
        "createdAt": f"2026-01-01T00:{number // 60:02}:{number % 60:02}Z",
        "format": "SERVER",
        "environment": {"name": "flip"},
        "flags": {KEY: flag},
    }


def optimizely_document(value: str, number: int) -> dict[str, Any]:
    """A datafile whose experiment gives everybody this value."""
    experiment = {
        "id": "1",
        "key": KEY,
        "status": "Running",
        "layerId": "1",
        "variations": [{"id": name, "key": name} for name in VALUES],
        "trafficAllocation": [{"entityId": value, "endOfRange": 10_000}],
        "audienceIds": [],
        "forcedVariations": {},
    }
    empty = ("groups", "events", "audiences", "attributes", "rollouts", "featureFlags")
    return {
        "version": "4",
        "projectId": "1",
        "accountId": "1",
        "revision": str(number),
        "anonymizeIP": True,
        "experiments": [experiment],
        **{name: [] for name in empty},
    }


def document(path: str, value: str, number: int) -> dict[str, Any] | None:
    """What each vendor's server answers at a path while this value is the right one."""
    if path.startswith("/unleash/client/features"):
        strategies = [{"name": "default"}]
        feature = {"name": KEY, "enabled": value == VALUES[1], "strategies": strategies}
        return {"version": 2, "features": [feature]}
    if path.startswith("/growthbook/api/features/"):
        return {"status": 200, "features": {KEY: {"defaultValue": value}}}
    if path.startswith("/eppo/flag-config/"):
        return eppo_document(value, number)
    if path.startswith("/optimizely"):
        return optimizely_document(value, number)
    return None


class App:
    """A WSGI app with one client, made before the fork or by each worker's first request."""

    def __init__(self) -> None:
        """Make the client, where it is to be made before the fork."""
        self._contender = CONTENDERS[os.environ["FLIP_CLIENT"]]
        self._answer: Answer | None = None
        if os.environ["FLIP_WHEN"] == "before":
            self._answer = self._contender.make(os.environ["FLIP_SOURCE"])
            self._answer()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer with the worker and the variant that it serves."""
        del environ
        if self._answer is None:
            self._answer = self._contender.make(os.environ["FLIP_SOURCE"])
        body = f"{os.getpid()} {self._answer()}".encode()
        time.sleep(WORKING_SECONDS)
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]


def create_app() -> App:
    """The app, for gunicorn."""
    return App()


def start(name: str, source: str) -> None:
    """Print the seconds from nothing to the first answer, the imports left out, and the answer."""
    contender = CONTENDERS[name]
    for module in contender.modules:
        importlib.import_module(module)
    started = time.perf_counter()
    try:
        value = contender.make(source)()
    except Exception as error:  # noqa: BLE001 - raising is an answer too
        value = f"raised {type(error).__name__}"
    print(json.dumps([time.perf_counter() - started, value]), flush=True)
    os._exit(0)  # whatever threads are left


if __name__ == "__main__":
    start(*sys.argv[1:])
