"""The OpenFeature provider, held against the specification through the OpenFeature SDK.

The tables restate, in our own words, what version 0.8 of the specification asks of a provider:
requirements by number, and the scenarios of its gherkin suites `evaluation`, `evaluation_v2`,
`metadata` and of the provider conformance suite. Its feature files are not part of this
repository. Where abkit means something else, the test says so: every flag needs a targeting key,
and a disabled flag resolves to control, not to the caller's default.
"""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from abkit.client import Client
from abkit.errors import ConfigError
from abkit.experiment import Experiment
from abkit.layer import Holdout, Layer
from abkit.ranges import ranges_of
from abkit.snapshot import Snapshot, write_atomically
from abkit.workspace import Workspace

pytest.importorskip(
    "openfeature.provider",
    reason="the OpenFeature SDK is not installed; `python3 dev.py conformance` brings it",
)

from openfeature import api
from openfeature.evaluation_context import EvaluationContext
from openfeature.event import ProviderEvent
from openfeature.exception import ErrorCode, ProviderNotReadyError
from openfeature.flag_evaluation import FlagEvaluationDetails
from openfeature.hook import Hook
from openfeature.provider import ProviderStatus
from openfeature.track import TrackingEventDetails
from openfeature.transaction_context import (
    ContextVarsTransactionContextPropagator,
    set_transaction_context,
    set_transaction_context_propagator,
)

from abkit.integrations.openfeature import AbkitProvider

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from openfeature.client import OpenFeatureClient

ANN = EvaluationContext("ann")
PICTURES = {"showImages": True, "title": "Check out these pics!", "imagesPerPage": 100}
EVERYBODY = "the-one-who-is-hit"
CUSTOMER = {"all": [{"attribute": "customer", "is": False}, {"attribute": "age", "above": 18}]}
MAIL = {"attribute": "email", "is": "somebody@example.com"}

# key: (value by variant, the variant that everybody gets, what else the experiment says)
FLAGS: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "boolean-flag": ({"on": True, "off": False}, "on", {}),
    "string-flag": ({"greeting": "hi", "parting": "bye"}, "greeting", {}),
    "integer-flag": ({"one": 1, "ten": 10}, "ten", {}),
    "float-flag": ({"tenth": 0.1, "half": 0.5}, "half", {}),
    "object-flag": ({"empty": {}, "template": PICTURES}, "template", {}),
    "list-flag": ({"some": [1, 2]}, "some", {}),
    "wrong-flag": ({"one": "uno", "two": "dos"}, "one", {}),
    "large-integer-flag": ({"one": 1, "largest": 2**31 - 1}, "largest", {}),
    "huge-integer-flag": ({"one": 1, "largest": 2**53 - 1}, "largest", {}),
    "endless-integer-flag": ({"one": 10**400}, "one", {}),
    "integral-float-flag": ({"tenth": 0.1, "ten": 10.0}, "ten", {}),
    "nan-flag": ({"nan": float("nan")}, "nan", {}),
    "boolean-zero-flag": ({"zero": False, "non-zero": True}, "zero", {}),
    "string-zero-flag": ({"zero": "", "non-zero": "str"}, "zero", {}),
    "integer-zero-flag": ({"zero": 0, "non-zero": 1}, "zero", {}),
    "float-zero-flag": ({"zero": 0.0, "non-zero": 1.0}, "zero", {}),
    "object-zero-flag": ({"zero": {}, "non-zero": PICTURES}, "zero", {}),
    "context-aware": (
        {"external": "EXTERNAL", "internal": "INTERNAL"},
        "internal",
        {"control": "external", "targeting": CUSTOMER},
    ),
    "boolean-targeted-zero-flag": (
        {"zero": False, "non-zero": True},
        "zero",
        {"targeting": MAIL},
    ),
    "targeting-key-flag": (
        {"miss": "miss", "hit": "hit"},
        "miss",
        {"overrides": {EVERYBODY: "hit"}},
    ),
    "disabled-boolean-flag": ({"on": True, "off": False}, "on", {"state": "killed"}),
    "draft-string-flag": ({"greeting": "hi", "parting": "bye"}, "greeting", {"state": "draft"}),
}
VALUES = {key: values for key, (values, _, _) in FLAGS.items()} | {"newer": {"old": 1}}


