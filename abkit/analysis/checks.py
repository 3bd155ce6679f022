"""What is looked at before a result is believed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from scipy import stats

from abkit.analysis.options import checked_weights
from abkit.check import Check
from abkit.errors import ConfigError
from abkit.estimate import BalanceTest
from abkit.records import counted
from abkit.stats.difference import welch_t
from abkit.stats.srm import SRM_BLOCK, SRM_WARN, balance_test

if TYPE_CHECKING:
    from abkit.check import Severity
    from abkit.moments import Moments
    from abkit.stats.winsor import WinsorRule

Counts = Mapping[str, int]
_STRANGE: Final = 0.001  # p-value of a covariate that differs between arms


def split_test(
    epochs: Mapping[str, Counts], weights: Mapping[str, Any] | None, *, ramp: bool
) -> tuple[BalanceTest | None, dict[str, float]]:
    """Test of the split, within epochs if there are any.

    Args:
        epochs: units per variant in each epoch; a single one without epochs.
        weights: intended split, or such a mapping for each epoch.
        ramp: whether there are epochs.

    Returns:
        The test and the expected units per variant; None where nobody said what an epoch's split
        should be.

    Raises:
        ConfigError: the weights do not fit the variants or the epochs.
    """
    nested = weights is not None and any(isinstance(x, Mapping) for x in weights.values())
    if nested and not ramp:
        raise ConfigError("weights by epoch need the column of the epoch")
    if weights is None and ramp:
        return None, {}
    variants = dict.fromkeys(name for counts in epochs.values() for name in counts)
    tests: list[tuple[BalanceTest, int]] = []
    expected = dict.fromkeys(variants, 0.0)
    for epoch, counts in epochs.items():
        chosen = weights
        full: dict[str, int] = {name: counts.get(name, 0) for name in variants}
        if nested and weights is not None:
            chosen = weights.get(epoch)
            if not isinstance(chosen, Mapping):
                raise ConfigError(f"weights have no mapping for the epoch {epoch!r}")
            full = {name: n for name, n in full.items() if n or name in chosen}
        shares = checked_weights(chosen, full)
        for name, share in shares.items():
            expected[name] += share * sum(full.values())
        if len(shares) > 1:
            tests.append((balance_test(full, shares), len(shares) - 1))
    return _product(tests), expected


def shares_of(weights: Mapping[str, Any] | None, counts: Counts) -> dict[str, float]:
    """Intended share of each variant, where it is one for all rows."""
    if weights is not None and any(isinstance(x, Mapping) for x in weights.values()):
        return {}
    return checked_weights(weights, counts)


def _product(tests: list[tuple[BalanceTest, int]]) -> BalanceTest | None:
    """Independent tests as one: chi-squares add up, e-values multiply."""
    if len(tests) < 2:
        return tests[0][0] if tests else None
    statistic = math.fsum(test.statistic for test, _ in tests)
    e_value = min(1e304, math.prod(min(1e304, test.e_value) for test, _ in tests))
    return BalanceTest(
        statistic=statistic,
        p_value=float(stats.chi2.sf(statistic, sum(freedom for _, freedom in tests))),
        e_value=e_value,
        status="block" if e_value >= SRM_BLOCK else "warn" if e_value >= SRM_WARN else "ok",
    )


def split_check(srm: BalanceTest | None, counts: Counts, expected: Mapping[str, float]) -> Check:
    """The test of the split in words."""
    if srm is None:
        return Check(
            "sample_ratio_mismatch",
            "warn",
            "the split was not tested, because the shares of the epochs are not known; give their "
            "weights by epoch",
        )
    split = ", ".join(
        f"{n:,} {name} (expected {expected[name]:,.0f})" for name, n in counts.items()
    )
    found = f"{split}: e-value {srm.e_value:.3g}, chi-square p {srm.p_value:.3g}"
    advice = {
        "ok": "the split fits what was intended",
        "warn": "the split looks off; find out why before deciding",
        "block": "the split is not what was intended; units are missing or misassigned, and the "
        "comparison cannot be trusted",
    }[srm.status]
    severity: Severity = "info" if srm.status == "ok" else srm.status
    evidence = {
        "counts": dict(counts),
        "expected": dict(expected),
        "e_value": srm.e_value,
        "p_value": srm.p_value,
    }
    return Check("sample_ratio_mismatch", severity, f"{found}; {advice}", evidence)


def paired_split_check(counts: Counts) -> Check:
    """Why the split of a paired table is not tested."""
    split = ", ".join(f"{counted(n, 'row')} of {name}" for name, n in counts.items())
    return Check(
        "sample_ratio_mismatch",
        "info",
        f"{split}: every unit has both, so there is no split to test",
    )


def unit_checks(repeated: int, crossed: int) -> list[Check]:
    """Units that stand in more than one variant or row."""
    checks = []
    if crossed:
        checks.append(
            Check(
                "crossover_units",
                "block",
                f"{counted(crossed, 'unit')} in more than one variant; drop each, or keep its "
                "first row",
                {"units": crossed},
            )
        )
    if repeated:
        checks.append(
            Check(
                "repeated_units",
                "warn",
                f"{counted(repeated, 'unit')} in more than one row, and rows of one unit are not "
                "independent; aggregate to one row per unit",
                {"units": repeated},
            )
        )
    return checks


def covariate_checks(
    arms: Mapping[tuple[str, str], tuple[Moments, Moments]],
) -> list[Check]:
    """Covariates that differ between arms more than chance does.

    Args:
        arms: control and treatment by covariate and variant.
    """
    checks = []
    for (name, variant), (control, treatment) in arms.items():
        p = welch_t(control, treatment).p_value
        if p is not None and p * len(arms) < _STRANGE:
            checks.append(
                Check(
                    "covariate_imbalance",
                    "warn",
                    f"the covariate {name!r} differs between {variant!r} and control (p {p:.2g}); "
                    "make sure that it was measured before the assignment",
                    {"covariate": name, "variant": variant, "p_value": p},
                )
            )
    return checks


def cap_checks(
    rules: Mapping[str, WinsorRule], capped: Mapping[str, Counts], counts: Counts
) -> list[Check]:
    """What winsorising changed."""
    checks = []
    for name, rule in rules.items():
        caps = [f"below {rule.lower:g}"] * math.isfinite(rule.lower)
        caps += [f"above {rule.upper:g}"] * math.isfinite(rule.upper)
        shares = ", ".join(
            f"{capped[name].get(label, 0) / n:.2%} of {label}" for label, n in counts.items()
        )
        checks.append(
            Check(
                "winsorized",
                "info",
                f"{name!r} is capped {' and '.join(caps) or 'nowhere'} (rule from {rule.origin}): "
                f"this changes {shares}",
            )
        )
    return checks


def late_checks(late: int) -> list[Check]:
    """Rows that came after the last look."""
    if not late:
        return []
    return [Check("late_rows", "info", f"{counted(late, 'row')} after the last look, left out")]
