"""From a difference and its standard error to an answer."""

from __future__ import annotations

import math

import pytest

from abkit.errors import DesignError
from abkit.estimate import Estimate
from abkit.moments import Moments
from abkit.stats.difference import welch_t
from abkit.stats.proportion import newcombe, two_proportions
from abkit.stats.standardise import at_alpha, standardised

BLANK = Estimate(method="z", guarantee="fixed-horizon", alpha=0.05, alternative="two-sided")


def test_the_test_and_the_interval_are_one() -> None:
    for difference in (-3.0, -1.9, 0.0, 1.9, 1.97, 3.0):
        for freedom in (math.inf, 7.0):
            result = standardised(BLANK, difference, 1.0, freedom)
            assert result.p_value is not None
            assert result.interval is not None
            assert (result.p_value < 0.05) == (0.0 not in result.interval)


def test_edges() -> None:
    assert standardised(BLANK, 1.0, 0.0).status == "zero_variance"
    assert standardised(BLANK, math.inf, 1.0).status == "undefined"
    assert standardised(BLANK, 1e300, 1e-300).status == "undefined"


def test_another_alpha_is_as_if_it_had_been_asked_for() -> None:
    arms = Moments.of_counts(500, 50), Moments.of_counts(500, 70)
    for function in (welch_t, two_proportions):
        assert at_alpha(function(*arms), 0.001) == function(*arms, alpha=0.001)


def test_an_interval_that_is_not_made_of_a_standard_error_is_dropped() -> None:
    arms = Moments.of_counts(500, 50), Moments.of_counts(500, 70)
    assert at_alpha(newcombe(*arms), 0.01).interval is None
    with pytest.raises(DesignError):
        at_alpha(welch_t(*arms), 5.0)