def experiment(key: str) -> Experiment:
    values, resolved, what_else = FLAGS[key]
    shares = {name: float(name == resolved) for name in values}
    data = {"key": key, "salt": "s", "control": resolved, "variants": shares, **what_else}
    return Experiment.from_dict(data)


RANKER = Experiment.create("ranker", {"teacher": 0.5, "student": 0.5}, salt="s")
EXPERIMENTS = [
    *map(experiment, FLAGS),
    # Variants that stand for themselves.
    RANKER,
    Experiment.create("targeted", {"off": 0.5, "on": 0.5}, salt="s", targeting=MAIL),
    Experiment.create("growing", {"off": 0.5, "on": 0.5}, salt="s", rollout=0.0),
    Experiment.create("layered", {"off": 0.5, "on": 0.5}, salt="s", layer="page"),
    Experiment.create("alone", {"on": 1.0}, salt="s", layer="shared"),
    Experiment.create("held", {"off": 0.5, "on": 0.5}, salt="s", holdouts=("all",)),
    Experiment.create("newer", {"new": 1.0}, salt="s"),
]


def make_client() -> Client:
    layers = [
        Layer(key="page", salt="page", ranges=ranges_of({"another": 1.0})),
        Layer(key="shared", salt="shared", ranges=ranges_of({"alone": 1.0})),
    ]
    return Client.from_experiments(
        EXPERIMENTS, layers=layers, holdouts=[Holdout(key="all", salt="all", share=1.0)]
    )


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    yield
    api.shutdown()


@pytest.fixture
def client() -> Client:
    return make_client()


@pytest.fixture
def flags(client: Client) -> OpenFeatureClient:
    """The SDK's client over a provider that is ready."""
    api.set_provider_and_wait(AbkitProvider(client, values=VALUES))
    return api.get_client()


TYPES = ("boolean", "string", "integer", "float", "object")


def details(
    flags: OpenFeatureClient,
    kind: str,
    key: str,
    default: Any,
    context: EvaluationContext | None = ANN,
) -> FlagEvaluationDetails[Any]:
    """One detailed evaluation; the async method must say the same as the sync one."""
    found = getattr(flags, f"get_{kind}_details")(key, default, context)
    later = asyncio.run(getattr(flags, f"get_{kind}_details_async")(key, default, context))
    if found.value == found.value:
        assert later == found
    assert isinstance(found, FlagEvaluationDetails)
    return found


# ---- evaluation: values, variants, reasons ----


@pytest.mark.parametrize(
    ("kind", "key", "default", "expected"),
    [
        ("boolean", "boolean-flag", False, (True, "on")),
        ("string", "string-flag", "bye", ("hi", "greeting")),
        ("integer", "integer-flag", 1, (10, "ten")),
        ("float", "float-flag", 0.1, (0.5, "half")),
        ("object", "object-flag", {}, (PICTURES, "template")),
        ("object", "list-flag", [], ([1, 2], "some")),
        ("boolean", "boolean-zero-flag", True, (False, "zero")),
        ("string", "string-zero-flag", "hi", ("", "zero")),
        ("integer", "integer-zero-flag", 1, (0, "zero")),
        ("float", "float-zero-flag", 0.1, (0.0, "zero")),
        ("object", "object-zero-flag", {"a": 1}, ({}, "zero")),
        ("integer", "large-integer-flag", 1, (2**31 - 1, "largest")),
        ("integer", "huge-integer-flag", 1, (2**53 - 1, "largest")),
    ],
)
def test_a_flag_resolves_to_its_value_variant_and_static_reason(
    flags: OpenFeatureClient, kind: str, key: str, default: Any, expected: tuple[Any, str]
) -> None:
    """Requirements 2.2.1 to 2.2.6 and 2.3.2; a false, 0 or empty value is a value."""
    value, variant = expected
    found = details(flags, kind, key, default)
    assert (found.value, type(found.value)) == (value, type(value))
    assert (found.flag_key, found.variant, found.reason) == (key, variant, "STATIC")
    assert (found.error_code, found.error_message) == (None, None)
    plain = getattr(flags, f"get_{kind}_value")(key, default, ANN)
    assert plain == value


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [("integer", "integral-float-flag", 10), ("float", "integer-flag", 10.0)],
)
def test_a_whole_number_serves_as_either_kind_of_number(
    flags: OpenFeatureClient, kind: str, key: str, value: Any
) -> None:
    """The lossless half of numeric coercion."""
    found = details(flags, kind, key, 1)
    assert (found.value, type(found.value), found.error_code) == (value, type(value), None)


