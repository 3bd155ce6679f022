"""`analyze_moments`: tables that hold count, mean and variance instead of units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from abkit.analysis import checks
from abkit.analysis.compare import compared
from abkit.analysis.designs import Follow
from abkit.analysis.looks import followed
from abkit.analysis.options import Options, mapping_of, names_of
from abkit.analysis.report import Check, Report
from abkit.analysis.rules import explained_by_rule
from abkit.analysis.run import natural
from abkit.comoments import Comoments
from abkit.errors import ConfigError, DataError
from abkit.moments import Moments
from abkit.records import hint, is_number
from abkit.store.source import read_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from abkit.analysis.compare import Stratum
    from abkit.analysis.report import Result
    from abkit.estimate import Alternative, BalanceTest
    from abkit.metrics import Kind
    from abkit.store.looks import Moment

_LONG: Final = ("variant", "metric", "n", "mean", "variance")
_PAIRED: Final = ("count_c", "count_t", "mean_c", "mean_t", "variance_c", "variance_t")
_CONTROL: Final = "control"  # what a table with both arms in a row calls its control


Values = tuple[Any, Any, Any]  # count, mean, variance, as they stand in the table
Pair = tuple[Values, Values]  # of control, of treatment
Courses = dict[tuple[str, str], dict["Moment | None", Pair]]  # by metric and treatment, by time
_ABSENT: Final[Values] = (None, None, None)


@dataclass(slots=True)
class _Course:
    """One comparison at all its checkpoints, and what is wrong with some of them."""

    moments: list[Moment | None] = field(default_factory=list)
    seen: list[list[Stratum]] = field(default_factory=list)
    bad: list[Moment | None] = field(default_factory=list)
    fell: list[Moment | None] = field(default_factory=list)


def analyze_moments(
    data: object,
    *,
    control: str | None = None,
    metrics: Sequence[str] | Mapping[str, Kind | None] | None = None,
    weights: Mapping[str, float] | None = None,
    alpha: float = 0.05,
    alternative: Alternative = "two-sided",
    margins: Mapping[str, float] | None = None,
    design: object = "fixed",
    planned_units: int | None = None,
    max_information: float | None = None,
) -> dict[str, Report]:
    """Compare variants from a table of counts, means and variances, at every checkpoint in it.

    Two layouts are understood. Long: columns `variant`, `metric`, `n`, `mean`, `variance`, and
    where there are several `experiment` and `time`; each row is cumulative, all that was known of
    one variant by that time. Paired, as in the ASOS Digital Experiments Dataset: `experiment_id`,
    `variant_id`, `metric_id`, `time_since_start`, and count, mean and variance of both arms as
    `count_c`, `count_t` and so on.

    Args:
        data: path of a CSV, Parquet or JSON file, a frame, an Arrow table or a DuckDB relation.
        control: name of the control; the paired layout has none to name.
        metrics: which to compare, all by default; as a mapping with their kind. A "proportion"
            takes its variance from its mean, others are means.
        weights: intended split, as for `analyze`. The split is not tested without it.
        alpha: error probability, in (0, 1).
        alternative: side of the test.
        margins: border of the null by metric, as for `analyze`.
        design: as for `analyze`, except for those that add up counts. "fixed" looks once, at the
            last checkpoint.
        planned_units: units of all variants at the planned end.
        max_information: variance of the contrast at the planned end.

    Returns:
        A report for each experiment, by its name; a single "" without such a column. A checkpoint
        without a usable count, mean or variance is not tested, and a check names it; so does one
        for counts that fall.

    Raises:
        DataError: the table has another layout, or a checkpoint stands in it twice.
        ConfigError: an option is not usable.

    Examples:
        >>> import pandas as pd
        >>> frame = pd.DataFrame({
        ...     "variant": ["a", "b"], "metric": "spend", "n": [1_000, 1_000],
        ...     "mean": [2.0, 2.2], "variance": [4.0, 4.0],
        ... })
        >>> report = analyze_moments(frame, control="a")[""]
        >>> round(report.results[0].estimate.p_value, 4)
        0.0255
    """
    courses, base = _courses(data, control)
    known = {metric for found in courses.values() for metric, _ in found}
    kinds = _kinds(metrics, dict.fromkeys(sorted(known, key=natural)))
    options = Options(
        kinds=kinds,
        ratios={},
        covariates=(),
        margins=mapping_of("margins", margins),  # type: ignore[arg-type]
        winsorize={},
        segments=(),
        epoch=None,
        method="pooled_z",
        correction=None,
        bayes=False,
        alpha=alpha,
        alternative=alternative,
        follow=_follow(design, planned_units, max_information),
    )
    names = sorted(courses, key=natural)
    return {name: _report(courses[name], base, weights, options) for name in names}


def _kinds(given: object, known: Mapping[str, None]) -> dict[str, Kind | None]:
    if given is None:
        return dict.fromkeys(known, "mean")
    kinds = given if isinstance(given, Mapping) else dict.fromkeys(names_of("metrics", given))  # type: ignore[arg-type]
    for name in kinds:
        if name not in known:
            raise DataError(f"no metric {name!r} in the table{hint(str(name), known)}")
    return {name: kind or "mean" for name, kind in kinds.items()}


def _follow(design: object, planned_units: int | None, information: float | None) -> Follow:
    follow = Follow(design=design, planned_units=planned_units, max_information=information)
    if follow.of_blocks:
        raise ConfigError(
            f"design {follow.label!r} adds up counts from look to look, which a table of moments "
            "does not hold; always-valid and calibrated compare means at any look"
        )
    return follow


def _courses(data: object, control: str | None) -> tuple[dict[str, Courses], str]:
    """The table by experiment and comparison, and the name of the control."""
    names, table = read_rows(data)
    rows = [dict(zip(names, row, strict=True)) for row in table]
    if all(name in names for name in _PAIRED):
        return _paired(rows), _CONTROL
    for name in _LONG:
        if name not in names:
            raise DataError(
                f"no column {name!r} in a table of moments{hint(name, dict.fromkeys(names))}; it "
                f"needs {', '.join(_LONG)}, or {', '.join(_PAIRED)}"
            )
    if control is None:
        raise ConfigError("which variant is the control? name it: control= (--control)")
    return _pivoted(rows, str(control)), str(control)


def _paired(rows: Sequence[Mapping[str, Any]]) -> dict[str, Courses]:
    found: dict[str, Courses] = {}
    for row in rows:
        name, metric, variant = (
            _text(row.get(key)) for key in ("experiment_id", "metric_id", "variant_id")
        )
        course = found.setdefault(name, {}).setdefault((metric, variant or "treatment"), {})
        arms = tuple(
            (row[f"count_{arm}"], row[f"mean_{arm}"], row[f"variance_{arm}"]) for arm in "ct"
        )
        _once(course, _moment(row.get("time_since_start")), (arms[0], arms[1]), (name, metric))
    return found


def _pivoted(rows: Sequence[Mapping[str, Any]], control: str) -> dict[str, Courses]:
    arms: dict[tuple[str, str, str], dict[Moment | None, Values]] = {}
    for row in rows:
        key = (_text(row.get("experiment")), _text(row["metric"]), _text(row["variant"]))
        values = (row["n"], row["mean"], row["variance"])
        _once(arms.setdefault(key, {}), _moment(row.get("time")), values, key)
    found: dict[str, Courses] = {}
    for (name, metric, variant), own in arms.items():
        if variant == control:
            continue
        base = arms.get((name, metric, control))
        if base is None:
            listed = ", ".join(repr(v) for e, m, v in arms if (e, m) == (name, metric))
            raise DataError(f"metric {metric!r} has no control {control!r}; it has {listed}")
        found.setdefault(name, {})[metric, variant] = {
            moment: (base.get(moment, _ABSENT), own.get(moment, _ABSENT))
            for moment in {**base, **own}
        }
    if not found:
        raise DataError(f"the table holds only {control!r}; a comparison needs a second variant")
    return found


def _once(
    course: dict[Any, Any], moment: Moment | None, values: object, key: tuple[str, ...]
) -> None:
    if moment in course:
        where = "" if moment is None else f" at {moment}"
        raise DataError(
            f"{' '.join(filter(None, key))} stands in the table twice{where}; a checkpoint has one "
            "row, and its time tells it from others"
        )
    course[moment] = values


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _moment(value: object) -> Moment | None:
    if isinstance(value, datetime):
        return value if value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day)  # noqa: DTZ001 - UTC by definition
    if isinstance(value, Decimal):
        value = float(value)
    if value is None or is_number(value):
        return None if value is None else float(value)  # type: ignore[arg-type]
    raise DataError(f"a time of the table is {value!r}, no timestamp, date or number")


def _report(
    courses: Courses, control: str, weights: Mapping[str, float] | None, options: Options
) -> Report:
    results: list[Result] = []
    found: list[Check] = []
    counts: dict[str, int] = {}
    made = {
        key: _course(courses[key], key[0], options)
        for key in sorted(courses, key=lambda key: (natural(key[0]), natural(key[1])))
        if key[0] in options.kinds
    }
    for (_, variant), course in made.items():
        _, base, treatment = course.seen[-1][0]
        counts.setdefault(control, base.n)
        counts.setdefault(variant, treatment.n)
    total = sum(counts.values()) or 1
    planned = None if options.follow is None else options.follow.planned_units
    for (metric, variant), course in made.items():
        kind = options.kinds[metric] or "mean"
        plain = compared(metric, kind, (control, variant), course.seen[-1], options)
        share = (planned or total) / total
        results.append(followed(plain, course.seen, course.moments, options, share=share))
        found += _course_checks(f"{metric}, {variant}", course)
    if weights is None:
        srm, split = _untold_split(counts)
        found.insert(0, split)
    else:
        srm, expected = checks.split_test({"": counts}, weights, ramp=False)
        found.insert(0, checks.split_check(srm, counts, expected))
    return Report(counts, srm, tuple(results), tuple(map(explained_by_rule, found)))


def _untold_split(counts: Mapping[str, int]) -> tuple[BalanceTest | None, Check]:
    """A split that nobody told: it blocks where it is plainly not even."""
    text = "the split was not tested; give the intended weights"
    if min(counts.values(), default=0) > 0 and len(counts) > 1:
        even, expected = checks.split_test({"": counts}, None, ramp=False)
        if even is not None and even.status == "block":
            told = checks.split_check(even, counts, expected)
            return even, replace(told, text=f"{told.text}; give the weights if that was intended")
    return None, Check("sample_ratio_mismatch", "warn", text)


def _course(pairs: Mapping[Moment | None, Pair], metric: str, options: Options) -> _Course:
    """The checkpoints in order."""
    course = _Course()
    before = (0, 0)
    moments = sorted(pairs, key=lambda x: (x is not None, x))
    for moment in moments:
        arms = [_arm(values, metric, options) for values in pairs[moment]]
        if any(arm is None for arm in arms):
            course.bad.append(moment)
        usable = [arm if arm is not None and None not in arms else _none(metric) for arm in arms]
        counts = (usable[0].n, usable[1].n)
        if None not in arms:
            if counts[0] < before[0] or counts[1] < before[1]:
                course.fell.append(moment)
            before = counts
        course.moments.append(moment)
        course.seen.append([("", usable[0], usable[1])])
    return course


def _none(metric: str) -> Comoments:
    return Comoments.empty((metric,))


def _arm(values: Values, metric: str, options: Options) -> Comoments | None:
    """One arm at one checkpoint; None where a number is missing or no sample can have it."""
    n, mean, variance = (float(x) if isinstance(x, Decimal) else x for x in values)
    if not (is_number(n) and is_number(mean)) or n < 0 or n != round(n):
        return None
    n = round(n)
    try:
        if options.kinds[metric] == "proportion":
            if n and not 0 <= mean <= 1:
                return None
            arm = Moments.of_counts(n, round(n * mean))
        elif n < 2:
            arm = Moments(n, mean if n else 0.0, 0.0)
        elif not is_number(variance) or variance < 0:
            return None
        else:
            arm = Moments(n, mean, variance * (n - 1))
        return Comoments((metric,), n, (arm.mean,), ((arm.m2,),))
    except DataError:  # numbers that do not fit into a float
        return None


def _course_checks(what: str, course: _Course) -> list[Check]:
    found = []
    for id_, moments, text in (
        (
            "unusable_checkpoints",
            course.bad,
            "without a usable count, mean or variance; they are not tested",
        ),
        (
            "counts_fell",
            course.fell,
            "with fewer units than before, where a table of moments should only grow",
        ),
    ):
        if moments:
            first = "" if moments[0] is None else f" (first at {moments[0]})"
            number = f"{len(moments)} of {len(course.moments)} checkpoints{first}"
            found.append(Check(id_, "warn", f"{what}: {number} {text}"))
    return found
