"""A cap is a rule that was there first."""

from __future__ import annotations

import math

import numpy as np
import pytest

from abkit.errors import ConfigError, DataError, InsufficientDataError
from abkit.moments import Moments
from abkit.stats.winsor import WinsorRule

VALUES = [float(x) for x in range(1, 101)]


def test_a_quantile_is_a_value_that_was_seen() -> None:
    rule = WinsorRule.from_quantiles(VALUES, upper=0.95, lower=0.05, origin="pre-period")
    assert (rule.lower, rule.upper, rule.origin) == (5.0, 95.0, "pre-period")
    assert rule.share_capped(VALUES) == 0.09
    assert rule.moments(VALUES) == Moments.of(np.clip(VALUES, 5, 95).tolist())


def test_applying_twice_is_applying_once() -> None:
    rule = WinsorRule(upper=40.0)
    once = rule.apply(VALUES)
    assert rule.apply(once).tolist() == once.tolist()
    assert rule.share_capped(once) == 0.0
    assert WinsorRule().apply(VALUES).tolist() == VALUES


def test_both_arms_have_the_same_cap() -> None:
    """Each arm's own quantile would cap the effect away."""
    rule = WinsorRule.from_quantiles(VALUES, upper=0.9, origin="control")
    doubled = [2 * x for x in VALUES]
    assert rule.apply(doubled).max() == 90.0
    assert rule.share_capped(doubled) == 0.55


def test_nothing_is_capped_of_nothing() -> None:
    assert WinsorRule(upper=1.0).moments([]) == Moments()
    assert WinsorRule(upper=1.0).share_capped([]) == 0.0


def test_rules_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="lower <= upper"):
        WinsorRule(2.0, 1.0)
    with pytest.raises(ConfigError):
        WinsorRule(math.nan, 1.0)
    with pytest.raises(ConfigError, match=r"0\.99, not 99"):
        WinsorRule.from_quantiles(VALUES, upper=99, origin="control")
    with pytest.raises(ConfigError, match="'treatment'"):
        WinsorRule.from_quantiles(VALUES, origin="treatment")  # type: ignore[arg-type]
    with pytest.raises(DataError):
        WinsorRule.from_quantiles([math.nan], origin="control")
    with pytest.raises(InsufficientDataError):
        WinsorRule.from_quantiles([], origin="control")
