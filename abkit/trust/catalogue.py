"""The page of all checks: rule, threshold, source, false-alarm rate and power."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from scipy import stats

from abkit.analysis.rules import RULES
from abkit.trust.rules import LOOKS

if TYPE_CHECKING:
    from collections.abc import Mapping

_HEAD: Final = """# Checks

Written by `python docs/checks.py` from the rules in the code and from `docs/checks.json`; do not
edit it by hand.

Every report of `abkit analyze` says what was looked at before its numbers may be believed. A check
has an id, a severity, a text, evidence (numbers), an explanation and a remedy; `to_dict()` and
`--format json` give all of them. **info** is told, **warn** asks for a look, **block** means that
no decision should rest on the report. They are for whoever reads a report: what holds a rollout
back by itself is told in [rollouts](rollouts.md), and nothing here ever stops a halt.

What needs more than the moments of the comparison costs one query more, whatever the number of
metrics. `time` (a column) adds the checks of the calendar, of trends and of dependence; `delivered`
(a column of what a unit really met, such as the page or the model that answered) adds
`delivery_mismatch`; `segments` add the splits within them.

```
abkit analyze udacity_ab_data.parquet --unit user_id --variant group --control control \\
  --metric converted --time timestamp --delivered landing_page
```

## How often each is wrong, and how often it finds its fault

Clean reports are A/A tests of 4,000 units over two whole weeks, with skewed and missing values,
five segments, a covariate and a weekend that differs. Each fault is planted in such a table, or,
for the checks of a log, in its counts. Rates with exact 95 % intervals. `underpowered_win` is told
of a win, and of clean reports with two metrics nearly 1 in 10 has one by chance: its rate is that
of these, and what it says of them is right.

"""


_DOCTOR: Final = """
## abkit doctor

`abkit doctor WORKSPACE` looks at a workspace without touching it, beside a running controller, and
with the store locked, damaged or gone. Exit code 1 if something blocks, with `--strict` also if
something warns; `--json` for machines, `--deep` to read every archived file.

| look | what | threshold | what to do |
|---|---|---|---|
"""


def page(rates: Mapping[str, Mapping[str, Any]]) -> str:
    """The page as Markdown.

    Args:
        rates: by check "false_alarms" of "clean_runs", "found" of "fault_runs", and the "fault".
    """
    parts = [_HEAD, "| check | false alarms | found | planted fault |\n|---|---|---|---|\n"]
    for rule in RULES:
        rate = rates.get(rule.id)
        if rate is not None:
            alarms = rated(rate["false_alarms"], rate["clean_runs"])
            found = rated(rate["found"], rate["fault_runs"])
            parts.append(f"| `{rule.id}` | {alarms} | {found} | {rate['fault']} |\n")
    left = ", ".join(f"`{rule.id}`" for rule in RULES if rule.id not in rates)
    parts.append(f"\nNot measured here, because they count, or are tested elsewhere: {left}.\n")
    parts.append("\n## What each looks for\n")
    parts += [
        f"\n### {rule.id}\n\n{_sentence(rule.rule)}. Threshold: {rule.threshold}. Why: "
        f"{rule.explanation}. What to do: {rule.remedy}. Source: {rule.source}.\n"
        for rule in RULES
    ]
    parts.append(_DOCTOR)
    parts += [
        f"| `{look.id}` | {look.rule} | {look.threshold} | {look.remedy} |\n" for look in LOOKS
    ]
    return "".join(parts)


def rated(number: int, runs: int) -> str:
    """A share with its exact interval.

    Examples:
        >>> rated(0, 1_000)
        '0.0 % (0 to 0.4)'
    """
    low, high = stats.binomtest(number, runs).proportion_ci()
    ends = [f"{100 * float(x):.1f}".removesuffix(".0") for x in (low, high)]
    return f"{100 * number / runs:.1f} % ({ends[0]} to {ends[1]})"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
