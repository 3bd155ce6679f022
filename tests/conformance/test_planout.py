"""Imported scripts serve what PlanOut serves, for every unit that PlanOut can read."""

from __future__ import annotations

import collections
import copy
import random
from collections.abc import Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from abkit.bucketing import SPACE
from abkit.compat import load
from abkit.compat.planout import _edge
from abkit.errors import ConfigError

if TYPE_CHECKING:
    import abkit
    from abkit.compat import Imported

# PlanOut 0.6 wants these where Python had them until 3.9.
collections.Mapping = Mapping  # type: ignore[attr-defined]
collections.MutableMapping = MutableMapping  # type: ignore[attr-defined]
WHY = "PlanOut is not installed: python3 dev.py conformance"
interpreter = pytest.importorskip("planout.interpreter", reason=WHY)
experiments = pytest.importorskip("planout.experiment", reason=WHY)
del collections.Mapping, collections.MutableMapping  # type: ignore[attr-defined]

# PlanOut encodes as ASCII: it fails on every other unit, and there is nothing to compare.
ASCII = [
    *(f"user-{n}" for n in range(1_000)),
    *(str(n) for n in range(600)),
    *(str(UUID(int=n * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128)) for n in range(600)),
    *(f'  Jane "Doe" {n}\t' for n in range(200)),
    "x" * 5_000,
]
USER = {"op": "get", "var": "userid"}


def set_(name: str, value: Any) -> dict[str, Any]:
    return {"op": "set", "var": name, "value": value}


def weighted(weights: list[float], *choices: Any, **changes: Any) -> dict[str, Any]:
    return {
        "op": "weightedChoice",
        "choices": {"op": "array", "values": list(choices)},
        "weights": {"op": "array", "values": weights},
        "unit": USER,
    } | changes


def uniform(*choices: Any, **changes: Any) -> dict[str, Any]:
    return {"op": "uniformChoice", "choices": list(choices), "unit": USER} | changes


def trial(p: float, **changes: Any) -> dict[str, Any]:
    return {"op": "bernoulliTrial", "p": p, "unit": USER} | changes


def script(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"op": "seq", "seq": list(steps)}


ONE_OF = {"op": "array", "values": [USER]}
CHOICES = {
    "halves": weighted([1, 1], "a", "b"),
    "uneven": weighted([0.05, 0.6, 0.35], "a", "b", "c"),
    "tenths": weighted([0.1] * 7, *"abcdefg"),
    "zeros": weighted([0, 3, 0, 1, 0], *"abcde"),
    "again": weighted([1, 2, 1], "a", "b", "a"),
    "two": uniform("a", "b"),
    "seven": uniform(*"abcdefg"),
    "numbers": uniform(1, 2.5, True, "true story", {"op": "literal", "value": {"size": 1}}),
    "salted": uniform("a", "b", "c", salt="another salt"),
    "fully": weighted([2, 1], "a", "b", full_salt="a.full.salt"),
    "listed": uniform("a", "b", unit=ONE_OF),
    "trial": trial(0.123),
    "never": trial(0),
    "always": trial(1.0),
}
STEPS = [set_(name, value) for name, value in CHOICES.items()]
SCRIPT = script(*STEPS)
DOCUMENTS = {
    "named": {"name": "signup test", "script": SCRIPT},
    "salted": {"name": "signup", "salt": "a salt", "script": SCRIPT},
    "bare": script(set_("experiment_salt", "own salt"), *STEPS),
    "nested": {"salt": "s", "script": script(script(*STEPS[:3]), script(script(*STEPS[3:])))},
}
# abkit's name of a variant, where it is another than the choice as text.
LABELS = {
    ("numbers", "true-story-44e66617"): "true story",
    ("numbers", "size-1-ce9ae3ce"): '{"size": 1}',
}
VALUES = {"1": 1, "2.5": 2.5, "true": True, '{"size": 1}': {"size": 1}}


def value_of(parameter: str, label: str) -> Any:
    if parameter in ("trial", "never", "always"):
        return int(label)
    return VALUES.get(label, label)


class Signup(experiments.SimpleInterpretedExperiment):  # type: ignore[misc]
    """PlanOut's own way to run a script, without its log file."""

    def setup(self) -> None:
        self.name = "signup test"

    def loadScript(self) -> None:  # noqa: N802 - PlanOut's name
        self.script = copy.deepcopy(SCRIPT)

    def configure_logger(self) -> None:
        pass

    def log(self, data: object) -> None:
        pass


