"""Spending functions: what each of them must be, and what is refused."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from abkit.errors import DesignError
from abkit.sequential.spending import OBRIEN_FLEMING, Spending

FRACTIONS = st.floats(0.0, 1.0)
ALPHAS = st.floats(1e-6, 0.49)


@st.composite
def spendings(draw: st.DrawFn) -> Spending:
    """Any spending function."""
    kind = draw(st.integers(0, 5))
    if kind == 3:
        return Spending("hwang_shih_decani", draw(st.floats(-40, 40)))
    if kind == 4:
        return Spending("kim_demets", draw(st.floats(0.01, 20)))
    if kind == 5:
        size = draw(st.integers(1, 5))
        columns = [
            sorted(draw(st.lists(st.floats(0.0, 1.0), min_size=size, max_size=size)))
            for _ in range(2)
        ]
        return Spending.tabulated(*columns)
    return Spending(("obrien_fleming", "obrien_fleming_simple", "pocock")[kind])  # type: ignore[arg-type]


@given(spendings(), ALPHAS)
def test_nothing_is_spent_at_the_start_and_all_of_alpha_at_the_end(
    spending: Spending, alpha: float
) -> None:
    assert spending.spent(0.0, alpha) == 0.0
    assert spending.spent(-1.0, alpha) == 0.0
    assert spending.spent(1.0, alpha) == alpha
    assert spending.spent(1.5, alpha) == alpha


@given(spendings(), ALPHAS, FRACTIONS, FRACTIONS)
def test_more_information_never_spends_less(
    spending: Spending, alpha: float, one: float, other: float
) -> None:
    low, high = sorted((one, other))
    spent = [spending.spent(t, alpha) for t in (low, high)]
    assert 0 <= spent[0] <= spent[1] * (1 + 1e-12) + 1e-300
    assert spent[1] <= alpha


@given(ALPHAS, st.floats(0.001, 0.999))
def test_the_formulas_are_those_of_the_papers(alpha: float, t: float) -> None:
    norm = stats.norm
    formulas = {
        Spending(): 2 - 2 * norm.cdf(norm.isf(alpha / 2) / math.sqrt(t)),
        Spending("obrien_fleming_simple"): 1 - norm.cdf(norm.isf(alpha) / math.sqrt(t)),
        Spending("pocock"): alpha * math.log(1 + (math.e - 1) * t),
        Spending("hwang_shih_decani", -4.0): alpha * (1 - math.exp(4 * t)) / (1 - math.exp(4)),
        Spending("hwang_shih_decani", 0.0): alpha * t,
        Spending("kim_demets", 3.0): alpha * t**3,
    }
    for spending, expected in formulas.items():
        assert spending.spent(t, alpha) == pytest.approx(expected, rel=1e-9, abs=1e-14)


def test_a_gamma_near_zero_is_linear() -> None:
    assert Spending("hwang_shih_decani", 1e-12).spent(0.3, 0.05) == pytest.approx(0.015)


def test_a_table_is_followed_in_straight_lines() -> None:
    spending = Spending.tabulated([0.5, 1.0], [0.2, 1.0])
    assert spending.table == ((0.5, 0.2), (1.0, 1.0))
    assert [spending.spent(t, 1e-2) for t in (0.25, 0.5, 0.75)] == pytest.approx(
        [0.001, 0.002, 0.006]
    )


def test_a_table_may_hold_still() -> None:
    spending = Spending.tabulated([0.2, 0.2, 0.8], [0.1, 0.3, 0.3])
    assert spending.spent(0.5, 0.1) == pytest.approx(0.03)


def test_spending_is_a_value() -> None:
    assert Spending() == OBRIEN_FLEMING
    assert len({Spending(), Spending("obrien_fleming"), Spending("pocock")}) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("bonferroni",), "family must be one of"),
        (("hwang_shih_decani",), "gamma must lie in"),
        (("hwang_shih_decani", 41.0), "gamma must lie in"),
        (("hwang_shih_decani", math.nan), "gamma must lie in"),
        (("kim_demets",), "rho must be finite"),
        (("kim_demets", 0.0), "rho must be finite"),
        (("pocock", 1.0), "has no parameter"),
        (("tabulated",), "a table belongs to"),
        (("pocock", None, ((1.0, 1.0),)), "a table belongs to"),
        (("tabulated", None, ((0.5, 0.5), (0.4, 1.0))), "must rise"),
        (("tabulated", None, ((0.5, 0.5),)), r"must end at \(1, 1\)"),
        (("tabulated", None, ((0.5, math.nan), (1.0, 1.0))), "must rise"),
    ],
)
def test_what_is_no_spending_function_is_refused(
    arguments: tuple[object, ...], message: str
) -> None:
    with pytest.raises(DesignError, match=message):
        Spending(*arguments)  # type: ignore[arg-type]


def test_impossible_questions_are_refused() -> None:
    with pytest.raises(DesignError, match="alpha must lie"):
        Spending().spent(0.5, 1.0)
    with pytest.raises(DesignError, match="NaN"):
        Spending().spent(math.nan, 0.05)
    with pytest.raises(DesignError, match=r"alpha < 0\.5"):
        Spending("obrien_fleming_simple").spent(0.5, 0.6)
    with pytest.raises(DesignError, match="2 fractions but 1 shares"):
        Spending.tabulated([0.1, 0.2], [0.1])
