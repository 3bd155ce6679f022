"""The peers of `assignment.py`: each a function that assigns one unit, offline, by its public API.

Each `make_*` returns the function, or raises ImportError where the package is absent. Every
peer has one experiment "exp" of two even arms and no targeting, given as a document.
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    Assign = Callable[[str], Any]

NOWHERE = "http://127.0.0.1:9"
DAY = "2026-01-01T00:00:00Z"


def _eppo(logger: Any, *, do_log: bool) -> Any:
    import eppo_client as eppo

    shards = [
        [{"salt": "s", "ranges": [{"start": start, "end": start + 5000}]}] for start in (0, 5000)
    ]
    flag = {
        "key": "exp",
        "enabled": True,
        "variationType": "STRING",
        "variations": {name: {"key": name, "value": name} for name in ("old", "new")},
        "allocations": [
            {
                "key": "allocation",
                "rules": [],
                "doLog": do_log,
                "splits": [
                    {"variationKey": name, "shards": given}
                    for name, given in zip(("old", "new"), shards, strict=True)
                ],
            }
        ],
        "totalShards": 10000,
    }
    document = {
        "createdAt": DAY,
        "format": "SERVER",
        "environment": {"name": "test"},
        "flags": {"exp": flag},
    }
    return eppo.init(
        eppo.ClientConfig(
            api_key="none",
            base_url=NOWHERE,
            assignment_logger=logger,
            poll_interval_seconds=None,
            initial_configuration=eppo.Configuration(
                flags_configuration=json.dumps(document).encode()
            ),
        )
    )


def make_eppo() -> Assign:
    """Eppo, its allocation not logged."""
    import eppo_client as eppo

    client = _eppo(eppo.AssignmentLogger(), do_log=False)
    return lambda unit: client.get_string_assignment("exp", unit, {}, "old")


def make_eppo_logged() -> Assign:
    """Eppo with its assignment event appended to a list."""
    import eppo_client as eppo

    queue: list[Any] = []

    class Logger(eppo.AssignmentLogger):  # type: ignore[misc]
        def log_assignment(self, event: Any) -> None:
            queue.append(event)

    client = _eppo(Logger(), do_log=True)

    def assign(unit: str) -> Any:
        found = client.get_string_assignment("exp", unit, {}, "old")
        if len(queue) > 10_000:
            queue.clear()
        return found

    return assign


def make_growthbook_run() -> Assign:
    """GrowthBook's inline experiment; its attributes are set for each unit."""
    import growthbook

    client = growthbook.GrowthBook(trackingCallback=lambda *_, **__: None)
    experiment = growthbook.Experiment(key="exp", variations=["old", "new"])

    def assign(unit: str) -> Any:
        client.set_attributes({"id": unit})
        return client.run(experiment).value

    return assign


def make_growthbook_feature() -> Assign:
    """GrowthBook's feature with an experiment rule."""
    import growthbook

    rule = {"key": "exp", "variations": ["old", "new"], "hashVersion": 2, "seed": "s"}
    client = growthbook.GrowthBook(
        features={"exp": {"defaultValue": "old", "rules": [rule]}},
        trackingCallback=lambda *_, **__: None,
    )

    def assign(unit: str) -> Any:
        client.set_attributes({"id": unit})
        return client.get_feature_value("exp", "old")

    return assign