@pytest.mark.parametrize(
    ("attributes", "value", "reason"),
    [
        ({"fn": "Sulisław", "age": 29, "customer": False}, "INTERNAL", "TARGETING_MATCH"),
        ({"fn": "Sulisław", "age": 29, "customer": True}, "EXTERNAL", "DEFAULT"),
        ({"age": 29, "customer": None}, "EXTERNAL", "DEFAULT"),
        ({"age": "29", "customer": False}, "EXTERNAL", "DEFAULT"),
        ({"age": [29], "customer": {"a": datetime.now(UTC)}}, "EXTERNAL", "DEFAULT"),
        ({}, "EXTERNAL", "DEFAULT"),
    ],
)
def test_attributes_of_the_context_are_for_targeting(
    flags: OpenFeatureClient, attributes: dict[str, Any], value: str, reason: str
) -> None:
    """Requirement 2.2.1: the context reaches the evaluation, whatever it holds."""
    context = EvaluationContext("ann", attributes)
    found = details(flags, "string", "context-aware", "unserved", context)
    assert (found.value, found.reason) == (value, reason)


@pytest.mark.parametrize(
    ("mail", "reason"),
    [
        ("somebody@example.com", "TARGETING_MATCH"),
        ("nobody@example.com", "DEFAULT"),
        (None, "DEFAULT"),
    ],
)
def test_a_false_value_is_kept_with_and_without_a_match(
    flags: OpenFeatureClient, mail: str | None, reason: str
) -> None:
    context = EvaluationContext("ann", {} if mail is None else {"email": mail})
    found = details(flags, "boolean", "boolean-targeted-zero-flag", True, context)
    assert (found.value, found.reason) == (False, reason)


@pytest.mark.parametrize(
    ("unit", "value", "reason"),
    [(EVERYBODY, "hit", "TARGETING_MATCH"), ("ann", "miss", "DEFAULT")],
)
def test_a_targeting_key_can_be_what_is_targeted(
    flags: OpenFeatureClient, unit: str, value: str, reason: str
) -> None:
    found = details(flags, "string", "targeting-key-flag", "x", EvaluationContext(unit))
    assert (found.value, found.reason, found.error_code) == (value, reason, None)


@pytest.mark.parametrize(
    ("key", "reason", "abkit_reason"),
    [
        ("ranker", "SPLIT", "split"),
        ("alone", "SPLIT", "split"),
        ("growing", "DEFAULT", "rollout"),
        ("layered", "DEFAULT", "layer"),
        ("held", "DEFAULT", "holdout"),
        ("targeted", "DEFAULT", "targeting"),
    ],
)
def test_each_reason_of_abkit_has_one_of_openfeature(
    client: Client, flags: OpenFeatureClient, key: str, reason: str, abkit_reason: str
) -> None:
    """Requirement 2.2.5; abkit's own reason is in the metadata."""
    found = details(flags, "string", key, "x")
    assert found.value == client.variant(key, "ann")
    assert (found.reason, found.flag_metadata["reason"]) == (reason, abkit_reason)


def test_a_split_behind_targeting_is_a_split(flags: OpenFeatureClient) -> None:
    context = EvaluationContext("ann", {"email": "somebody@example.com"})
    assert details(flags, "string", "targeted", "x", context).reason == "SPLIT"


