"""Decisions: halt before hold, hold before progress, progress only when all is shown."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abkit.decision import (
    Alarm,
    Decision,
    Evidence,
    Guardrail,
    Objective,
    Place,
    Policy,
    decide,
    e_text,
    sha256_of,
)
from abkit.errors import ConfigError

POLICY = Policy(
    guardrails=(
        Guardrail(metric="error"),
        Guardrail(metric="latency", test="difference", margin=0.25),
    ),
    objectives=(Objective(metric="clicks"), Objective(metric="latency", rule="superior")),
    alpha=0.01,
    beta=0.05,
    max_seconds=3600,
)
HALT, PROMOTE = 200.0, 20.0  # 2 guardrails / 0.01, and 1 / 0.05
SHOWN = {"e_promote": PROMOTE, "n_control": 5000, "n_treatment": 5000}


def evidence(metric: str, role: Any = "guardrail", **values: Any) -> Evidence:
    filled = {"mean_control": 0.1, "mean_treatment": 0.2} | SHOWN | values
    return Evidence(metric=metric, role=role, rule=f"the rule of {metric}", **filled)


ALL_SHOWN = (
    evidence("error"),
    evidence("latency"),
    evidence("clicks", "objective"),
    evidence("latency", "objective"),
)
ALARM = Alarm(check="sample_ratio_mismatch", text="the split is 900 to 100 where 500 were meant")
PLACE = Place(
    stage="5 %", units=400, min_units=400, seconds=60, min_seconds=60, total_seconds=3600, last=True
)


def but(index: int, **values: Any) -> tuple[Evidence, ...]:
    """Everything shown, except for one record."""
    return tuple(
        replace(item, **values) if i == index else item for i, item in enumerate(ALL_SHOWN)
    )


def test_the_thresholds_share_alpha_among_guardrails_and_not_beta_among_rules() -> None:
    assert POLICY.halt_threshold == HALT
    assert POLICY.promote_threshold == PROMOTE


def test_a_budget_costs_no_alpha() -> None:
    budget = Guardrail(metric="late", test="budget", budget=5)
    assert replace(POLICY, guardrails=(*POLICY.guardrails, budget)).halt_threshold == HALT
    assert Policy(guardrails=(budget,)).halt_threshold == 100


# Halt


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("e_harm", [HALT, 1e9, float("inf")])
def test_a_guardrail_at_its_threshold_halts(index: int, e_harm: float) -> None:
    found = decide(POLICY, but(index, e_harm=e_harm), PLACE)
    assert (found.action, found.code) == ("halt", -1)


def test_a_guardrail_below_its_threshold_does_not_halt() -> None:
    assert decide(POLICY, but(0, e_harm=HALT - 0.001), PLACE).action == "promote"


def test_an_objective_never_halts() -> None:
    assert decide(POLICY, but(2, e_harm=1e9), PLACE).action == "promote"


def test_an_alarm_never_stops_a_halt() -> None:
    found = decide(POLICY, but(0, e_harm=HALT), PLACE, (ALARM,))
    assert found.action == "halt"
    assert found.alarms == (ALARM,), "and is still reported"
    assert not any(ALARM.text in reason for reason in found.reasons)


def test_expiry_never_stops_a_halt() -> None:
    late = replace(PLACE, total_seconds=1e9)
    assert decide(POLICY, but(0, e_harm=HALT), late).action == "halt"


def test_a_halt_waits_for_no_minimum() -> None:
    early = replace(PLACE, units=0, seconds=0.0, last=False)
    assert decide(POLICY, but(0, e_harm=HALT), early).action == "halt"


def test_a_halt_says_what_is_worse_and_by_which_numbers() -> None:
    found = decide(POLICY, but(0, e_harm=345.678, n_treatment=1234, n_control=98_765), PLACE)
    (reason,) = found.reasons
    assert reason == (
        "error is worse in treatment (0.2 against 0.1): e-value 346 passed 200 "
        "after 1,234 units of treatment and 98,765 of control"
    )


def test_every_harmed_guardrail_is_named() -> None:
    both = tuple(replace(item, e_harm=HALT) for item in ALL_SHOWN)
    reasons = decide(POLICY, both, PLACE).reasons
    assert [reason.split()[0] for reason in reasons] == ["error", "latency"]


@pytest.mark.parametrize("control", [None, 0.1])
@pytest.mark.parametrize("treatment", [None, 0.3])
def test_a_halt_without_a_live_control_has_words_too(
    control: float | None, treatment: float | None
) -> None:
    harmed = but(0, e_harm=HALT, mean_control=control, mean_treatment=treatment)
    reason = decide(POLICY, harmed, PLACE).reasons[0]
    assert "e-value 200 passed 200" in reason
    assert "None" not in reason
    if control is None:
        assert "error breaks its limit" in reason
        assert ("(0.3)" in reason) == (treatment is not None)


# Hold


def test_an_alarm_holds_what_could_be_promoted() -> None:
    other = Alarm(check="late", text="3,000 outcomes are missing")
    found = decide(POLICY, ALL_SHOWN, PLACE, (ALARM, other))
    assert (found.action, found.code) == ("hold", 0)
    assert found.reasons == (ALARM.text, other.text)


@pytest.mark.parametrize("last", [True, False])
def test_an_undecided_rollout_is_held_and_not_shipped(*, last: bool) -> None:
    late = replace(PLACE, total_seconds=3600.6, last=last)
    found = decide(POLICY, ALL_SHOWN, late)
    assert found.action == "hold"
    assert found.reasons == ("undecided after 3601 s, the plan allows 3600 s; it needs a person",)


def test_the_last_second_of_the_plan_belongs_to_it() -> None:
    assert decide(POLICY, ALL_SHOWN, PLACE).action == "promote"


# Progress


def test_the_last_stage_promotes_when_all_rules_are_shown() -> None:
    found = decide(POLICY, ALL_SHOWN, PLACE)
    assert (found.action, found.code) == ("promote", 2)
    assert len(found.reasons) == 4
    assert found.reasons[0] == "error: the rule of error is shown (e-value 20, needed 20)"


@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize("e_promote", [0.0, 1.0, PROMOTE - 0.001, float("nan")])
def test_one_rule_that_is_not_shown_keeps_the_last_stage(index: int, e_promote: float) -> None:
    found = decide(POLICY, but(index, e_promote=e_promote), PLACE)
    assert found.action == "continue"
    metric = ALL_SHOWN[index].metric
    assert len(found.reasons) == 1
    assert found.reasons[0].startswith(f"{metric}: the rule of {metric} not shown yet (e-value ")
    assert found.reasons[0].endswith(" of 20)")


@pytest.mark.parametrize("index", range(4))
def test_a_rule_without_evidence_is_not_shown(index: int) -> None:
    """A metric that nobody recorded must not promote by its absence."""
    rest = tuple(item for i, item in enumerate(ALL_SHOWN) if i != index)
    found = decide(POLICY, rest, PLACE)
    lacking = ALL_SHOWN[index]
    assert found.action == "continue"
    assert found.reasons == (f"{lacking.metric}: no evidence for this {lacking.role}",)


def test_nothing_known_promotes_nothing() -> None:
    found = decide(POLICY, (), PLACE)
    assert found.action == "continue"
    assert len(found.reasons) == 4


def test_too_few_units_or_too_little_time_keep_the_stage() -> None:
    early = replace(PLACE, units=1399, min_units=1400, seconds=59.4, last=False)
    found = decide(POLICY, ALL_SHOWN, early)
    assert (found.action, found.code) == ("continue", 0)
    assert found.reasons == ("1,399 of 1,400 units in stage '5 %'", "59 of 60 s in stage '5 %'")


@pytest.mark.parametrize("changes", [{"units": 399}, {"seconds": 59.9}])
def test_each_minimum_counts_alone(changes: dict[str, float]) -> None:
    place = replace(PLACE, **changes)  # type: ignore[arg-type]
    assert decide(POLICY, ALL_SHOWN, place).action == "continue"
    assert decide(POLICY, ALL_SHOWN, replace(place, last=False)).action == "continue"


def test_an_earlier_stage_advances_without_any_rule() -> None:
    place = replace(PLACE, last=False)
    nothing = tuple(replace(item, e_promote=1.0) for item in ALL_SHOWN)
    found = decide(POLICY, nothing, place)
    assert (found.action, found.code) == ("advance", 1)
    assert found.reasons == ("stage '5 %' has what it needs and shows no harm",)


@pytest.mark.parametrize(("metric", "index"), [("clicks", 2), ("error", 0), ("latency", 1)])
def test_an_earlier_stage_waits_for_the_rules_it_requires(metric: str, index: int) -> None:
    place = replace(PLACE, last=False, requires=(metric,))
    assert decide(POLICY, ALL_SHOWN, place).action == "advance"
    assert decide(POLICY, but(index, e_promote=1.0), place).action == "continue"
    without = tuple(item for item in ALL_SHOWN if item.metric != metric)
    assert decide(POLICY, without, place).action == "continue"
    others = tuple(replace(item, e_promote=PROMOTE * (item.metric == metric)) for item in ALL_SHOWN)
    assert decide(POLICY, others, place).action == "advance"


# All together


e_values = st.sampled_from([0.0, 1.0, PROMOTE - 1, PROMOTE, HALT - 1, HALT, 1e12])


@given(
    harms=st.lists(e_values, min_size=4, max_size=4),
    shown=st.lists(e_values, min_size=4, max_size=4),
    alarms=st.sampled_from([(), (ALARM,)]),
    units=st.sampled_from([399, 400]),
    seconds=st.sampled_from([59.0, 60.0]),
    total=st.sampled_from([100.0, 3600.0, 3601.0]),
    last=st.booleans(),
)
def test_the_order_holds_for_any_evidence(
    *,
    harms: list[float],
    shown: list[float],
    alarms: tuple[Alarm, ...],
    units: int,
    seconds: float,
    total: float,
    last: bool,
) -> None:
    records = tuple(
        replace(item, e_harm=harm, e_promote=promote)
        for item, harm, promote in zip(ALL_SHOWN, harms, shown, strict=True)
    )
    place = replace(PLACE, units=units, seconds=seconds, total_seconds=total, last=last)
    found = decide(POLICY, records, place, alarms)
    harmed = max(harms[:2]) >= HALT
    is_late = total > POLICY.max_seconds
    is_ready = units == 400 and seconds == 60 and (not last or min(shown) >= PROMOTE)
    expected = (
        "halt"
        if harmed
        else "hold"
        if alarms or is_late
        else "continue"
        if not is_ready
        else "promote"
        if last
        else "advance"
    )
    assert found.action == expected
    assert found.reasons
    assert all(isinstance(reason, str) and reason for reason in found.reasons)
    numbered = found.action in {"halt", "continue", "promote"} or is_late or alarms
    assert not numbered or all(re.search(r"\d", reason) for reason in found.reasons)
    assert found == decide(POLICY, records, place, alarms), "a pure function"


def test_a_decision_is_plain_data_for_its_record() -> None:
    found = decide(POLICY, but(0, e_harm=HALT), PLACE, (ALARM,))
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert (data["action"], data["code"]) == ("halt", -1)
    assert data["reason"] == found.reasons[0]
    assert [item["metric"] for item in data["evidence"]] == [item.metric for item in ALL_SHOWN]
    assert data["alarms"] == [{"check": ALARM.check, "text": ALARM.text}]


@pytest.mark.parametrize(
    ("action", "code"), [("halt", -1), ("continue", 0), ("hold", 0), ("advance", 1), ("promote", 2)]
)
def test_the_code_of_an_action(action: Any, code: int) -> None:
    assert Decision(action=action, reasons=("why",)).code == code


@pytest.mark.parametrize(
    ("e_value", "text"),
    [(0.0, "0"), (1.0, "1"), (3.14159, "3.14"), (99.94, "99.9"), (float("inf"), "over 1,000,000")],
)
def test_an_e_value_reads_well(e_value: float, text: str) -> None:
    assert e_text(e_value) == text


# Policies


def test_a_policy_goes_through_json() -> None:
    again = Policy.from_dict(json.loads(json.dumps(POLICY.to_dict())))
    assert again == POLICY
    assert again.checksum == POLICY.checksum


def test_every_part_of_a_policy_is_in_its_checksum() -> None:
    guardrail, objective = POLICY.guardrails[0], POLICY.objectives[0]
    variants = [
        POLICY,
        replace(POLICY, alpha=0.02),
        replace(POLICY, beta=0.02),
        replace(POLICY, max_seconds=10.0),
        replace(POLICY, planned_units=5),
        replace(POLICY, guardrails=(replace(guardrail, margin=0.1),)),
        replace(POLICY, guardrails=(replace(guardrail, test="limit", limit=0.1),)),
        replace(POLICY, objectives=(replace(objective, rule="non_inferior", margin=0.1),)),
        replace(POLICY, objectives=()),
    ]
    assert len({item.checksum for item in variants}) == len(variants)


def test_the_checksum_depends_on_no_order_of_keys() -> None:
    assert sha256_of({"a": 1, "b": [1.5]}) == sha256_of({"b": [1.5], "a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        sha256_of(float("nan"))


ONE = [{"metric": "error"}]
UNLAWFUL: dict[str, tuple[Any, list[str]]] = {
    "no table": ([], ["policy", "table", "[]"]),
    "no guardrail": ({}, ["no guardrails", "nothing can halt"]),
    "unknown key": ({"guardrails": ONE, "alhpa": 0.1}, ["'alhpa'", "did you mean 'alpha'"]),
    "guardrails as a table": ({"guardrails": {}}, ["guardrails", "list", "{}"]),
    "guardrails as a name": ({"guardrails": "error"}, ["guardrails", "list", "'error'"]),
    "a guardrail as a name": ({"guardrails": ["error"]}, ["guardrail", "table", "'error'"]),
    "no metric": ({"guardrails": [{"margin": 0.1}]}, ["guardrail", "no 'metric'"]),
    "two guardrails": ({"guardrails": ONE * 2}, ["two guardrails", "'error'"]),
    "two objectives": (
        {"guardrails": ONE, "objectives": [{"metric": "x"}] * 2},
        ["two objectives", "'x'"],
    ),
    "bad metric": ({"guardrails": [{"metric": "A b"}]}, ["guardrail metric", "'A b'", "a-z 0-9"]),
    "bad test": (
        {"guardrails": [{"metric": "x", "test": "t"}]},
        ["guardrail 'x'", "canary, limit, difference, budget", "'t'"],
    ),
    "margin 0": ({"guardrails": [{"metric": "x", "margin": 0}]}, ["margin", "above 0", "0"]),
    "margin below": ({"guardrails": [{"metric": "x", "margin": -1}]}, ["margin", "-1"]),
    "margin true": ({"guardrails": [{"metric": "x", "margin": True}]}, ["margin", "True"]),
    "margin huge": ({"guardrails": [{"metric": "x", "margin": 10**400}]}, ["margin", "above 0"]),
    "margin in words": ({"guardrails": [{"metric": "x", "margin": "5 %"}]}, ["margin", "'5 %'"]),
    "limit without test": (
        {"guardrails": [{"metric": "x", "limit": 0.1}]},
        ["'x'", "limit goes with test='limit'"],
    ),
    "test without limit": (
        {"guardrails": [{"metric": "x", "test": "limit"}]},
        ["'x'", "limit goes with test='limit'"],
    ),
    "limit 1": (
        {"guardrails": [{"metric": "x", "test": "limit", "limit": 1}]},
        ["limit", "between 0 and 1", "1"],
    ),
    "budget without test": (
        {"guardrails": [{"metric": "x", "budget": 5}]},
        ["'x'", "budget goes with test='budget'"],
    ),
    "test without budget": ({"guardrails": [{"metric": "x", "test": "budget"}]}, ["'x'", "budget"]),
    "budget in parts": (
        {"guardrails": [{"metric": "x", "test": "budget", "budget": 1.5}]},
        ["budget", "whole number >= 0", "1.5"],
    ),
    "bad rule": (
        {"guardrails": ONE, "objectives": [{"metric": "x", "rule": "best"}]},
        ["objective 'x'", "superior, non_inferior", "'best'"],
    ),
    "no margin": (
        {"guardrails": ONE, "objectives": [{"metric": "x", "rule": "non_inferior"}]},
        ["objective 'x'", "margin", "above 0"],
    ),
    "margin of superior": (
        {"guardrails": ONE, "objectives": [{"metric": "x", "margin": 0.1}]},
        ["objective 'x'", "takes no margin", "0.1"],
    ),
}
for name, value in itertools.product(("alpha", "beta"), (0, 1, -0.1, float("nan"), "5 %", True)):
    UNLAWFUL[f"{name} = {value!r}"] = (
        {"guardrails": ONE, name: value},
        [f"policy: {name}", "strictly between 0 and 1", repr(value)],
    )
for value in (0, -1, float("inf"), None):
    UNLAWFUL[f"max_seconds = {value!r}"] = (
        {"guardrails": ONE, "max_seconds": value},
        ["max_seconds", "above 0", repr(value)],
    )
for value in (0, 1.5, True):
    UNLAWFUL[f"planned_units = {value!r}"] = (
        {"guardrails": ONE, "planned_units": value},
        ["planned_units", "whole number >= 1", repr(value)],
    )


@pytest.mark.parametrize("name", UNLAWFUL)
def test_an_unlawful_policy_is_named_with_its_value(name: str) -> None:
    data, words = UNLAWFUL[name]
    with pytest.raises(ConfigError) as caught:
        Policy.from_dict(data)
    message = str(caught.value)
    assert [word for word in words if word not in message] == [], message