def make_statsig() -> Assign:
    """Statsig's Rust core, which has an experiment of two groups and no exposure log."""
    from statsig_python_core import (
        DataStore,
        DataStoreResponse,
        ExperimentEvaluationOptions,
        Statsig,
        StatsigOptions,
        StatsigUser,
    )

    def group(name: str) -> dict[str, Any]:
        base = {"passPercentage": 100, "id": name, "salt": name, "idType": "userID"}
        return base | {
            "name": name,
            "groupName": name,
            "conditions": [name],
            "returnValue": {"model": name},
            "isExperimentGroup": True,
        }

    conditions = {
        name: {
            "type": "user_bucket",
            "targetValue": limit,
            "operator": "lt",
            "field": None,
            "additionalValues": {"salt": "s"},
            "idType": "userID",
        }
        for name, limit in (("old", 500), ("new", 1000))
    }
    config = {
        "type": "dynamic_config",
        "salt": "s",
        "enabled": True,
        "defaultValue": {},
        "rules": [group("old"), group("new")],
        "idType": "userID",
        "entity": "experiment",
        "version": 1,
        "isActive": True,
        "hasSharedParams": False,
    }
    document = {
        "dynamic_configs": {"exp": config},
        "feature_gates": {},
        "layer_configs": {},
        "experiment_to_layer": {},
        "condition_map": conditions,
        "has_updates": True,
        "time": 1_763_058_994_592,
        "company_id": "a company",
        "response_format": "dcs-v2",
    }

    class Store(DataStore):  # type: ignore[misc]
        def get(self, key: str) -> Any:
            del key
            return DataStoreResponse(result=json.dumps(document), time=1_763_058_994_592)

        def support_polling_updates_for(self, key: str) -> bool:
            del key
            return True

    options = StatsigOptions(
        data_store=Store(),
        disable_network=True,
        disable_all_logging=True,
        disable_country_lookup=True,
        disable_disk_access=True,
        output_log_level="none",
    )
    client = Statsig("secret-key", options)
    client.initialize().wait()
    quiet = ExperimentEvaluationOptions(disable_exposure_logging=True)
    return lambda unit: client.get_experiment(StatsigUser(unit), "exp", quiet).group_name


def make_launchdarkly() -> Assign:
    """LaunchDarkly from a file, events off."""
    import ldclient
    from ldclient.config import Config
    from ldclient.integrations import Files

    rollout = {"variations": [{"variation": n, "weight": 50_000} for n in (0, 1)]}
    flag = {
        "key": "exp",
        "version": 1,
        "on": True,
        "salt": "s",
        "variations": ["old", "new"],
        "offVariation": 0,
        "fallthrough": {"rollout": rollout},
    }
    file = Path(tempfile.mkdtemp()) / "flags.json"
    file.write_text(json.dumps({"flags": {"exp": flag}, "segments": {}}), encoding="utf-8")
    source = Files.new_data_source(paths=[str(file)], auto_update=False)
    config = Config("none", update_processor_class=source, send_events=False)
    client = ldclient.LDClient(config=config, start_wait=5)
    return lambda unit: client.variation("exp", ldclient.Context.create(unit), "old")


def make_unleash() -> Assign:
    """Unleash, bootstrapped and not initialised: no thread and no server."""
    from UnleashClient import UnleashClient
    from UnleashClient.cache import FileCache

    parameters = {"rollout": "100", "stickiness": "default", "groupId": "exp"}
    variants = [
        {"name": name, "weight": 500, "weightType": "variable", "stickiness": "default"}
        for name in ("old", "new")
    ]
    strategy = {"name": "flexibleRollout", "parameters": parameters, "constraints": []}
    feature = {"name": "exp", "enabled": True, "strategies": [strategy], "variants": variants}
    cache = FileCache("bench", directory=tempfile.mkdtemp())
    cache.bootstrap_from_dict({"version": 2, "features": [feature]})
    client = UnleashClient(
        NOWHERE, "bench", cache=cache, disable_metrics=True, disable_registration=True
    )
    return lambda unit: client.get_variant("exp", {"userId": unit})["name"]


def make_optimizely() -> Assign:
    """Optimizely from a datafile, through `activate`'s silent sister `get_variation`."""
    from optimizely import logger, optimizely

    experiment = {
        "id": "10",
        "key": "exp",
        "status": "Running",
        "layerId": "1",
        "variations": [{"id": "100", "key": "old"}, {"id": "101", "key": "new"}],
        "trafficAllocation": [
            {"entityId": "100", "endOfRange": 5000},
            {"entityId": "101", "endOfRange": 10000},
        ],
        "audienceIds": [],
        "forcedVariations": {},
    }
    datafile = {
        "version": "4",
        "projectId": "1",
        "accountId": "1",
        "revision": "1",
        "anonymizeIP": True,
        "experiments": [experiment],
    } | {name: [] for name in ("groups", "events", "audiences", "attributes", "rollouts")}
    datafile["featureFlags"] = []
    client = optimizely.Optimizely(datafile=json.dumps(datafile), logger=logger.NoOpLogger())
    return lambda unit: client.get_variation("exp", unit)


