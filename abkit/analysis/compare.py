"""One metric of one treatment against control, by the method that its options ask for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Literal

from abkit.analysis.kinds import count_estimate, paired_estimate, quantile_estimate
from abkit.analysis.relative import against_share, scaled
from abkit.analysis.report import EpochWeight, Result
from abkit.errors import ConfigError
from abkit.stats.bayes import beta_binomial, normal_posterior
from abkit.stats.covariate import adjusted_difference
from abkit.stats.difference import welch_t
from abkit.stats.exact import exact_proportions
from abkit.stats.margin import against
from abkit.stats.multiplicity import corrected, e_bh, together
from abkit.stats.proportion import newcombe, score_z, two_proportions, unpooled_z
from abkit.stats.ratio import ratio_difference
from abkit.stats.stratified import mantel_haenszel
from abkit.stats.stratified_score import stratified_newcombe, stratified_score
from abkit.stats.within import precision_shares, within_strata
from abkit.store.folds import control_side

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from abkit.analysis.options import Options
    from abkit.analysis.report import ResultKind
    from abkit.estimate import Alternative, Estimate
    from abkit.moments import Moments
    from abkit.stats.bayes import Posterior
    from abkit.stats.multiplicity import Method
    from abkit.stats.ratio import Term

# Epoch, control and treatment. Of a quantile the arms hold order statistics instead of moments, of
# paired units each holds the joint moments of both sides.
Stratum = tuple[str, Any, Any]
_TESTS: Final = {
    "pooled_z": two_proportions,
    "unpooled_z": unpooled_z,
    "score_z": score_z,
    "newcombe": newcombe,
}
_WITHIN: Final[dict[str, Callable[..., Estimate]]] = {
    "score_z": stratified_score,
    "newcombe": stratified_newcombe,
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
    if name in options.shares:
        return _against_share(name, kind, strata, options, alpha)
    border = options.margins.get(name)
    if border is None:
        return _plain(name, kind, strata, options, alpha=alpha, alternative=options.alternative)
    side: Alternative = "greater" if border < 0 else "less"
    if kind == "quantile":
        level = options.quantiles[name][1]
        arms = strata[0][1:]
        return quantile_estimate(arms, level, alpha=alpha, alternative=side, margin=border)
    if kind == "proportion" and options.method == "score_z":
        pairs = _pairs(name, strata)
        if options.epoch is not None:
            return stratified_score(pairs, margin=border, alpha=alpha, alternative=side)
        return score_z(*pairs[0], margin=border, alpha=alpha, alternative=side)
    # McNemar's test has no standard error to move a border by.
    used: ResultKind = "mean" if options.paired and kind == "proportion" else kind
    plain = _plain(name, used, strata, options, alpha=alpha, alternative=side)
    return against(plain, border, alternative=side, name="non_inferiority")


def _against_share(
    name: str, kind: ResultKind, strata: Sequence[Stratum], options: Options, alpha: float
) -> Estimate:
    """Tested against a share of control's mean."""
    share, term = options.shares[name], options.terms().get(name)
    side: Alternative = "greater" if share < 0 else "less"
    if kind == "count" and term is not None:
        _, control, treatment = strata[0]
        return count_estimate(control, treatment, term, alpha=alpha, alternative=side, share=share)
    used: ResultKind = "mean" if kind == "proportion" else kind

    def contrast(factor: float) -> Estimate:
        if kind == "quantile":
            arms = strata[0][1:]
            level = options.quantiles[name][1]
            return quantile_estimate(arms, level, alpha=alpha, alternative=side, factor=factor)
        column = term if isinstance(term, str) else (term or ("",))[0]
        columns = [control_side(column) if options.paired else column]
        moved = [(epoch, scaled(c, columns, factor), t) for epoch, c, t in strata]
        return _plain(name, used, moved, options, alpha=alpha, alternative=side)

    return against_share(contrast(1.0), contrast, share, alternative=side)


def _plain(
    name: str,
    kind: ResultKind,
    strata: Sequence[Stratum],
    options: Options,
    *,
    alpha: float,
    alternative: Alternative,
) -> Estimate:
    test: dict[str, Any] = {"alpha": alpha, "alternative": alternative}
    _, first, second = strata[0]
    if kind == "quantile":
        return quantile_estimate((first, second), options.quantiles[name][1], **test)
    term: Term = options.terms()[name]
    if kind == "count":
        return count_estimate(first, second, term, **test)
    if options.paired:
        return paired_estimate(first, term, proportion=kind == "proportion", **test)
    if options.cluster is not None:
        found = _means(name, "mean" if kind == "proportion" else kind, strata, options, test)
        plain = found.method in ("welch_t", "delta_ratio")
        return replace(found, method="cluster_robust" if plain else f"cluster_{found.method}")
    if kind == "proportion" and options.epoch is not None and not options.covariates:
        return _proportions_within(name, strata, options, test)
    return _means(name, kind, strata, options, test)


