"""The grammar that all sequential designs share."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from abkit.errors import DesignError
from abkit.moments import Block, PairedCounts
from abkit.sequential.betting import BettingMean, BettingState
from abkit.sequential.calibrated import AlwaysValid, CalibratedMixture
from abkit.sequential.counts import CountBlock, CountMixture, CountState
from abkit.sequential.design import Contrast, Design, Look, rejected, running_p
from abkit.sequential.group import GroupSequential
from abkit.sequential.hypergeometric import HypergeometricMixture, HypergeometricState
from abkit.sequential.msprt import FixedTauMixture
from abkit.sequential.paired import DiscordantPairs

if TYPE_CHECKING:
    from abkit.estimate import Alternative

CONTRAST = Contrast(s=90.0, v=420.0, h=4_500.0)


def two_looks(design: Design[Contrast]) -> tuple[Look, Look]:
    first = design.look(CONTRAST)
    return first, design.look(Contrast(s=0.0, v=840.0, h=9_000.0), [first])


def test_designs_for_means_are_interchangeable() -> None:
    sides: tuple[Alternative, ...] = ("two-sided", "greater")
    for side in sides:
        for design in (
            AlwaysValid(planned_units=20_000, alternative=side),
            CalibratedMixture(planned_units=20_000, alternative=side),
            GroupSequential(planned_information=500.0, alternative=side),
        ):
            first, second = two_looks(design)
            assert (first.decision, second.decision) == ("reject", "reject")
            assert first.interval is not None
            assert (first.alpha, first.alternative) == (0.05, side)


def test_designs_that_add_up_blocks_are_interchangeable() -> None:
    exact: Design[HypergeometricState] = HypergeometricMixture()
    counts: Design[CountState] = CountMixture()
    betting: Design[BettingState] = BettingMean(null=0.5)
    pairs: Design[PairedCounts] = DiscordantPairs()
    looks = [
        exact.look(HypergeometricMixture().start().update(Block(50, 50, 1, 20))),
        counts.look(CountMixture().start().update(CountBlock(1, 20, 50.0, 50.0))),
        betting.look(BettingMean(null=0.5).start().update([0.9] * 30)),
        pairs.look(PairedCounts(5, 1, 20, 3)),
    ]
    for look in looks:
        assert look.decision == "reject"
        assert look.guarantee == "anytime-valid"
        assert look.e_value is not None
        assert look.e_value >= 20
        assert look.p_value is not None
        assert look.p_value <= 0.05


def test_the_running_p_value_never_rises() -> None:
    look = FixedTauMixture(tau2=1e-4).look(CONTRAST)
    assert running_p(-3.0, [look]) == look.p_value
    assert running_p(math.inf, []) > 0
    assert rejected([look]) == (look.decision == "reject")


def test_contrasts_at_the_edges() -> None:
    empty = Contrast(0.0, 0.0, 0.0)
    assert (empty.difference, empty.spread, empty.z) == (None, 0.0, 0.0)


def test_looks_of_another_design_are_refused() -> None:
    """A rejection at alpha .2, or on the other side, is none of this design."""
    loose = AlwaysValid(planned_units=20_000, alpha=0.2).look(CONTRAST)
    above = AlwaysValid(planned_units=20_000, alternative="greater").look(CONTRAST)
    mixture = CalibratedMixture(planned_units=20_000).look(CONTRAST)
    below = AlwaysValid(planned_units=20_000, alternative="less")
    for design, past in (
        (AlwaysValid(planned_units=20_000), loose),
        (below, above),
        (AlwaysValid(planned_units=20_000), mixture),
        (CalibratedMixture(planned_units=20_000, alpha=0.01), mixture),
        (FixedTauMixture(tau2=1.0), loose),
    ):
        with pytest.raises(DesignError, match="another design"):
            design.look(CONTRAST, [past])
    group = GroupSequential(planned_information=840.0, alpha=0.2).look(CONTRAST)
    with pytest.raises(DesignError, match="another design"):
        GroupSequential(planned_information=840.0, alpha=0.01).look(CONTRAST, [group])
    events = HypergeometricMixture(alpha=0.2)
    early = events.look(events.start().update(Block(50, 50, 1, 9)))
    strict = HypergeometricMixture(alpha=0.01)
    with pytest.raises(DesignError, match="another design"):
        strict.look(strict.start(), [early])
    with pytest.raises(DesignError, match="another design"):
        DiscordantPairs(alpha=0.01).look(PairedCounts(), [DiscordantPairs().look(PairedCounts())])


def test_a_contrast_without_effective_units_is_no_evidence() -> None:
    nothing = Contrast(s=0.0, v=1.0, h=0.0)
    for clock in ("contrast_variance", "inverse_variance", "effective_units"):
        design = GroupSequential(planned_information=1.0, clock=clock)  # type: ignore[arg-type]
        assert design.look(nothing).status == "insufficient_data"
