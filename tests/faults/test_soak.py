"""A soak with killed workers, in a short form; `benchmarks/soak.py` runs for longer."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Account

SOAK = Path(__file__).parents[2] / "benchmarks" / "soak.py"


def soak(seconds: float, kill_seconds: float, account: Account, *options: str) -> dict[str, Any]:
    if not Path("/proc/self/statm").exists():
        pytest.skip("needs /proc")
    for package in ("gunicorn", "uvicorn"):
        if find_spec(package) is None:
            pytest.skip(f"no {package}: `python3 dev.py conformance` installs it")
    command = [sys.executable, str(SOAK), "--json", f"--minutes={seconds / 60}"]
    done = subprocess.run(
        [*command, f"--kill-seconds={kill_seconds}", *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds + 240,
    )
    assert done.stdout, done.stderr[-4000:]
    report: dict[str, Any] = json.loads(done.stdout)
    sys.stdout.write(f"{report}\n")
    assert done.returncode == 0, report
    assert report["lost"] == 0
    assert report["kills"] >= seconds // kill_seconds - 1
    assert report["answered"] > 0
    assert report["accepted"] >= 2 * report["answered"]
    # A worker lives for two kills: what it gains in that time is far less than what it has.
    assert report["peaks"]["workers"] < 100
    account(
        accepted=report["accepted"],
        stored=report["stored"],
        dropped=report["dropped"],
        quarantined=report["quarantined"],
    )
    return report


@pytest.mark.fault("soak: a worker killed each 20 s")
def test_forty_five_seconds_of_traffic_with_killed_workers(account: Account) -> None:
    soak(45, 10, account)


@pytest.mark.slow
@pytest.mark.fault("soak: a worker killed each 20 s")
def test_three_minutes_of_traffic_with_a_worker_killed_each_20_s(account: Account) -> None:
    report = soak(180, 20, account)
    assert abs(report["slopes"]["workers"]) < 2_048, "KiB a minute"


@pytest.mark.slow
@pytest.mark.fault("soak: a worker killed each 20 s")
def test_a_minute_of_durable_traffic_with_killed_workers(account: Account) -> None:
    soak(60, 10, account, "--durability=fsync")
