"""`abkit plan` and `abkit simulate`: before an experiment."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from abkit.cli.numbers import to_number
from abkit.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence
    from typing import TypeAlias

    Commands: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - it has no public name

_SLOW_SECONDS = 1.0
_WORDS = ("design", "metric", "analysis")  # columns of text


def add_plan(commands: Commands) -> None:
    """`abkit plan`."""
    parser = commands.add_parser(
        "plan",
        help="units, power, smallest effect and run length of an experiment to come",
        description="Compare designs before an experiment: how many units they take, at most and "
        "on average. Give two of effect, units and power; the third is computed.",
    )
    parser.add_argument(
        "file", nargs="?", metavar="FILE", help="past data, one row per unit; instead of numbers"
    )
    parser.add_argument("--unit", metavar="COL", help="column of the unit in FILE")
    parser.add_argument("--metric", metavar="COL", help="column of the metric in FILE")
    parser.add_argument(
        "--covariate",
        default=[],
        action="append",
        metavar="COL",
        help="column known before the assignment (CUPED); repeat for more",
    )
    parser.add_argument("--time", metavar="COL", help="column of the time at which a unit came in")
    known = parser.add_argument_group("what is known")
    known.add_argument(
        "--baseline", type=to_number, metavar="X", help="rate of control; with --sd its mean"
    )
    known.add_argument("--sd", type=to_number, metavar="X", help="standard deviation of one unit")
    known.add_argument(
        "--variance-reduction",
        type=to_number,
        metavar="SHARE",
        help="share of the variance that covariates explain, such as 30%%",
    )
    known.add_argument("--units-per-day", type=to_number, metavar="N", help="of all arms together")
    two = parser.add_argument_group("two of these give the third (power is .8 by default)")
    two.add_argument(
        "--lift", type=to_number, metavar="X", help="effect relative to control: 5%% or .05"
    )
    two.add_argument(
        "--difference", type=to_number, metavar="X", help="effect in the metric's unit"
    )
    two.add_argument("--units", type=int, metavar="N", help="of all arms together, at the end")
    two.add_argument(
        "--days", type=to_number, metavar="N", help="run length; needs the units a day"
    )
    two.add_argument("--power", type=to_number, metavar="P", help="chance to find the effect")
    test = parser.add_argument_group("the test")
    test.add_argument("--arms", type=int, default=2, metavar="N", help="with control (2)")
    test.add_argument(
        "--weights", metavar="A=1,B=1", help="intended split, control first; even by default"
    )
    test.add_argument(
        "--alpha", type=to_number, default=0.05, help="of all comparisons together (0.05)"
    )
    test.add_argument("--alternative", choices=["two-sided", "greater", "less"])
    test.add_argument(
        "--margin",
        type=to_number,
        metavar="X",
        help="non-inferiority: -0.02 for a loss of less than 0.02, 0.02 where less is better",
    )
    _add_designs(test)
    test.add_argument("--looks", type=int, metavar="N", help="of sequential designs (5, or 200)")
    _add_output(parser, runs=4_000)
    parser.set_defaults(run=_plan)


def add_simulate(commands: Commands) -> None:
    """`abkit simulate`."""
    parser = commands.add_parser(
        "simulate",
        help="try designs out on your own data: false positives (aa), or power",
        description="Randomise the units of a table again and again, and count what each design "
        "rejects at the looks.",
    )
    modes = parser.add_subparsers(required=True, metavar="MODE", title="modes")
    for name, text in (
        ("aa", "without an effect: does the test keep its promise? Exit code 1 if not"),
        ("power", "with an effect: how often is it found, and when?"),
    ):
        mode = modes.add_parser(name, help=text, description=text)
        mode.add_argument("file", metavar="FILE", help="CSV, Parquet or JSON, one row per unit")
        mode.add_argument("--unit", required=True, metavar="COL", help="column of the unit")
        mode.add_argument(
            "--metric",
            required=True,
            action="append",
            metavar="COL",
            help="column of the metric; repeat for more",
        )
        mode.add_argument("--time", metavar="COL", help="column by which units come in")
        mode.add_argument("--cluster", metavar="COL", help="column of what is randomised together")
        mode.add_argument("--looks", type=int, default=20, metavar="N", help="looks (20)")
        _add_designs(mode)
        mode.add_argument(
            "--share", type=to_number, default=0.5, metavar="Q", help="share of treatment (0.5)"
        )
        mode.add_argument("--alpha", type=to_number, default=0.05, help="error probability (0.05)")
        mode.add_argument(
            "--alternative", default="two-sided", choices=["two-sided", "greater", "less"]
        )
        if name == "power":
            mode.add_argument("--lift", type=to_number, metavar="X", help="3%% or .03")
            mode.add_argument(
                "--difference", type=to_number, metavar="X", help="in the metric's unit"
            )
        _add_output(mode, runs=2_000)
        mode.set_defaults(run=_simulate, mode=name)


def _add_designs(parser: Any) -> None:
    parser.add_argument(
        "--design",
        default=[],
        action="append",
        metavar="NAME",
        help="fixed, group-sequential, obf, pocock, calibrated, always-valid, msprt, "
        "hypergeometric, canary; in simulations also peeking; repeat for more",
    )


def _add_output(parser: argparse.ArgumentParser, *, runs: int) -> None:
    parser.add_argument("--runs", type=int, default=runs, metavar="N", help=f"simulated ({runs:,})")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of random numbers (0)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--plot", metavar="HTML", help="write figures to this page")
    parser.add_argument("--theme", default="light", choices=["light", "dark"], help="of the page")


def _plan(options: argparse.Namespace) -> int:
    _require()
    from abkit.planning import plan
    from abkit.planning.report import HEADINGS, report_notes, table_rows

    chosen = {"designs": options.design} if options.design else {}
    weights = None
    if options.weights:
        weights = [_weight(part) for part in options.weights.split(",")]
    with _progress() as told:
        report = plan(
            options.file,
            unit=options.unit,
            metric=options.metric,
            covariates=options.covariate,
            time=options.time,
            baseline=options.baseline,
            sd=options.sd,
            variance_reduction=options.variance_reduction,
            lift=options.lift,
            difference=options.difference,
            units=options.units,
            days=options.days,
            power=options.power,
            units_per_day=options.units_per_day,
            arms=options.arms,
            weights=weights,
            alpha=options.alpha,
            alternative=options.alternative,
            margin=options.margin,
            looks=options.looks,
            runs=options.runs,
            seed=options.seed,
            progress=told,
            **chosen,
        )
    if options.plot:
        report.plot(theme=options.theme, path=options.plot)
    if options.json:
        print(report.to_json())
        return 0
    _print_table(HEADINGS, table_rows(report))
    _print_lines(["", report.recommendation, *report_notes(report)])
    return 0


def _simulate(options: argparse.Namespace) -> int:
    _require()
    from abkit.planning import simulate_aa, simulate_power
    from abkit.planning.simulation import HEADINGS, table_rows

    settings: dict[str, Any] = {
        name: getattr(options, name)
        for name in ("unit", "time", "cluster", "looks", "share", "alpha", "alternative")
    }
    settings |= {"metrics": options.metric, "runs": options.runs, "seed": options.seed}
    settings |= {"designs": options.design} if options.design else {}
    with _progress() as told:
        if options.mode == "aa":
            report = simulate_aa(options.file, progress=told, **settings)
        else:
            report = simulate_power(
                options.file,
                lift=options.lift,
                difference=options.difference,
                progress=told,
                **settings,
            )
    if options.plot:
        report.plot(theme=options.theme, path=options.plot)
    if options.json:
        print(report.to_json())
    else:
        what = "clusters" if report.clustered else "units"
        rows = f" of {report.units:,} rows" if report.clustered else ""
        looks = len(report.information)
        _print_lines([f"{report.groups:,} {what}{rows}, {looks} looks, {report.runs:,} runs", ""])
        _print_table(HEADINGS, table_rows(report))
        _print_lines(["", report.verdict, *report.notes])
    return 0 if report.passed else 1


@contextmanager
def _progress() -> Iterator[Callable[[float], None]]:
    """A bar on standard error, on a terminal and once it takes longer than a second."""
    from time import monotonic

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeRemainingColumn

    columns = (BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    console = Console(file=sys.stderr)
    with Progress(*columns, console=console, transient=True, disable=True) as bar:
        start = monotonic()
        task = bar.add_task("", total=1.0, visible=False)

        def told(share: float) -> None:
            late = console.is_terminal and monotonic() - start > _SLOW_SECONDS
            if late and not bar.live.is_started:
                bar.disable = False
                bar.start()
            bar.update(task, completed=share, visible=late)

        yield told


def _print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table, or one line per cell where it does not fit."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    widths = [max(len(name), *(len(row[i]) for row in rows)) for i, name in enumerate(headings)]
    if console.is_terminal and sum(widths) + 2 * len(widths) > console.width:
        for row in rows:
            pairs = [f"{name:<18}{cell}" for name, cell in zip(headings, row, strict=True)]
            _print_lines([*pairs, ""])
        return
    table = Table(box=None, pad_edge=False)
    for name in headings:
        table.add_column(name, justify="left" if name in _WORDS else "right", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))  # no markup: names come from the data
    wide = max(console.width, sum(widths) + 2 * len(widths))
    Console(width=wide).print(table)


def _print_lines(lines: Sequence[str]) -> None:
    from rich.console import Console

    console = Console()
    for line in lines:
        console.print(line, highlight=False, markup=False)


def _weight(part: str) -> float:
    name, sign, value = part.rpartition("=")
    try:
        return float(value)
    except ValueError:
        given = f"{name}{sign}{value}"
        raise ConfigError(f"--weights: {given!r} is not NUMBER or NAME=NUMBER") from None


def _require() -> None:
    if find_spec("duckdb") is None or find_spec("scipy") is None:
        raise MissingExtraError(
            "planning needs scipy and DuckDB: pip install 'abkit-rollouts[analysis]'"
        )
