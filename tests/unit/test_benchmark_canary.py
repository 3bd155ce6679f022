"""The benchmark of the canary test runs from end to end in its quick form, and its parts add up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CANARY = Path(__file__).parents[2] / "benchmarks" / "canary.py"


def test_the_quick_form_prints_every_target_and_table() -> None:
    """It ends with an error where its sums differ from the shipped test's."""
    done = subprocess.run(
        [sys.executable, str(CANARY), "--quick", "--jobs", "2"],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    for target in (
        "false halts <= 1 % in each of 15 cells",
        "mean canary requests to the halt <= 1.4 x the bound",
        "restarts cost <= 1.2 x at the onset",
        "delay at hour 12 <= 2 x that at the onset",
        "a canary that is 25 % worse is promoted <= 5 %",
        "an equal one is promoted >= 98 %",
        "false pauses by the check of the split <= .1 %",
    ):
        assert f"| {target}" in done.stdout
    for rule in ("abkit, without restarts", "Flagger", "Argo", "Kayenta", "naive z", "GrowthBook"):
        assert f"\n| {rule}" in done.stdout
    for cell in ("50 % split, 1,000 rps", "ramp, base rate x 4", "mesh sends", "day and night"):
        assert f"\n| {cell}" in done.stdout
    # The bounds of the design, to the request.
    for bound in ("1 to 2 %**; bound 1,192", "1 to 5 %**; bound 114", "1 to 2 %**; bound 1,345"):
        assert bound in done.stdout
    (slow,) = (line for line in done.stdout.splitlines() if "told the configured weight" in line)
    assert "it halts 1.0000" in slow
