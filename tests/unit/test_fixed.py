"""The fixed horizon has one look, at the planned end."""

from __future__ import annotations

import pytest
from scipy import stats

from abkit.errors import DesignError
from abkit.moments import Moments
from abkit.sequential.contrast import stratified_contrast
from abkit.sequential.design import Contrast, Design
from abkit.sequential.fixed import FixedHorizon
from abkit.stats.difference import welch_t

DESIGN = FixedHorizon(planned_units=4_000)


def test_it_is_a_design_for_contrasts() -> None:
    design: Design[Contrast] = DESIGN
    look = design.look(Contrast(s=60.0, v=900.0, h=1_000.0))
    assert look.p_value == pytest.approx(2 * stats.norm.sf(2.0))
    assert (look.decision, look.guarantee) == ("reject", "fixed-horizon")
    assert look.interval is not None
    assert 0 not in look.interval


def test_a_look_before_the_end_says_nothing_however_large_the_difference() -> None:
    look = DESIGN.look(Contrast(s=900.0, v=900.0, h=900.0))
    assert (look.decision, look.status, look.p_value) == ("continue", "insufficient_data", None)
    assert look.interval is None
    assert look.fraction == 0.9
    assert "90.0% of the planned units" in look.notes[0]


@pytest.mark.parametrize(("first", "decision"), [(60.0, "reject"), (0.0, "continue")])
def test_there_is_one_test_and_its_answer_stands(first: float, decision: str) -> None:
    test = DESIGN.look(Contrast(s=first, v=900.0, h=1_000.0))
    later = DESIGN.look(Contrast(s=30.0 if first else 900.0, v=1_800.0, h=2_000.0), [test])
    assert (test.decision, later.decision) == (decision, decision)
    assert (later.p_value, later.interval) == (test.p_value, test.interval)
    assert later.fraction == 2.0
    assert "was taken before" in later.notes[0]


def test_a_look_without_an_answer_leaves_the_test_to_the_next() -> None:
    for data, status in (
        (Contrast(s=9.0, v=1.0, h=1_000.0, enough=False), "insufficient_data"),
        (Contrast(s=9.0, v=0.0, h=1_000.0), "zero_variance"),
        (Contrast(s=0.0, v=0.0, h=0.0), "insufficient_data"),
    ):
        look = DESIGN.look(data)
        assert (look.status, look.decision) == (status, "continue")
        after = DESIGN.look(Contrast(s=60.0, v=900.0, h=1_000.0), [look])
        assert after.decision == "reject"


def test_any_test_for_one_look_can_be_the_test() -> None:
    arms = Moments(2_000, 1.0, 1_999.0), Moments(2_000, 1.08, 1_999.0)
    plain = welch_t(*arms)
    look = DESIGN.look(plain)
    assert (look.p_value, look.interval, look.method) == (plain.p_value, plain.interval, "welch_t")
    z = DESIGN.look(stratified_contrast([arms], kind="mean"))
    assert z.p_value == pytest.approx(plain.p_value, rel=0.01)


def test_a_margin_moves_the_null() -> None:
    design = FixedHorizon(planned_units=4_000, alternative="greater", margin=-0.06)
    look = design.look(Contrast(s=0.0, v=900.0, h=1_000.0))
    assert look.p_value == pytest.approx(stats.norm.sf(2.0))
    assert look.estimate == 0.0
    assert look.interval is not None
    assert look.interval.lower == pytest.approx(-0.03 * stats.norm.isf(0.05))


def test_bad_plans_are_named() -> None:
    with pytest.raises(DesignError, match="planned_units must be >= 1, got 0"):
        FixedHorizon(planned_units=0)
    with pytest.raises(DesignError, match="margin must be finite"):
        FixedHorizon(planned_units=9, margin=float("nan"))
