"""`abkit analyze`: compare the variants of a table."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from abkit.cli.numbers import to_number
from abkit.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable
    from typing import Any, TypeAlias

    from abkit.metrics import Kind

    Commands: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - it has no public name


def add_analyze(commands: Commands) -> None:
    """`abkit analyze`."""
    parser = commands.add_parser(
        "analyze",
        help="compare the variants of a table that has one row per unit, or of a workspace",
        description="Compare every variant of a CSV, Parquet or JSON file with its control; or of "
        "an experiment in a workspace, whose log says what each unit met and did.",
    )
    parser.add_argument(
        "file", metavar="FILE", help="CSV, Parquet or JSON, one row per unit; or a workspace"
    )
    parser.add_argument("--unit", metavar="COL", help="column of the unit (tables)")
    parser.add_argument("--variant", metavar="COL", help="column of the variant (tables)")
    parser.add_argument(
        "--control", metavar="NAME", help="which variant is control (a workspace knows its own)"
    )
    _add_workspace(parser)
    parser.add_argument(
        "--from-moments",
        action="store_true",
        help="FILE holds n, mean and variance by variant, metric and time instead of units, or has "
        "the columns of the ASOS data set",
    )
    _add_metrics(parser)
    _add_kinds(parser)
    parser.add_argument(
        "--weights",
        default=[],
        action="append",
        metavar="[EPOCH:]A=1,B=1",
        help="intended split; even by default; with --epoch repeat it for each, as 1:old=95,new=5",
    )
    parser.add_argument("--alpha", type=to_number, default=0.05, help="error probability (0.05)")
    parser.add_argument(
        "--alternative", default="two-sided", choices=["two-sided", "greater", "less"]
    )
    parser.add_argument(
        "--missing",
        default="error",
        choices=["error", "exclude", "zero"],
        help="rows without a value: stop, leave out, or count as 0 (default: stop)",
    )
    parser.add_argument(
        "--delivered",
        metavar="COL",
        help="column of what a unit really met; rows that met another variant's are counted",
    )
    _add_options(parser)
    parser.add_argument(
        "--format",
        default="table",
        choices=["table", "json", "words"],
        help="words: sentences that say what is known, how well, and what to do",
    )
    parser.set_defaults(run=_analyze)


def _add_workspace(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--experiment", metavar="KEY", help="of a workspace: the experiment to analyse"
    )
    parser.add_argument(
        "--window",
        metavar="7d",
        help="of a workspace: how long after its first exposure a unit's outcomes count (30m, 24h, "
        "7d); only units whose window is over are analysed",
    )
    parser.add_argument(
        "--watermark",
        metavar="TIME",
        help="of a workspace: time up to which its log is complete, in UTC; found out by default",
    )


def _add_metrics(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--metric",
        default=[],
        action="append",
        metavar="NAME[:proportion|mean]",
        help="column to compare; repeat for more; the kind is inferred where not given",
    )
    parser.add_argument(
        "--ratio",
        default=[],
        action="append",
        metavar="NUM/DEN",
        help="ratio of two columns' sums to compare, such as clicks/views; repeat for more",
    )
    parser.add_argument(
        "--covariate",
        default=[],
        action="append",
        metavar="COL",
        help="column measured before the assignment, to remove variance with; repeat for more",
    )


def _add_kinds(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--quantile",
        default=[],
        action="append",
        metavar="COL:LEVEL",
        help="quantile to compare, such as latency_ms:.95; repeat for more",
    )
    parser.add_argument(
        "--count",
        default=[],
        action="append",
        metavar="COL[/EXPOSURE]",
        help="events to compare as Poisson rates, per unit or per exposure, such as errors/hours; "
        "repeat for more",
    )
    parser.add_argument(
        "--cluster", metavar="COL", help="column of what was randomised, if rows are parts of it"
    )
    parser.add_argument(
        "--paired", action="store_true", help="every unit has a row in control and in treatment"
    )


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--method",
        default="pooled_z",
        metavar="NAME",
        help="test of proportions: pooled_z (default), unpooled_z, score_z, newcombe, fisher, "
        "barnard or boschloo; with --epoch also mantel_haenszel",
    )
    parser.add_argument(
        "--margin",
        default=[],
        action="append",
        metavar="METRIC=VALUE",
        help="test for non-inferiority: -0.02 for a loss of less than 0.02, 0.02 where less is "
        "better, -2%% for a share of control's mean; repeat for more",
    )
    parser.add_argument(
        "--winsorize",
        default=[],
        action="append",
        metavar="COL:QUANTILE",
        help="cap a column at a quantile of control, such as spend:.99; repeat for more",
    )
    parser.add_argument(
        "--segment",
        default=[],
        action="append",
        metavar="COL",
        help="break down by a column, corrected for the number of parts; repeat for more",
    )
    parser.add_argument(
        "--epoch", metavar="COL", help="column of the allocation epoch: compare within epochs"
    )
    parser.add_argument(
        "--correction",
        choices=["holm", "hommel", "bh", "ebh"],
        help="for the number of comparisons; intervals follow; ebh for e-values of a design",
    )
    parser.add_argument(
        "--bayes", action="store_true", help="add chance to beat control and expected loss"
    )
    _add_looks(parser)


def _add_looks(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--design",
        metavar="NAME",
        help="what makes looks safe: fixed, group-sequential, obf, pocock, always-valid, "
        "calibrated, msprt:TAU2, hypergeometric or counts",
    )
    parser.add_argument(
        "--time",
        metavar="COL",
        help="column of time: for checks; with looks, to look at the table as it came in",
    )
    parser.add_argument(
        "--looks", metavar="N|T,T", help="number of looks, or their moments (2026-03-01,2026-03-08)"
    )
    parser.add_argument(
        "--spacing",
        default="units",
        choices=["units", "time"],
        help="N looks: as many rows (default), or as much time, from look to look",
    )
    parser.add_argument(
        "--planned-units",
        type=int,
        metavar="N",
        help="units of all variants at the planned end; by default those in the table",
    )
    parser.add_argument(
        "--max-information",
        type=float,
        metavar="V",
        help="group sequential designs: planned variance of the contrast at the end",
    )


def _analyze(options: argparse.Namespace) -> int:
    if find_spec("duckdb") is None:
        raise MissingExtraError(
            "analysis reads tables with DuckDB: pip install 'abkit-rollouts[analysis]'"
        )
    if options.from_moments:
        from abkit.cli.moments import analyze_summaries

        return analyze_summaries(
            options,
            metrics=dict(_metric_option(text) for text in options.metric) or None,
            weights=_weights(options.weights, by_epoch=False),
            margins=_margins(options.margin),
        )
    from abkit.analysis import analyze

    report = analyze(
        options.file,
        unit=options.unit,
        variant=options.variant,
        control=options.control,
        metrics=dict(_metric_option(text) for text in options.metric),
        ratios=dict(_ratio_option(text) for text in options.ratio),
        covariates=options.covariate,
        weights=_weights(options.weights, by_epoch=options.epoch is not None),
        alpha=options.alpha,
        alternative=options.alternative,
        missing=options.missing,
        method=options.method,
        margins=_margins(options.margin),
        winsorize=_numbers("--winsorize", options.winsorize, ":"),
        segments=options.segment,
        epoch=options.epoch,
        correction=options.correction,
        bayes=options.bayes,
        experiment=options.experiment,
        window=options.window,
        watermark=options.watermark,
        quantiles=_quantiles(options.quantile),
        counts=dict(_count_option(text) for text in options.count),
        cluster=options.cluster,
        paired=options.paired,
        delivered=options.delivered,
        **_looks(options),
    )
    if options.format == "json":
        print(report.to_json())
    elif options.format == "words":
        print(report.explain())
    else:
        from abkit.terminal import print_report

        print_report(report)
    return 0


def _looks(options: argparse.Namespace) -> dict[str, Any]:
    text: str | None = options.looks
    looks: int | list[str] | None = None
    if text is not None:
        looks = (
            int(text)
            if text.removeprefix("-").isdigit()
            else [part for part in text.split(",") if part]
        )
    return {
        "time": options.time,
        "looks": looks,
        "spacing": options.spacing,
        "design": options.design,
        "planned_units": options.planned_units,
        "max_information": options.max_information,
    }


def _metric_option(text: str) -> tuple[str, Kind | None]:
    name, colon, word = text.rpartition(":")
    if not colon:
        return text, None
    kinds: dict[str, Kind] = {"proportion": "proportion", "mean": "mean"}
    if word not in kinds:
        raise ConfigError(
            f"--metric {text!r}: the kind after ':' must be proportion or mean, got {word!r}"
        )
    return name, kinds[word]


def _ratio_option(text: str) -> tuple[str, tuple[str, str]]:
    numerator, slash, denominator = text.partition("/")
    if not slash or not numerator or not denominator:
        raise ConfigError(f"--ratio {text!r} is not NUMERATOR/DENOMINATOR")
    return text, (numerator, denominator)


def _count_option(text: str) -> tuple[str, str | tuple[str, str]]:
    events, slash, exposure = text.partition("/")
    if not events or (slash and not exposure):
        raise ConfigError(f"--count {text!r} is not COLUMN or COLUMN/EXPOSURE")
    return text, (events, exposure) if slash else events


def _quantiles(parts: Iterable[str]) -> dict[str, list[float]]:
    """Levels of each column, as in latency_ms:.95."""
    found: dict[str, list[float]] = {}
    for part in parts:
        ((name, level),) = _numbers("--quantile", [part], ":").items()
        found.setdefault(name, []).append(level)
    return found


def _margins(parts: Iterable[str]) -> dict[str, float | str]:
    """Margins by metric: numbers, or texts with a percent sign."""
    parts = list(parts)
    shares = [part for part in parts if part.endswith("%")]
    found: dict[str, float | str] = {**_numbers("--margin", [p for p in parts if p not in shares])}
    for name, number in _numbers("--margin", [part[:-1] for part in shares]).items():
        if name in found:
            raise ConfigError(f"--margin {','.join(parts)!r}: {name!r} stands twice")
        found[name] = f"{number!r}%"
    return found


def _weights(texts: list[str], *, by_epoch: bool) -> dict[str, Any] | None:
    """The intended split: one for all, or one by epoch, as in 1:old=95,new=5."""
    if not texts:
        return None
    heads = [text.partition("=")[0].rpartition(":") for text in texts]
    if len(texts) == 1 and not (by_epoch and heads[0][1]):
        return _numbers("--weights", texts[0].split(","))
    found: dict[str, Any] = {}
    for text, (epoch, colon, _) in zip(texts, heads, strict=True):
        if not colon or not epoch:
            raise ConfigError(
                f"--weights {text!r} is not EPOCH:NAME=NUMBER,...; several splits need their epochs"
            )
        if epoch in found:
            raise ConfigError(f"--weights: the epoch {epoch!r} stands twice")
        found[epoch] = _numbers("--weights", text[len(epoch) + 1 :].split(","))
    return found


def _numbers(option: str, parts: Iterable[str], sign: str = "=") -> dict[str, float]:
    """Names with numbers, as in a=1."""
    parts = list(parts)
    found: dict[str, float] = {}
    for part in parts:
        name, seen, value = part.rpartition(sign)
        try:
            number = float(value)
        except ValueError:
            number = None
        if not seen or not name or number is None:
            text = ",".join(parts)
            raise ConfigError(f"{option} {text!r}: {part!r} is not NAME{sign}NUMBER")
        if name in found:
            raise ConfigError(f"{option} {','.join(parts)!r}: {name!r} stands twice")
        found[name] = number
    return found