def test_a_forced_variant_is_static(client: Client, flags: OpenFeatureClient) -> None:
    with client.force({"ranker": "student"}):
        found = flags.get_string_details("ranker", "x", ANN)
    assert (found.value, found.reason) == ("student", "STATIC")


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [("boolean", "disabled-boolean-flag", True), ("string", "draft-string-flag", "hi")],
)
def test_a_killed_experiment_and_a_draft_resolve_to_control(
    flags: OpenFeatureClient, kind: str, key: str, value: Any
) -> None:
    """Unlike the conformance suite, which wants the caller's default: control is what serves."""
    found = details(flags, kind, key, "x")
    assert (found.value, found.reason, found.error_code) == (value, "DISABLED", None)


def test_a_string_flag_without_values_is_the_variants_name(
    client: Client, flags: OpenFeatureClient
) -> None:
    found = details(flags, "string", "ranker", "x")
    assert found.value == found.variant == client.variant("ranker", "ann")


# ---- metadata ----


def test_metadata_names_what_decided(client: Client, flags: OpenFeatureClient) -> None:
    """Requirements 2.2.9 and 2.2.10: text keys; text, numbers and truth values."""
    assignment = client.assign("ranker", "ann")
    metadata = details(flags, "string", "ranker", "x").flag_metadata
    assert metadata == {
        "version": 0,
        "epoch": 1,
        "snapshot": assignment.snapshot,
        "in_experiment": True,
        "reason": "split",
        "bucket": assignment.bucket,
    }


def test_a_unit_that_was_not_hashed_has_no_bucket(flags: OpenFeatureClient) -> None:
    metadata = details(flags, "boolean", "disabled-boolean-flag", False).flag_metadata
    assert "bucket" not in metadata
    assert all(isinstance(value, bool | int | float | str) for value in metadata.values())


def test_the_provider_has_a_name(client: Client) -> None:
    """Requirement 2.1.1."""
    assert AbkitProvider(client).get_metadata().name == "abkit"


# ---- errors ----


@pytest.mark.parametrize(
    ("kind", "key", "default"),
    [
        ("boolean", "string-flag", False),
        ("integer", "string-flag", 1),
        ("float", "string-flag", 0.1),
        ("object", "string-flag", {}),
        ("boolean", "wrong-flag", False),
        ("integer", "wrong-flag", 13),
        ("string", "boolean-flag", "bye"),
        ("integer", "boolean-flag", 1),
        ("float", "boolean-flag", 0.1),
        ("boolean", "integer-flag", False),
        ("string", "integer-flag", "bye"),
        ("boolean", "float-flag", False),
        ("string", "float-flag", "bye"),
        ("boolean", "object-flag", False),
        ("string", "object-flag", "bye"),
        ("integer", "object-flag", 1),
        ("float", "object-flag", 0.1),
        ("integer", "float-flag", 1),
        ("integer", "nan-flag", 1),
        ("float", "endless-integer-flag", 0.1),
        ("boolean", "ranker", False),
        ("object", "ranker", {"a": 1}),
    ],
)
def test_a_value_of_another_type_is_a_mismatch(
    flags: OpenFeatureClient, kind: str, key: str, default: Any
) -> None:
    """Requirement 2.2.7; a fraction is not narrowed to a whole number."""
    found = details(flags, kind, key, default)
    assert (found.value, found.reason) == (default, "ERROR")
    assert (found.error_code, found.variant) == (ErrorCode.TYPE_MISMATCH, None)


@pytest.mark.parametrize(
    ("kind", "default"), list(zip(TYPES, (False, "uh-oh", 1, 0.1, {"a": 1}), strict=True))
)
def test_an_unknown_experiment_is_a_flag_not_found(
    flags: OpenFeatureClient, kind: str, default: Any
) -> None:
    found = details(flags, kind, "missing-flag", default)
    assert (found.value, found.reason) == (default, "ERROR")
    assert found.error_code == ErrorCode.FLAG_NOT_FOUND
    assert found.error_message, "requirement 2.3.3"


