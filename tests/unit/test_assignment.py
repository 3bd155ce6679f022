"""One assignment: the order of the reasons, and units that are none."""

from __future__ import annotations

import enum
import itertools
from decimal import Decimal
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abkit.assignment import (
    MAX_UNIT_CHARACTERS,
    Assignment,
    fallback,
    unit_text,
)
from abkit.bucketing import SPACE, bucket
from abkit.compiler import compile_experiment
from abkit.experiment import Experiment

BASE: dict[str, Any] = {
    "key": "ranker",
    "salt": "s",
    "control": "old",
    "variants": {"old": 0.5, "new": 0.5},
    "rollout": 0.5,
    "overrides": {"qa": "new", "7": "new"},
    "epoch": 3,
}


def assign(unit: object, **changes: Any) -> Assignment:
    experiment = Experiment.from_dict(BASE | changes)
    return compile_experiment(experiment, version=9, snapshot="abc")(unit)


def unit_with(reason: str, variant: str) -> str:
    units = map(str, itertools.count(100))
    return next(u for u in units if (assign(u).reason, assign(u).variant) == (reason, variant))


INSIDE, OUTSIDE = unit_with("split", "new"), unit_with("rollout", "old")


@pytest.mark.parametrize(
    ("unit", "changes", "reason", "variant"),
    [
        # kill before everything
        ("qa", {"state": "killed"}, "killed", "old"),
        (OUTSIDE, {"state": "killed"}, "killed", "old"),
        (INSIDE, {"state": "killed"}, "killed", "old"),
        ("qa", {"state": "draft"}, "draft", "old"),
        (INSIDE, {"state": "draft"}, "draft", "old"),
        # override before rollout and split
        (OUTSIDE, {"overrides": {OUTSIDE: "new"}}, "override", "new"),
        ("qa", {"rollout": 0.0}, "override", "new"),
        (INSIDE, {"overrides": {INSIDE: "old"}}, "override", "old"),
        (7, {}, "override", "new"),
        # rollout before split
        (OUTSIDE, {"rollout": 1.0}, "split", assign(OUTSIDE, rollout=1.0).variant),
        (INSIDE, {"rollout": 0.0}, "rollout", "old"),
        (OUTSIDE, {}, "rollout", "old"),
        (OUTSIDE, {"variants": {"new": 1.0, "old": 0.0}}, "rollout", "old"),
        # split
        (INSIDE, {}, "split", "new"),
    ],
)
def test_kill_goes_before_override_before_rollout_before_split(
    unit: object, changes: dict[str, Any], reason: str, variant: str
) -> None:
    found = assign(unit, **changes)
    assert (found.reason, found.variant) == (reason, variant)


@pytest.mark.parametrize("state", ["running", "killed", "draft"])
@pytest.mark.parametrize("unit", ["qa", INSIDE, OUTSIDE, None, ""])
def test_only_what_the_split_decided_is_in_the_experiment(unit: object, state: str) -> None:
    found = assign(unit, state=state)
    assert found.in_experiment == (found.reason == "split")


def test_control_units_of_the_split_are_in_the_experiment() -> None:
    found = assign(unit_with("split", "old"))
    assert found.variant == "old"
    assert found.in_experiment


def test_an_assignment_says_all_about_itself() -> None:
    found = assign(INSIDE)
    assert found.unit_id == INSIDE
    assert found.experiment == "ranker"
    assert (found.epoch, found.version, found.snapshot) == (3, 9, "abc")
    assert found.bucket == bucket("s", INSIDE)
    assert found.shadow == ""


def test_the_bucket_is_known_where_a_hash_decided() -> None:
    assert assign(INSIDE).bucket == bucket("s", INSIDE)
    assert assign(OUTSIDE).bucket == bucket("s", OUTSIDE)
    assert assign("qa").bucket is None
    assert assign(None).bucket is None
    assert assign(INSIDE, state="killed").bucket is None


def test_a_shadow_answers_only_units_in_the_experiment() -> None:
    assert assign(INSIDE, shadow="dark").shadow == "dark"
    for unit in (OUTSIDE, "qa", None):
        assert assign(unit, shadow="dark").shadow == ""
    assert assign(INSIDE, shadow="dark", state="killed").shadow == ""


class Loud(str):
    """Raises from everything that a caller could be tempted to call."""

    __slots__ = ()

    def raise_(self, *_: object) -> NoReturn:
        raise ZeroDivisionError

    __str__ = __repr__ = __hash__ = __eq__ = __len__ = __bool__ = raise_  # type: ignore[assignment]
    __format__ = encode = isascii = __iter__ = raise_  # type: ignore[assignment]


class LoudInt(int):
    def raise_(self, *_: object) -> NoReturn:
        raise ZeroDivisionError

    __str__ = __repr__ = __hash__ = __eq__ = __int__ = __index__ = raise_  # type: ignore[assignment]
    __bool__ = __format__ = __trunc__ = raise_  # type: ignore[assignment]