def planout(which: str, unit: str) -> Mapping[str, Any]:
    if which == "named":
        return Signup(userid=unit).get_params()  # type: ignore[no-any-return]
    document = DOCUMENTS[which]
    source = copy.deepcopy(document.get("script", document))
    salt = document.get("salt", "another salt, which the script changes")
    found = interpreter.Interpreter(source, salt, {"userid": unit})
    return found.get_params()  # type: ignore[no-any-return]


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("which", DOCUMENTS)
def test_every_unit_keeps_its_choice(
    which: str, serving: Callable[[Imported], abkit.Client]
) -> None:
    found = load("planout", DOCUMENTS[which])
    assert found.skipped == ()
    assert len(found.experiments) == len(CHOICES)
    ours = serving(found)
    prefix = {"named": "signup-test.", "salted": "signup."}.get(which, "")
    seen: dict[str, set[str]] = {name: set() for name in CHOICES}
    for unit in ASCII:
        theirs = planout(which, unit)
        for name in CHOICES:
            variant = ours.variant(prefix + name, unit)
            label = LABELS.get((name, variant), variant)
            served = value_of(name, label)
            assert (type(served), served) == (type(theirs[name]), theirs[name]), (name, unit)
            seen[name].add(variant)
    assert all(len(seen[name]) > 1 for name in CHOICES if name not in ("never", "always"))


def test_a_fraction_of_60_bits_ends_in_the_nearest_of_52() -> None:
    generator = random.Random(7)
    for _ in range(300):
        weights = [generator.choice([0.1, 1, 0.3, generator.random()]) for _ in range(3)]
        total = sum(weights, 0.0)
        for limit in (weights[0], weights[0] + weights[1]):
            edge = _edge(limit, total)
            inside, outside = (edge << 8) - 256, min((edge << 8) + 256, 2**60 - 1)
            assert total * (inside / float(0xFFFFFFFFFFFFFFF)) <= limit
            assert total * (outside / float(0xFFFFFFFFFFFFFFF)) > limit
    assert _edge(1.0, 1.0) == SPACE


def test_units_outside_of_ascii_are_unknown_to_planout_and_sorted_by_their_utf_8() -> None:
    with pytest.raises(UnicodeEncodeError):
        planout("bare", "用户")
    import abkit

    ours = abkit.Client.from_experiments(load("planout", DOCUMENTS["bare"]).experiments)
    assert ours.assign("halves", "用户").reason == "split"


@pytest.mark.parametrize(
    ("steps", "reasons"),
    [
        ([set_("x", 5)], {"x": "not a weightedChoice"}),
        ([set_("x", uniform("a", "b", unit="me"))], {"x": "not a single input"}),
        (
            [set_("x", uniform("a", "b", unit={"op": "array", "values": [USER, USER]}))],
            {"x": "not a single input"},
        ),
        (
            [set_("userid", "me"), set_("x", uniform("a", "b"))],
            {"userid": "not a weightedChoice", "x": "a variable that the script sets"},
        ),
        ([set_("x", uniform("a", "b")), set_("x", 3)], {"x": "more than once"}),
        (
            [{"op": "cond", "cond": [{"if": USER, "then": set_("x", uniform("a", "b"))}]}],
            {"x": "under a condition"},
        ),
        (
            [set_("x", uniform("a", "b")), {"op": "return", "value": False}],
            {"x": "the script returns"},
        ),
        (
            [set_("experiment_salt", {"op": "get", "var": "y"}), set_("x", uniform("a", "b"))],
            {"x": "computes its own salt"},
        ),
        (
            [set_("x", uniform("a", "b", salt={"op": "get", "var": "y"}))],
            {"x": "computes its salt"},
        ),
        ([set_("x", uniform("a", USER))], {"x": "computes its choices"}),
        ([set_("x", uniform("a", "b", salt="é"))], {"x": "not ASCII"}),
        ([set_("x", uniform())], {"x": "no choices"}),
        ([set_("x", uniform("1", 1))], {"x": "the same name"}),
        ([set_("x", weighted([1], "a", "b"))], {"x": "2 choices, but 1 weights"}),
        ([set_("x", weighted([0, 0], "a", "b"))], {"x": "not all 0"}),
        ([set_("x", weighted([2, -1], "a", "b"))], {"x": "not be negative"}),
        ([set_("x", weighted([1, 1], "a", "b", salt="s % 3"))], {"x": "a number of choices"}),
        ([set_("x", trial(1.5))], {"x": "PlanOut fails"}),
    ],
)
def test_what_cannot_be_carried_over_is_skipped_with_a_reason(
    steps: list[dict[str, Any]], reasons: dict[str, str]
) -> None:
    found = load("planout", {"salt": "s", "script": script(*steps)})
    assert found.experiments == ()
    assert {skipped.key for skipped in found.skipped} == set(reasons)
    for skipped in found.skipped:
        assert reasons[skipped.key] in skipped.reason


def test_a_script_without_a_salt_says_how_to_give_one() -> None:
    found = load("planout", script(set_("x", uniform("a", "b"))))
    assert '"salt": ...' in found.skipped[0].reason


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "a script must be an operator"),
        ({"script": 3}, "planout: script must be a table"),
        ({"op": "seq", "seq": 3}, "planout: seq must be a list"),
        ({"op": "set", "value": 3}, "planout: set: var must be a text"),
        ({"salt": "s", "script": script(set_("x", weighted([1, "2"], "a", "b")))}, "weights must"),
    ],
)
def test_a_malformed_document_is_named(document: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load("planout", document)