def make_posthog() -> Assign:
    """PostHog's local evaluation."""
    import posthog

    variants = [{"key": name, "rollout_percentage": 50} for name in ("old", "new")]
    flag = {
        "id": 1,
        "key": "exp",
        "active": True,
        "filters": {
            "groups": [{"properties": [], "rollout_percentage": 100}],
            "multivariate": {"variants": variants},
            "payloads": {},
        },
    }
    client = posthog.Posthog("none", host=NOWHERE, send=False)
    client.feature_flags = [flag]

    def assign(unit: str) -> Any:
        flags = client.evaluate_flags(unit, only_evaluate_locally=True, flag_keys=["exp"])
        return flags.get_flag("exp")

    return assign


def make_abtestify() -> Assign:
    """abtestify, a hash and two percentages."""
    from abtestify import get_ab_experiment_bucket

    return lambda unit: get_ab_experiment_bucket("exp", unit).resolved_variant


def make_planout() -> Assign:
    """PlanOut's simple experiment, its log off."""
    import collections
    import collections.abc

    # PlanOut 0.6 is older than Python 3.10, which took these away.
    collections.Mapping = collections.abc.Mapping  # type: ignore[attr-defined]
    collections.MutableMapping = collections.abc.MutableMapping  # type: ignore[attr-defined]
    from planout.experiment import SimpleExperiment
    from planout.ops.random import UniformChoice

    class Exp(SimpleExperiment):  # type: ignore[misc]
        def assign(self, params: Any, unit: str) -> None:
            params.model = UniformChoice(choices=["old", "new"], unit=unit)

        def configure_logger(self) -> None:
            pass

        def log(self, data: object) -> None:
            pass

        def previously_logged(self) -> bool:
            return True

    return lambda unit: Exp(unit=unit).get("model")


def make_openfeature() -> Assign:
    """OpenFeature with its in-memory provider, whose flag picks by the unit's length."""
    from openfeature import api
    from openfeature.evaluation_context import EvaluationContext
    from openfeature.flag_evaluation import FlagResolutionDetails
    from openfeature.provider.in_memory_provider import InMemoryFlag, InMemoryProvider

    def pick(flag: Any, context: Any) -> Any:
        name = "old" if len(context.targeting_key) % 2 else "new"
        return FlagResolutionDetails(value=flag.variants[name], variant=name)

    flag = InMemoryFlag("old", {"old": "old", "new": "new"}, context_evaluator=pick)
    api.set_provider(InMemoryProvider({"exp": flag}))
    client = api.get_client()
    return lambda unit: client.get_string_value("exp", "old", EvaluationContext(unit))


class Peer(NamedTuple):
    """A peer: its name in the table, its package, and what makes its function."""

    name: str
    package: str
    make: Callable[[], Assign]


PEERS = [
    Peer("Eppo (Rust core)", "eppo-server-sdk", make_eppo),
    Peer("Eppo, event logged", "eppo-server-sdk", make_eppo_logged),
    Peer("abtestify", "abtestify", make_abtestify),
    Peer("statsig-core (Rust)", "statsig-python-core", make_statsig),
    Peer("GrowthBook `run`", "growthbook", make_growthbook_run),
    Peer("GrowthBook `get_feature_value`", "growthbook", make_growthbook_feature),
    Peer("OpenFeature in-memory", "openfeature-sdk", make_openfeature),
    Peer("LaunchDarkly", "launchdarkly-server-sdk", make_launchdarkly),
    Peer("Optimizely", "optimizely-sdk", make_optimizely),
    Peer("PostHog", "posthog", make_posthog),
    Peer("Unleash", "UnleashClient", make_unleash),
    Peer("PlanOut", "PlanOut", make_planout),
]


def made() -> dict[str, tuple[Peer, Assign]]:
    """The peers that are installed and answer with one of the two arms, by name."""
    logging.disable(logging.CRITICAL)
    found: dict[str, tuple[Peer, Assign]] = {}
    for peer in PEERS:
        try:
            assign = peer.make()
        except ImportError as error:
            print(f"left out: {peer.name} ({error}); `python3 dev.py conformance` installs it")
            continue
        deadline = time.monotonic() + 10
        answers = {assign(f"user-{i}") for i in range(50)}
        while len(answers) < 2 and time.monotonic() < deadline:
            answers = {assign(f"user-{i}") for i in range(50)}
        if len(answers) != 2:
            raise RuntimeError(f"{peer.name} does not assign two arms, but {answers}")
        found[peer.name] = (peer, assign)
    return found