def _proportions_within(
    name: str, strata: Sequence[Stratum], options: Options, test: Mapping[str, Any]
) -> Estimate:
    """Proportions within epochs, by the method that was named."""
    within = _WITHIN.get(options.method)
    if within is not None:
        return within(_pairs(name, strata), **test)
    plain = _means(name, "proportion", strata, options, test)
    mantel = options.method == "mantel_haenszel"
    return _mantel_haenszel(plain, name, strata) if mantel else plain


def _mantel_haenszel(plain: Estimate, name: str, strata: Sequence[Stratum]) -> Estimate:
    """Their test and interval, with the weighted means and lift of the same strata."""
    kept = [pair for pair in _pairs(name, strata) if min(pair[0].n, pair[1].n) > 1]
    found = mantel_haenszel(kept, alpha=plain.alpha, alternative=plain.alternative)
    return replace(
        found,
        n_control=plain.n_control,
        n_treatment=plain.n_treatment,
        mean_control=plain.mean_control,
        mean_treatment=plain.mean_treatment,
        lift=plain.lift,
        lift_interval=plain.lift_interval,
        lift_standard_error=plain.lift_standard_error,
    )


def _means(
    name: str,
    kind: ResultKind,
    strata: Sequence[Stratum],
    options: Options,
    test: Mapping[str, Any],
) -> Estimate:
    """Means, ratios and proportions of independent units, by whatever the options ask."""
    term: Term = options.terms()[name]
    alpha, alternative = test["alpha"], test["alternative"]
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


def _pairs(name: str, strata: Sequence[Stratum]) -> list[tuple[Moments, Moments]]:
    return [(control.moments(name), treatment.moments(name)) for _, control, treatment in strata]


def _arms(name: str, strata: Sequence[Stratum]) -> tuple[Moments, Moments]:
    return _pairs(name, strata)[0]


def _posterior(
    name: str, kind: ResultKind, strata: Sequence[Stratum], options: Options
) -> Posterior:
    """By uniform priors for plain proportions, else by a flat one on the difference."""
    plain_units = options.cluster is None and not options.paired
    if kind == "proportion" and options.epoch is None and not options.covariates and plain_units:
        return beta_binomial(*_arms(name, strata), alpha=options.alpha)
    used: ResultKind = "mean" if options.paired and kind == "proportion" else kind
    plain = _plain(name, used, strata, options, alpha=options.alpha, alternative="two-sided")
    return normal_posterior(plain)


def correct(
    results: Sequence[Result],
    strata: Sequence[Sequence[Stratum]],
    options: Options,
    method: Method | Literal["ebh"],
) -> list[Result]:
    """Results with p-values corrected for their number, and intervals to match.

    Args:
        results: one family of comparisons.
        strata: what each was made of.
        options: of the analysis.
        method: the correction.
    """
    if method == "ebh":
        return _selected(results, options)
    p_values = [item.estimate.p_value for item in results]
    correction = corrected(p_values, method=method, alpha=options.alpha)
    fresh = together([item.estimate for item in results], correction)
    found = []
    for item, estimate, level, cells in zip(
        results, fresh, correction.interval_alpha, strata, strict=True
    ):
        better = estimate
        ends = item.estimate.interval or item.estimate.lift_interval
        inverted = item.estimate.standard_error is None or item.kind == "quantile"
        inverted = inverted and ends is not None
        if inverted and level is not None:  # no quantile to exchange: made anew
            again = estimated(item.metric, item.kind, cells, options, level)
            better = replace(again, p_value=estimate.p_value)
        found.append(
            replace(item, estimate=better, correction=method, raw_p_value=item.estimate.p_value)
        )
    return found


def _selected(results: Sequence[Result], options: Options) -> list[Result]:
    """Results selected by their e-values (e-BH); p-values become the adjusted levels.

    Raises:
        ConfigError: a result has no e-value.
    """
    for item in results:
        if item.estimate.e_value is None and not item.estimate.guarantee.startswith("anytime"):
            raise ConfigError(
                f"correction 'ebh' selects by e-values, and {item.estimate.method!r} of "
                f"{item.metric!r} has none; name a design that gives them (design='always-valid', "
                "'calibrated', 'msprt:TAU2' or 'hypergeometric'), or use holm, hommel or bh"
            )
    chosen = e_bh([item.estimate.e_value for item in results], alpha=options.alpha)
    found = []
    for item, adjusted, level in zip(results, chosen.adjusted, chosen.interval_alpha, strict=True):
        whole = level is not None and level >= options.alpha * (1 - 1e-12)
        estimate = replace(item.estimate, p_value=adjusted)
        if not whole:  # a confidence sequence at another level belongs to another design
            estimate = replace(estimate, interval=None, lift_interval=None)
        raw = item.estimate.p_value
        found.append(replace(item, estimate=estimate, correction="ebh", raw_p_value=raw))
    return found
