"""Observations: counts keep every bit through JSON, so that decisions can be taken again."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abkit.errors import DataError
from abkit.moments import Moments
from abkit.observation import Observation, Paired

finite = st.floats(allow_nan=False, allow_infinity=False)
moments = st.builds(Moments, st.integers(0, 2**70), finite, finite.map(abs))
epochs = st.integers(1, 99)
variants = st.sampled_from(["v1", "v2"])
metrics = st.sampled_from(["clicks", "error"])


def table(keys: st.SearchStrategy[Any], values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.dictionaries(keys, values, min_size=1, max_size=3)


observations = st.builds(
    Observation,
    time=finite,
    exposures=table(epochs, table(variants, st.integers(0, 2**70))),
    values=table(metrics, table(epochs, table(variants, moments))),
    pairs=table(metrics, st.builds(Paired, moments, moments, moments)),
)

SMALL = Observation(
    time=5.0,
    exposures={2: {"v1": 30, "v2": 10}, 1: {"v1": 7}},
    values={"clicks": {2: {"v1": Moments(3, 0.5, 0.1)}, 1: {"v2": Moments(1, 1.0, 0.0)}}},
)


@given(observation=observations)
def test_an_observation_keeps_every_bit_through_json(observation: Observation) -> None:
    text = json.dumps(observation.to_dict(), allow_nan=False)
    again = Observation.from_dict(json.loads(text))
    assert again == observation
    assert json.dumps(again.to_dict()) == text


def test_the_order_of_its_tables_changes_no_observation() -> None:
    """The id of a decision is a hash of this text."""
    turned = Observation(
        time=5.0,
        exposures={1: {"v1": 7}, 2: {"v2": 10, "v1": 30}},
        values={"clicks": dict(sorted(SMALL.values["clicks"].items()))},
    )
    assert json.dumps(turned.to_dict()) == json.dumps(SMALL.to_dict())


def test_strata_come_oldest_first_with_nothing_for_an_absent_arm() -> None:
    none = Moments()
    assert SMALL.strata("clicks", "v1", "v2") == [
        (none, Moments(1, 1.0, 0.0)),
        (Moments(3, 0.5, 0.1), none),
    ]
    assert SMALL.strata("error", "v1", "v2") == []


def test_units_are_counted_by_epoch_and_variant() -> None:
    assert SMALL.units(2, "v2") == 10
    assert SMALL.units(2, "v3") == SMALL.units(3, "v1") == 0
    assert SMALL.total_units == 47


GOOD = SMALL.to_dict()


@pytest.mark.parametrize(
    "data",
    [
        {},
        {k: v for k, v in GOOD.items() if k != "pairs"},
        GOOD | {"time": "now"},
        GOOD | {"time": None},
        GOOD | {"exposures": None},
        GOOD | {"exposures": [[1, "v1"]]},
        GOOD | {"values": [["clicks", 1, "v1", 3, 0.5]]},
        GOOD | {"values": [["clicks", 1, "v1", -3, 0.5, 0.1]]},
        GOOD | {"values": [["clicks", 1, "v1", 3, float("nan"), 0.1]]},
        GOOD | {"values": [["clicks", 1, "v1", "3", 0.5, 0.1]]},
        GOOD | {"pairs": [["clicks"]]},
        GOOD | {"pairs": [["clicks", 1, 0.5, 0.0]]},
        GOOD | {"pairs": [["clicks", *[1, 0.5, 0.0] * 4]]},
    ],
)
def test_data_of_another_shape_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="not an observation"):
        Observation.from_dict(data)


@pytest.mark.parametrize("values", [[1e200, -1e200], [1e308] * 3])
def test_values_too_large_to_be_squared_are_a_data_error(values: list[float]) -> None:
    with pytest.raises(DataError, match="too large"):
        Moments.of(values)
