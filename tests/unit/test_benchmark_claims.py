"""The benchmark of the statistics runs from end to end, in its quick form and without peers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CLAIMS = Path(__file__).parents[2] / "benchmarks" / "claims.py"


def test_the_quick_form_prints_every_claim_and_table() -> None:
    done = subprocess.run(
        [sys.executable, str(CLAIMS), "--quick"],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    for claim in (
        "false alarms in every cell",
        "calibrated mixture, 50/50",
        "doubled error rate on a 5 % canary",
        "Lan-DeMets boundaries at 100 looks",
        "whole analysis of 200,000 rows",
    ):
        assert f"| {claim}" in done.stdout
    (error,) = (line for line in done.stdout.splitlines() if "variance at mean 1.7e9" in line)
    assert error.endswith("| met |")
    assert "### False alarms, ramp with drift" in done.stdout
    assert "| 200,000 | statsmodels OLS |" in done.stdout
    assert "Peers: none." in done.stdout
