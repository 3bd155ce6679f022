"""OFREP: the OpenFeature SDK with its own OFREP provider, and the schemas of the specification."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from abkit.client import Client
from abkit.experiment import Experiment
from abkit.log import LogReader
from abkit.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FLAG = "/ofrep/v1/evaluate/flags/ranker"
ALL = "/ofrep/v1/evaluate/flags"
REASONS = {"STATIC", "TARGETING_MATCH", "SPLIT", "DISABLED", "DEFAULT", "UNKNOWN"}
ANN = {"context": {"targetingKey": "ann", "country": "DE"}}
LONG = "u" * 257


@pytest.fixture(scope="module")
def experiments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ofrep") / "workspace"
    targeting = {"attribute": "country", "is": "DE"}
    Workspace(path).publish(
        Experiment.create("ranker", {"teacher": 0.5, "student": 0.5}, salt="s"),
        Experiment.create("local", {"off": 0.5, "on": 0.5}, salt="t", targeting=targeting),
        Experiment.create("closed", {"off": 0.5, "on": 0.5}, salt="u").kill(),
    )
    return path


@pytest.fixture(scope="module")
def flags(
    experiments: Path, tmp_path_factory: pytest.TempPathFactory, launch: Any
) -> Iterator[Any]:
    with launch(experiments, tmp_path_factory.mktemp("flags"), "--rate", "0") as found:
        yield found


def test_each_unit_gets_what_the_client_assigns(flags: Any, experiments: Path) -> None:
    with Client(experiments) as client:
        for i in range(200):
            context = {"targetingKey": f"user-{i}", "country": "DE"}
            found = flags.post(FLAG, {"context": context}).json()
            expected = client.assign("ranker", f"user-{i}")
            assert found["value"] == found["variant"] == expected.variant
            assert found["reason"] == "SPLIT"
            assert found["metadata"]["version"] == expected.version
    assert not list((experiments / "log").glob("*/*.seg")), "an evaluation is no exposure"


def test_reasons_are_openfeatures(flags: Any) -> None:
    def reason(key: str, **context: Any) -> str:
        told = flags.post(f"{ALL}/{key}", {"context": {"targetingKey": "u", **context}}).json()
        assert told["reason"] in REASONS
        word: str = told["reason"]
        return word

    assert reason("local", country="DE") == "SPLIT"
    assert reason("local", country="FR") == "DEFAULT"
    assert reason("closed") == "DISABLED"


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        (f"{ALL}/nothing", ANN, 404, "FLAG_NOT_FOUND"),
        (FLAG, {}, 400, "TARGETING_KEY_MISSING"),
        (FLAG, {"context": {}}, 400, "TARGETING_KEY_MISSING"),
        (FLAG, {"context": {"targetingKey": ""}}, 400, "TARGETING_KEY_MISSING"),
        (FLAG, {"context": 3}, 400, "INVALID_CONTEXT"),
        (FLAG, {"context": {"targetingKey": [1]}}, 400, "INVALID_CONTEXT"),
        (FLAG, {"context": {"targetingKey": LONG}}, 400, "INVALID_CONTEXT"),
        (FLAG, [], 400, "PARSE_ERROR"),
        (ALL, {"context": {}}, 400, "TARGETING_KEY_MISSING"),
        (ALL, [], 400, "PARSE_ERROR"),
    ],
)
def test_failures_have_their_codes(
    flags: Any, path: str, body: Any, status: int, code: str
) -> None:
    answer = flags.post(path, body)
    assert (answer.status_code, answer.json()["errorCode"]) == (status, code)
    assert isinstance(answer.json()["errorDetails"], str)
    assert LONG not in answer.text
    if path != ALL:
        assert answer.json()["key"] == path.rpartition("/")[2]


def test_garbage_is_a_parse_error(flags: Any) -> None:
    answer = flags.http.post(FLAG, content=b"{")
    assert (answer.status_code, answer.json()["errorCode"]) == (400, "PARSE_ERROR")


def test_all_flags_come_with_an_etag(flags: Any) -> None:
    answer = flags.post(ALL, ANN)
    assert [item["key"] for item in answer.json()["flags"]] == ["closed", "local", "ranker"]
    for item in answer.json()["flags"]:
        assert item["reason"] in REASONS
        assert isinstance(item["value"], str)
    tag = answer.headers["etag"]
    again = flags.post(ALL, ANN, headers={"If-None-Match": f'W/"x", {tag}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    other = {"context": {"targetingKey": "bob", "country": "FR"}}
    assert flags.post(ALL, other, headers={"If-None-Match": tag}).status_code == 200


def test_the_real_provider_resolves_flags(flags: Any, experiments: Path) -> None:
    provider = pytest.importorskip(
        "openfeature.contrib.provider.ofrep",
        reason="the OFREP provider is not installed; `python3 dev.py conformance` brings it",
    )
    from openfeature import api
    from openfeature.evaluation_context import EvaluationContext
    from openfeature.exception import ErrorCode
    from openfeature.flag_evaluation import Reason

    ofrep = provider.OFREPProvider(flags.url)
    api.set_provider(ofrep, domain="abkit-ofrep")
    client = api.get_client(domain="abkit-ofrep")
    try:
        with Client(experiments) as ours:
            for i in range(50):
                context = EvaluationContext(f"user-{i}", {"country": "DE"})
                found = client.get_string_details("ranker", "none", context)
                assert found.value == found.variant == ours.assign("ranker", f"user-{i}").variant
                assert found.reason == Reason.SPLIT
        unknown = client.get_string_details("nothing", "none", EvaluationContext("ann"))
        assert (unknown.value, unknown.error_code) == ("none", ErrorCode.FLAG_NOT_FOUND)
        missing = client.get_string_details("ranker", "none", EvaluationContext())
        assert (missing.value, missing.error_code) == ("none", ErrorCode.TARGETING_KEY_MISSING)
        wrong = client.get_boolean_details("ranker", False, EvaluationContext("ann"))
        assert (wrong.value, wrong.error_code) == (False, ErrorCode.TYPE_MISMATCH)
    finally:
        ofrep.session.close()
        api.clear_providers()


def test_the_real_provider_brings_a_token_and_obeys_retry_after(
    experiments: Path, serve: Callable[..., Any], token: str
) -> None:
    provider = pytest.importorskip("openfeature.contrib.provider.ofrep", reason="not installed")
    from openfeature.evaluation_context import EvaluationContext
    from openfeature.exception import GeneralError, OpenFeatureError

    context = EvaluationContext("ann")
    with serve(experiments, ABKIT_VIEWER_TOKEN=token) as served:
        stranger = provider.OFREPProvider(served.url)
        with pytest.raises(OpenFeatureError, match="unauthorized"):
            stranger.resolve_string_details("ranker", "none", context)
        known = provider.OFREPProvider(served.url, headers_factory=lambda: {"X-API-Key": token})
        assert known.resolve_string_details("ranker", "none", context).value != "none"
        stranger.session.close()
        known.session.close()
    with serve(experiments, "--rate", "0.001") as served:
        eager = provider.OFREPProvider(served.url)
        assert eager.resolve_string_details("ranker", "none", context).value != "none"
        with pytest.raises(GeneralError, match=r"Rate limited, retry after: \d+"):
            eager.resolve_string_details("ranker", "none", context)
        assert eager.retry_after is not None
        eager.session.close()


def test_exposures_are_logged_when_asked_for(experiments: Path, serve: Callable[..., Any]) -> None:
    with serve(experiments, "--log-exposures") as served:
        served.post(FLAG, ANN)
        served.post(ALL, ANN)
        served.post(f"{ALL}/nothing", ANN)
    records = [record for _, _, record in LogReader(experiments / "log").read({}).rows()]
    assert len(records) == 1
    assert "ann" in records[0]