@pytest.mark.parametrize(
    ("context", "code"),
    [
        (None, ErrorCode.TARGETING_KEY_MISSING),
        (EvaluationContext(None, {"country": "DE"}), ErrorCode.TARGETING_KEY_MISSING),
        (EvaluationContext(""), ErrorCode.TARGETING_KEY_MISSING),
        (EvaluationContext("x" * 20_000), ErrorCode.INVALID_CONTEXT),
        (EvaluationContext("\ud800"), ErrorCode.INVALID_CONTEXT),
    ],
)
def test_a_context_without_a_usable_targeting_key_is_an_error(
    flags: OpenFeatureClient, context: EvaluationContext | None, code: ErrorCode
) -> None:
    found = details(flags, "string", "ranker", "default", context)
    assert (found.value, found.reason, found.error_code) == ("default", "ERROR", code)


def test_a_variant_that_has_no_value_is_an_error(flags: OpenFeatureClient) -> None:
    found = details(flags, "integer", "newer", 3)
    assert (found.value, found.error_code) == (3, ErrorCode.PARSE_ERROR)
    assert "'new'" in str(found.error_message)


def test_a_broken_client_is_a_general_error(client: Client, flags: OpenFeatureClient) -> None:
    client._source.state[1]["ranker"] = lambda unit, attributes: 1 / 0  # type: ignore[assignment,return-value]
    found = details(flags, "string", "ranker", "default")
    assert (found.value, found.error_code) == ("default", ErrorCode.GENERAL)


@pytest.mark.parametrize("values", [7, {"ranker": 7}])
def test_values_of_the_wrong_shape_are_refused(client: Client, values: Any) -> None:
    with pytest.raises(ConfigError, match="must be a mapping"):
        AbkitProvider(client, values=values)


def test_what_a_request_changes_in_an_object_reaches_no_other(flags: OpenFeatureClient) -> None:
    first = flags.get_object_value("object-flag", {}, ANN)
    first["title"] = "changed"  # type: ignore[index]
    assert flags.get_object_value("object-flag", {}, ANN) == PICTURES


# ---- contexts and hooks, as the SDK hands them on ----


@pytest.mark.parametrize("level", ["API", "transaction", "client", "invocation", "before hook"])
def test_a_targeting_key_of_any_level_is_the_unit(client: Client, level: str) -> None:
    """The suite `contextMerging`, as far as a provider sees it."""
    api.set_provider_and_wait(AbkitProvider(client))
    flags = api.get_client()

    class Adding(Hook):
        def before(self, hook_context: Any, hints: Any) -> EvaluationContext:
            return ANN

    if level == "API":
        api.set_evaluation_context(ANN)
    elif level == "transaction":
        set_transaction_context_propagator(ContextVarsTransactionContextPropagator())
        set_transaction_context(ANN)
    elif level == "client":
        flags.context = ANN
    elif level == "before hook":
        flags.add_hooks([Adding()])
    try:
        given = ANN if level == "invocation" else None
        assert flags.get_string_details("ranker", "x", given).reason == "SPLIT"
    finally:
        if level == "transaction":
            set_transaction_context(EvaluationContext())


