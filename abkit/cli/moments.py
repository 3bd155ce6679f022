"""`abkit analyze --from-moments`: tables of counts, means and variances."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from abkit.errors import ConfigError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

# What needs the units themselves, by the name of the option.
_OF_UNITS = (
    "unit",
    "variant",
    "experiment",
    "window",
    "watermark",
    "ratio",
    "covariate",
    "quantile",
    "count",
    "cluster",
    "paired",
    "winsorize",
    "segment",
    "epoch",
    "correction",
    "bayes",
    "time",
    "looks",
)


_USUAL = {"method": "pooled_z", "missing": "error", "spacing": "units"}


def analyze_summaries(
    options: argparse.Namespace,
    *,
    metrics: Mapping[str, Any] | None,
    weights: Mapping[str, Any] | None,
    margins: Mapping[str, Any],
) -> int:
    """Analyze the file, and print a report for each experiment in it.

    Args:
        options: of the command line.
        metrics: with their kinds; None for all.
        weights: intended split.
        margins: border of the null by metric.

    Raises:
        ConfigError: an option needs the units themselves.
    """
    from abkit.analysis import analyze_moments

    for name, usual in (*((name, None) for name in _OF_UNITS), *_USUAL.items()):
        if (given := getattr(options, name, None)) and given != usual:
            raise ConfigError(f"--{name} needs a table of units; leave it out with --from-moments")
    reports = analyze_moments(
        options.file,
        control=options.control,
        metrics=metrics,
        weights=weights,
        alpha=options.alpha,
        alternative=options.alternative,
        margins=margins,
        design=options.design or "fixed",
        planned_units=options.planned_units,
        max_information=options.max_information,
    )
    if options.format == "json":
        found = {name: report.to_dict() for name, report in reports.items()}
        text = {"experiments": found}
        print(json.dumps(text, indent=2, ensure_ascii=False, allow_nan=False))
        return 0
    for i, (name, report) in enumerate(reports.items()):
        if name:
            print(f"{chr(10) * bool(i)}experiment {name}")
        if options.format == "words":
            print(report.explain())
        else:
            from abkit.terminal import print_report

            print_report(report)
    return 0
