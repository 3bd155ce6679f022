"""`abkit analyze`: compare the variants of a table."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from abkit.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable
    from typing import TypeAlias

    from abkit.metrics import Kind

    Commands: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - it has no public name


def add_analyze(commands: Commands) -> None:
    """`abkit analyze`."""
    parser = commands.add_parser(
        "analyze",
        help="compare the variants of a table that has one row per unit",
        description="Compare every variant of a CSV, Parquet or JSON file with its control.",
    )
    parser.add_argument("file", metavar="FILE", help="CSV, Parquet or JSON, one row per unit")
    parser.add_argument("--unit", required=True, metavar="COL", help="column of the unit")
    parser.add_argument("--variant", required=True, metavar="COL", help="column of the variant")
    parser.add_argument("--control", required=True, metavar="NAME", help="which variant is control")
    _add_metrics(parser)
    parser.add_argument("--weights", metavar="A=1,B=1", help="intended split; even by default")
    parser.add_argument("--alpha", type=float, default=0.05, help="error probability (0.05)")
    parser.add_argument(
        "--alternative", default="two-sided", choices=["two-sided", "greater", "less"]
    )
    parser.add_argument(
        "--missing",
        default="error",
        choices=["error", "exclude", "zero"],
        help="rows without a value: stop, leave out, or count as 0 (default: stop)",
    )
    _add_options(parser)
    parser.add_argument(
        "--format",
        default="table",
        choices=["table", "json", "words"],
        help="words: sentences that say what is known, how well, and what to do",
    )
    parser.set_defaults(run=_analyze)


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


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--method",
        default="pooled_z",
        metavar="NAME",
        help="test of proportions: pooled_z (default), unpooled_z, score_z, newcombe, fisher, "
        "barnard or boschloo",
    )
    parser.add_argument(
        "--margin",
        default=[],
        action="append",
        metavar="METRIC=VALUE",
        help="test for non-inferiority: -0.02 for a loss of less than 0.02, 0.02 where less is "
        "better; repeat for more",
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
        choices=["holm", "hommel", "bh"],
        help="for the number of comparisons; intervals follow",
    )
    parser.add_argument(
        "--bayes", action="store_true", help="add chance to beat control and expected loss"
    )


def _analyze(options: argparse.Namespace) -> int:
    if find_spec("duckdb") is None:
        raise MissingExtraError(
            "analysis reads tables with DuckDB: pip install 'abkit-rollouts[analysis]'"
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
        weights=_numbers("--weights", options.weights.split(",")) if options.weights else None,
        alpha=options.alpha,
        alternative=options.alternative,
        missing=options.missing,
        method=options.method,
        margins=_numbers("--margin", options.margin),
        winsorize=_numbers("--winsorize", options.winsorize, ":"),
        segments=options.segment,
        epoch=options.epoch,
        correction=options.correction,
        bayes=options.bayes,
    )
    if options.format == "json":
        print(report.to_json())
    elif options.format == "words":
        print(report.explain())
    else:
        from abkit.terminal import print_report

        print_report(report)
    return 0


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
