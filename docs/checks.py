"""Writes docs/checks.md: every check, its rule, and how it did on clean data and planted faults.

python docs/checks.py            the page, from the rates in docs/checks.json
python docs/checks.py --measure  measures the rates anew first (about 15 minutes)
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from abkit.trust.catalogue import page  # noqa: E402 - the checkout is on the path from here on

RATES = HERE / "checks.json"
CLEAN_RUNS = 1_000
FAULT_RUNS = 100


def measure() -> None:
    """Count false alarms on clean data, and detections of each planted fault."""
    from tests.trust import studies  # noqa: PLC0415 - only to measure

    alarms = studies.false_alarms(CLEAN_RUNS, seed=11)
    rates = {}
    for name in (*studies.FAULTS, *studies.LOGGED):
        found = studies.detections(name, FAULT_RUNS, seed=12)
        rates[name] = {
            "false_alarms": alarms[name],
            "clean_runs": CLEAN_RUNS,
            "found": found,
            "fault_runs": FAULT_RUNS,
            "fault": studies.fault_of(name),
        }
        print(name, alarms[name], found, flush=True)
    RATES.write_text(json.dumps(rates, indent=1) + "\n")


if __name__ == "__main__":
    if "--measure" in sys.argv[1:]:
        measure()
    (HERE / "checks.md").write_text(page(json.loads(RATES.read_text())))