class LoudClass:
    """A lazy proxy whose target can't be loaded: even isinstance raises."""

    @property
    def __class__(self) -> type:
        raise ZeroDivisionError

    @__class__.setter
    def __class__(self, value: type) -> None:
        raise ZeroDivisionError

    def __getattribute__(self, name: str) -> object:
        raise ZeroDivisionError


class Colour(enum.IntEnum):
    RED = 7


class Name(enum.StrEnum):
    QA = "qa"


deep: list[object] = []
for _ in range(10_000):
    deep = [deep]

INVALID: dict[str, object] = {
    "None": None,
    "True": True,
    "False": False,
    "a float": 1.0,
    "NaN": float("nan"),
    "infinity": float("inf"),
    "bytes": b"user",
    "a bytearray": bytearray(b"user"),
    "the empty text": "",
    "a lone high surrogate": "\ud800",
    "a lone low surrogate": "user\udfff",
    "10**5000": 10**5000,
    "-(10**5000)": -(10**5000),
    "10 MB of text": "x" * 10_000_000,
    "one character too many": "x" * (MAX_UNIT_CHARACTERS + 1),
    "10 MB of Chinese": "日" * 3_500_000,
    "a list": ["user"],
    "a list, deep": deep,
    "a dict": {"id": 1},
    "a tuple": ("user",),
    "a complex number": 1j,
    "a Decimal": Decimal(7),
    "an object": object(),
    "a class": str,
    "a lazy proxy that fails": LoudClass(),
    "an empty subclass of str": Loud(""),
}


@pytest.mark.parametrize("name", INVALID)
@pytest.mark.parametrize("state", ["running", "killed"])
def test_what_is_no_unit_gets_control_with_the_reason(name: str, state: str) -> None:
    found = assign(INVALID[name], state=state)
    assert found.reason == "invalid_unit"
    assert found.variant == "old"
    assert not found.in_experiment
    assert found.bucket is None
    assert type(found.unit_id) is str


@pytest.mark.parametrize("name", INVALID)
def test_a_fallback_can_be_made_for_anything(name: str) -> None:
    found = fallback(INVALID[name], INVALID[name], "error")
    assert (found.variant, found.reason, found.in_experiment) == ("control", "error", False)
    assert type(found.unit_id) is type(found.experiment) is str
    assert fallback("x", "u", "error", default="old").variant == "old"


@pytest.mark.parametrize(
    ("unit", "text"),
    [
        (7, "7"),
        (0, "0"),
        (-12, "-12"),
        (10**30, str(10**30)),
        (Colour.RED, "7"),
        pytest.param(LoudInt(7), "7", id="LoudInt"),
        (Name.QA, "qa"),
        pytest.param(Loud("qa"), "qa", id="Loud override"),
        pytest.param(Loud("user-1"), "user-1", id="Loud"),
    ],
)
def test_whole_numbers_and_subclasses_are_their_plain_text(unit: object, text: str) -> None:
    found = assign(unit)
    assert found == assign(text)
    assert type(found.unit_id) is str
    assert found.unit_id == text


@pytest.mark.parametrize(
    "unit", [" ", "\x00", "a\x00b", "x" * MAX_UNIT_CHARACTERS, "日" * MAX_UNIT_CHARACTERS, "\ufeff"]
)
def test_odd_text_is_a_unit_as_it_is(unit: str) -> None:
    found = assign(unit, rollout=1.0)
    assert found.reason == "split"
    assert found.unit_id == unit
    assert found.bucket == bucket("s", unit)


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.binary()
    # Surrogates too: the default alphabet of st.text leaves them out.
    | st.text(st.characters(codec=None), max_size=20)
    | st.complex_numbers(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(unit=anything)
def test_nothing_ever_raises(unit: object) -> None:
    found = assign(unit)
    assert found.variant in {"old", "new"}
    is_unit = type(unit) in (str, int)
    if is_unit and str(unit) and str(unit).isprintable():
        assert found.reason in {"split", "rollout", "override"}
    elif not is_unit:
        assert found.reason == "invalid_unit"


def test_assigning_is_the_same_each_time() -> None:
    compiled = compile_experiment(Experiment.from_dict(BASE))
    units = [str(i) for i in range(500)]
    assert [compiled(u) for u in units] == [compiled(u) for u in reversed(units)][::-1]


def test_the_last_bucket_belongs_to_the_last_range() -> None:
    one = Experiment.create("x", {"old": 1.0}, salt="s")
    assert one.ranges[-1].upper == SPACE
    assert compile_experiment(one)("any").variant == "old"


def test_numpy_whole_numbers_are_units_and_other_numpy_values_are_not() -> None:
    import numpy as np

    assert unit_text(np.int64(7)) == unit_text(np.uint8(7)) == "7"
    assert unit_text(np.bool_(True)) is None
    assert unit_text(np.float64(7)) is None
    assert unit_text(np.array([7, 8])) is None