class Noting(Hook):
    """Notes the stages that ran, and the last details."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.last: Any = None

    def before(self, hook_context: Any, hints: Any) -> None:
        self.stages.append("before")

    def after(self, hook_context: Any, details: Any, hints: Any) -> None:
        self.stages.append("after")

    def error(self, hook_context: Any, exception: Any, hints: Any) -> None:
        self.stages.append("error")

    def finally_after(self, hook_context: Any, details: Any, hints: Any) -> None:
        self.stages.append("finally")
        self.last = details


@pytest.mark.parametrize(
    ("key", "stages", "reason", "code"),
    [
        ("string-flag", ["before", "after", "finally"], "STATIC", None),
        ("missing-flag", ["before", "error", "finally"], "ERROR", ErrorCode.FLAG_NOT_FOUND),
        ("boolean-flag", ["before", "error", "finally"], "ERROR", ErrorCode.TYPE_MISMATCH),
    ],
)
def test_hooks_see_what_was_resolved(
    flags: OpenFeatureClient, key: str, stages: list[str], reason: str, code: Any
) -> None:
    """The suite `hooks`, and requirement 2.3.1."""
    hook = Noting()
    flags.add_hooks([hook])
    flags.get_string_details(key, "uh-oh", ANN)
    assert hook.stages == stages
    assert (hook.last.reason, hook.last.error_code) == (reason, code)


# ---- exposures and outcomes ----


def records(client: Client) -> list[Any]:
    return [record[:1] + record[2:] for record in client.sink.records]  # type: ignore[attr-defined]


def test_an_evaluation_logs_no_exposure_unless_asked(
    client: Client, flags: OpenFeatureClient
) -> None:
    flags.get_string_value("ranker", "x", ANN)
    assert records(client) == []


def test_evaluations_inside_an_experiment_log_exposures_when_asked(client: Client) -> None:
    api.set_provider_and_wait(AbkitProvider(client, values=VALUES, expose=True))
    flags = api.get_client()
    for key in ("ranker", "growing", "missing-flag"):
        flags.get_string_value(key, "x", ANN)
    asyncio.run(flags.get_string_value_async("ranker", "x", ANN))
    flags.get_boolean_value("ranker", False, ANN)  # the default is served: nobody met a variant
    expected = ("e", "ranker", "ann", client.variant("ranker", "ann"), 1)
    assert records(client) == [expected, expected]
    assert client.rejected.counts == {}


@pytest.mark.parametrize(
    ("given", "value"),
    [
        (None, 1.0),
        (TrackingEventDetails(), 1.0),
        (TrackingEventDetails(99.5, {"currency": "EUR"}), 99.5),
        (TrackingEventDetails(0.0), 0.0),
    ],
)
def test_tracking_records_an_outcome(
    client: Client, flags: OpenFeatureClient, given: Any, value: float
) -> None:
    """Condition 2.7.1; the name is the metric, and without a value it is a count."""
    flags.track("converted", ANN, given)
    assert records(client) == [("o", "ann", "converted", value, "", "")]


@pytest.mark.parametrize(
    ("name", "context", "value", "reason"),
    [
        ("converted", None, 1.0, "invalid_unit"),
        ("not a metric", ANN, 1.0, "invalid_metric"),
        ("converted", ANN, float("nan"), "invalid_value"),
        ("converted", ANN, "1", "invalid_value"),
    ],
)
def test_tracking_what_is_no_outcome_is_counted_and_raises_nothing(
    flags: OpenFeatureClient, name: str, context: Any, value: Any, reason: str
) -> None:
    client = flags.provider._client  # type: ignore[attr-defined]
    flags.track(name, context, TrackingEventDetails(value))
    assert (records(client), client.rejected.counts) == ([], {reason: 1})


# ---- initialisation, events, shutdown ----


class Told:
    """Waits for the events that the SDK hands on in threads of its own."""

    def __init__(self, *events: ProviderEvent) -> None:
        self.details: list[Any] = []
        self._came = threading.Semaphore(0)
        for event in events:
            api.add_handler(event, self._hear)

    def _hear(self, details: Any) -> None:
        self.details.append(details)
        self._came.release()

    def next(self) -> Any:
        assert self._came.acquire(timeout=30.0)
        return self.details[-1]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path / "workspace")
    workspace.path.mkdir()
    return workspace


def publish(workspace: Workspace, version: int, *experiments: Experiment) -> None:
    snapshot = Snapshot.of(experiments, version=version, published=1_700_000_000.0)
    write_atomically(workspace.snapshot_path, snapshot.to_bytes())


def test_without_a_snapshot_initialisation_fails_and_defaults_are_returned(
    workspace: Workspace,
) -> None:
    """Requirements 2.4.1, 2.4.2.1 and 5.3.2; the first snapshot makes it ready."""
    errors, ready = Told(ProviderEvent.PROVIDER_ERROR), Told(ProviderEvent.PROVIDER_READY)
    ready.next()  # the SDK's own provider, which is ready from the start
    client = Client(workspace.path, poll_seconds=0.0)
    with pytest.raises(ProviderNotReadyError):
        api.set_provider_and_wait(AbkitProvider(client))
    assert "no snapshot" in errors.next().message
    flags = api.get_client()
    assert flags.get_provider_status() == ProviderStatus.ERROR
    found = details(flags, "string", "ranker", "default")
    assert (found.value, found.error_code) == ("default", ErrorCode.PROVIDER_NOT_READY)
    assert found.reason == "ERROR"
    publish(workspace, 1, RANKER)
    assert details(flags, "string", "ranker", "default").reason == "SPLIT"
    assert ready.next().flags_changed == ["ranker"]
    assert flags.get_provider_status() == ProviderStatus.READY


def test_a_provider_that_can_serve_becomes_ready(flags: OpenFeatureClient) -> None:
    """Requirement 5.3.1."""
    assert flags.get_provider_status() == ProviderStatus.READY
    ready = Told(ProviderEvent.PROVIDER_READY)
    assert ready.next().provider_name == "abkit", "requirement 5.3.3"


def test_a_new_snapshot_is_told_by_the_next_evaluation(workspace: Workspace) -> None:
    """Requirements 5.1.1 and 5.1.2: new, changed and removed experiments are named."""
    kept, changed, removed, added = (
        Experiment.create(key, {"a": 1.0}, salt="s") for key in ("kept", "changed", "gone", "new")
    )
    publish(workspace, 1, kept, changed, removed)
    client = Client(workspace.path, poll_seconds=0.0)
    api.set_provider_and_wait(AbkitProvider(client))
    told = Told(ProviderEvent.PROVIDER_CONFIGURATION_CHANGED)
    flags = api.get_client()
    flags.get_string_value("kept", "x", ANN)
    assert told.details == []
    publish(workspace, 2, kept, Experiment.create("changed", {"b": 1.0}, salt="s"), added)
    assert flags.get_string_value("gone", "x", ANN) == "x"
    news = told.next()
    assert news.flags_changed == ["changed", "gone", "new"]
    assert news.metadata["version"] == 2
    assert news.provider_name == "abkit"
    flags.get_string_value("kept", "x", ANN)
    assert len(told.details) == 1


def test_a_changed_holdout_changes_every_flag(workspace: Workspace) -> None:
    client = Client(workspace.path, poll_seconds=0.0)
    publish(workspace, 1, RANKER)
    api.set_provider_and_wait(AbkitProvider(client))
    told = Told(ProviderEvent.PROVIDER_CONFIGURATION_CHANGED)
    snapshot = Snapshot.of(
        [RANKER], holdouts=[Holdout(key="all", salt="s", share=0.1)], version=2, published=1.0
    )
    write_atomically(workspace.snapshot_path, snapshot.to_bytes())
    api.get_client().get_string_value("ranker", "x", ANN)
    assert told.next().flags_changed == ["ranker"]


def test_an_event_that_cannot_be_told_fails_no_evaluation(client: Client) -> None:
    provider = AbkitProvider(client)

    def fail(*arguments: Any) -> None:
        raise RuntimeError

    provider.attach(fail)
    assert provider.resolve_string_details("ranker", "x", ANN).reason == "SPLIT"
    assert client.rejected.counts == {"provider_event_error": 1}


@pytest.mark.parametrize(("options", "call"), [({}, "flush"), ({"close": True}, "close")])
def test_shutdown_hands_events_to_the_system(
    client: Client, monkeypatch: pytest.MonkeyPatch, options: Any, call: str
) -> None:
    """Requirements 2.5.1 and 2.5.2: afterwards the SDK asks the provider no more."""
    calls: list[str] = []
    for name in ("flush", "close"):
        monkeypatch.setattr(client, name, lambda name=name: calls.append(name))
    api.set_provider_and_wait(AbkitProvider(client, **options))
    flags = api.get_client()
    api.shutdown()
    assert calls == [call]
    assert flags.get_string_value("ranker", "default", ANN) == "default"


def test_a_provider_that_was_shut_down_can_begin_again(client: Client) -> None:
    provider = AbkitProvider(client)
    provider.initialize(EvaluationContext())
    provider.shutdown()
    provider.initialize(EvaluationContext())
    assert provider.resolve_string_details("ranker", "x", ANN).reason == "SPLIT"


def test_the_async_methods_are_the_providers_own() -> None:
    """The SDK would else come to them by the sync ones."""
    for kind in TYPES:
        assert f"resolve_{kind}_details_async" in vars(AbkitProvider)
