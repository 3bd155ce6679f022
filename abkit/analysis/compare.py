"""One metric of one treatment against control, by the method that its options ask for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from abkit.analysis.report import EpochWeight, Result
from abkit.stats.bayes import beta_binomial, normal_posterior
from abkit.stats.covariate import adjusted_difference
from abkit.stats.difference import welch_t
from abkit.stats.exact import exact_proportions
from abkit.stats.margin import against
from abkit.stats.multiplicity import corrected, together
from abkit.stats.proportion import newcombe, score_z, two_proportions, unpooled_z
from abkit.stats.ratio import ratio_difference
from abkit.stats.within import precision_shares, within_strata

if TYPE_CHECKING:
    from collections.abc import Sequence

    from abkit.analysis.options import Options
    from abkit.analysis.report import ResultKind
    from abkit.comoments import Comoments
    from abkit.estimate import Alternative, Estimate
    from abkit.moments import Moments
    from abkit.stats.bayes import Posterior
    from abkit.stats.multiplicity import Method
    from abkit.stats.ratio import Term

Stratum = tuple[str, "Comoments", "Comoments"]  # epoch, control, treatment
_TESTS: Final = {
    "pooled_z": two_proportions,
    "unpooled_z": unpooled_z,
    "score_z": score_z,
    "newcombe": newcombe,
}


def compared(
    name: str,
    kind: ResultKind,
    variants: tuple[str, str],
    strata: Sequence[Stratum],
    options: Options,
    *,
    segment: tuple[str, str] | None = None,
) -> Result:
    """The result of one comparison, without any correction for the number of comparisons.

    Args:
        name: the metric.
        kind: what it is.
        variants: control and treatment.
        strata: one per epoch; a single one without epochs.
        options: of the analysis.
        segment: column and value, for a part of the units.
    """
    estimate = estimated(name, kind, strata, options, options.alpha)
    shares = precision_shares([(c.n, t.n) for _, c, t in strata])
    epochs = tuple(
        EpochWeight(epoch, c.n, t.n, share)
        for (epoch, c, t), share in zip(strata, shares, strict=True)
    )
    control, treatment = variants
    return Result(
        name,
        kind,
        treatment,
        control,
        estimate,
        segment,
        epochs if options.epoch is not None else (),
        posterior=_posterior(name, kind, strata, options) if options.bayes else None,
        level=options.alpha,
    )


def estimated(
    name: str, kind: ResultKind, strata: Sequence[Stratum], options: Options, alpha: float
) -> Estimate:
    """The estimate of one comparison, tested against its margin if it has one."""
    border = options.margins.get(name)
    if border is None:
        return _plain(name, kind, strata, options, alpha=alpha, alternative=options.alternative)
    side: Alternative = "greater" if border < 0 else "less"
    if kind == "proportion" and options.method == "score_z":
        arms = _arms(name, strata)
        return score_z(*arms, margin=border, alpha=alpha, alternative=side)
    plain = _plain(name, kind, strata, options, alpha=alpha, alternative=side)
    return against(plain, border, alternative=side, name="non_inferiority")


def _plain(
    name: str,
    kind: ResultKind,
    strata: Sequence[Stratum],
    options: Options,
    *,
    alpha: float,
    alternative: Alternative,
) -> Estimate:
    term: Term = options.terms()[name]
    if options.epoch is not None:
        return within_strata(
            [(c, t) for _, c, t in strata],
            metric=term,
            covariates=options.covariates,
            alpha=alpha,
            alternative=alternative,
        )
    _, control, treatment = strata[0]
    if options.covariates:
        return adjusted_difference(
            control,
            treatment,
            metric=term,
            covariates=options.covariates,
            alpha=alpha,
            alternative=alternative,
        )
    if not isinstance(term, str):
        return ratio_difference(
            control,
            treatment,
            numerator=term[0],
            denominator=term[1],
            alpha=alpha,
            alternative=alternative,
        )
    arms = _arms(name, strata)
    if kind == "mean":
        return welch_t(*arms, alpha=alpha, alternative=alternative)
    return proportions(*arms, method=options.method, alpha=alpha, alternative=alternative)


def proportions(
    control: Moments,
    treatment: Moments,
    *,
    method: str,
    alpha: float,
    alternative: Alternative,
) -> Estimate:
    """The test of two proportions that a method names."""
    if method in ("fisher", "barnard", "boschloo"):
        return exact_proportions(
            control,
            treatment,
            method=method,  # type: ignore[arg-type]
            alpha=alpha,
            alternative=alternative,
        )
    return _TESTS[method](control, treatment, alpha=alpha, alternative=alternative)


def _arms(name: str, strata: Sequence[Stratum]) -> tuple[Moments, Moments]:
    _, control, treatment = strata[0]
    return control.moments(name), treatment.moments(name)


def _posterior(
    name: str, kind: ResultKind, strata: Sequence[Stratum], options: Options
) -> Posterior:
    """By uniform priors for plain proportions, else by a flat one on the difference."""
    if kind == "proportion" and options.epoch is None and not options.covariates:
        return beta_binomial(*_arms(name, strata), alpha=options.alpha)
    plain = _plain(name, kind, strata, options, alpha=options.alpha, alternative="two-sided")
    return normal_posterior(plain)


def correct(
    results: Sequence[Result],
    strata: Sequence[Sequence[Stratum]],
    options: Options,
    method: Method,
) -> list[Result]:
    """Results with p-values corrected for their number, and intervals to match.

    Args:
        results: one family of comparisons.
        strata: what each was made of.
        options: of the analysis.
        method: the correction.
    """
    p_values = [item.estimate.p_value for item in results]
    correction = corrected(p_values, method=method, alpha=options.alpha)
    fresh = together([item.estimate for item in results], correction)
    found = []
    for item, estimate, level, cells in zip(
        results, fresh, correction.interval_alpha, strata, strict=True
    ):
        better = estimate
        inverted = item.estimate.standard_error is None and item.estimate.interval is not None
        if inverted and level is not None:  # no quantile to exchange: made anew
            again = estimated(item.metric, item.kind, cells, options, level)
            better = replace(again, p_value=estimate.p_value)
        found.append(
            replace(item, estimate=better, correction=method, raw_p_value=item.estimate.p_value)
        )
    return found
