"""Targeting: what each test means, and what is refused."""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Any

import numpy as np
import pytest

from abkit.errors import ConfigError
from abkit.targeting import MAX_DEPTH, MAX_NODES, compile_condition, parse, version_of


class Letter(StrEnum):
    A = "a"
    B = "b"


class Number(IntEnum):
    SEVEN = 7


class Text(str):
    __slots__ = ()


def met(data: dict[str, Any], **attributes: Any) -> bool:
    return compile_condition(parse(data))(attributes)


def leaf(**test: Any) -> dict[str, Any]:
    return {"attribute": "x", **test}


@pytest.mark.parametrize(
    ("test", "yes", "no"),
    [
        ({"is": "DE"}, ["DE"], ["de", "", 1, True, None, ["DE"]]),
        ({"is": True}, [True], [1, 1.0, "true", False]),
        ({"is": 1}, [1, 1.0, np.float64(1)], [True, "1", 2]),
        ({"in": ["DE", "FR", 3]}, ["DE", "FR", 3], ["", "d", True, None, 4]),
        ({"is": "a"}, [Letter.A, Text("a"), np.str_("a")], [Letter.B, np.array("b")]),
        ({"is": 7}, [np.int64(7), np.float32(7), Number.SEVEN], [np.int64(8), np.array([7])]),
        ({"is": True}, [np.bool_(True)], [np.int64(1)]),
        ({"in": []}, [], ["", None, 0]),
        ({"at_least": 18}, [18, 18.0, 99, float("inf")], [17.9, "18", True, None, float("nan")]),
        ({"above": 18}, [18.1], [18, "19"]),
        ({"at_most": 18}, [18, -1, False + 0], [18.1, None, False]),
        ({"below": 18}, [17], [18]),
        ({"starts_with": "ab"}, ["ab", "abc"], ["ba", "", None, 5]),
        ({"ends_with": "ab"}, ["ab", "cab"], ["abc", None]),
        ({"contains": "ab"}, ["xaby", ["ab", "c"], ("ab",), {"ab"}], ["ba", ["abc"], None, 3]),
        ({"contains": 3}, [[1, 3], (3,)], ["3", [3.5], [True]]),
    ],
)
def test_a_test_is_met_by_these_and_by_no_others(
    test: dict[str, Any], yes: list[Any], no: list[Any]
) -> None:
    assert [value for value in yes if not met(leaf(**test), x=value)] == []
    assert [value for value in no if met(leaf(**test), x=value)] == []


def test_an_absent_attribute_meets_no_test_and_so_every_denial() -> None:
    assert not met(leaf(**{"is": "a"}))
    assert met({"not": leaf(**{"is": "a"})})


def test_conditions_are_joined() -> None:
    both = {"all": [leaf(**{"is": "a"}), {"attribute": "y", "above": 1}]}
    assert met(both, x="a", y=2)
    assert not met(both, x="a", y=1)
    either = {"any": both["all"]}
    assert met(either, x="b", y=2)
    assert not met(either, x="b", y=1)
    assert met({"all": []})
    assert not met({"any": []})


# Semantic Versioning 2.0.0, section 11, gives this order.
ORDER = [
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
    "1.9.0",
    "1.10.0",
    "2.0.0",
]


def test_versions_are_ordered_as_semantic_versioning_says() -> None:
    keys = [version_of(text) for text in ORDER]
    assert None not in keys
    assert sorted(keys) == keys  # type: ignore[type-var]
    assert len(set(keys)) == len(keys)


def test_short_versions_and_build_metadata_are_read() -> None:
    assert version_of("2.10") == version_of("v2.10.0+build.7")


@pytest.mark.parametrize(
    "text", ["", "a", "1..2", "1.2.3.4", "-1", "1.2.3-", "٣.1", 2, None, "1" * 65]
)
def test_what_is_no_version_meets_no_test(text: Any) -> None:
    assert version_of(text) is None
    assert not met(leaf(version_at_least="0.0.0-0"), x=text)


def test_versions_are_compared_as_versions_and_not_as_text() -> None:
    assert met(leaf(version_at_least="2.9.0"), x="2.10.0")
    assert not met(leaf(version_below="2.9.0"), x="2.10.0")
    assert met(leaf(version_is="2.0"), x="2.0.0")
    assert met(leaf(version_above="2.0.0-rc.1"), x="2.0.0")
    assert met(leaf(version_at_most="2.0.0"), x="2.0.0-rc.1")


def nested(depth: int) -> dict[str, Any]:
    return {"not": nested(depth - 1)} if depth else leaf(**{"is": 1})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], ["a condition must be a table", "[]"]),
        ({}, ["'all', 'any', 'not'"]),
        ({"every": []}, ["'every'"]),
        ({"all": {}}, ["targeting.all must be a list"]),
        ({"all": [leaf(**{"is": 1}), 7]}, ["targeting.all[1]", "7"]),
        ({"attribute": "", "is": 1}, ["attribute must be a name"]),
        ({"attribute": "x"}, ["'x'", "exactly one test"]),
        (leaf(**{"is": 1, "above": 0}), ["exactly one test", "above"]),
        (leaf(matches=".*"), ["unknown test 'matches'"]),
        (leaf(**{"is": None}), ["'is' takes", "None"]),
        (leaf(**{"is": float("nan")}), ["'is' takes", "nan"]),
        (leaf(**{"in": "DE"}), ["'in' takes a list", "'DE'"]),
        (leaf(**{"in": [["DE"]]}), ["'in' takes a list"]),
        (leaf(above="3"), ["'above' takes a number", "'3'"]),
        (leaf(below=True), ["'below' takes a number"]),
        (leaf(version_at_least="new"), ["'version_at_least' takes a version", "'new'"]),
        (leaf(starts_with=3), ["'starts_with' takes a text"]),
        (nested(MAX_DEPTH + 1), [f"more than {MAX_DEPTH} levels"]),
        ({"any": [leaf(**{"is": 1})] * MAX_NODES}, [f"{MAX_NODES} conditions"]),
    ],
)
def test_what_is_unlawful_is_named_with_its_place(data: Any, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(data)
    assert [word for word in words if word not in str(caught.value)] == []


def test_plain_data_comes_back() -> None:
    data = {
        "all": [
            {"any": [leaf(**{"in": ["a", 1, True]}), {"not": leaf(version_below="1.0")}]},
            nested(MAX_DEPTH - 2),
        ]
    }
    assert parse(data).to_dict() == data
    assert parse(parse(data).to_dict()) == parse(data)
