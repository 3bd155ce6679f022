"""The register itself: every row of the matrix has a test that runs on every change."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from conftest import Account


def test_every_row_has_a_quick_test_and_every_test_a_known_row(
    matrix: tuple[str, ...], proofs: Mapping[str, list[tuple[str, bool]]]
) -> None:
    assert len(set(matrix)) == len(matrix)
    quick = {row for row, tests in proofs.items() if any(is_quick for _, is_quick in tests)}
    assert set(matrix) - quick == set(), "rows without a test"
    assert set(proofs) - set(matrix) == set(), "tests for rows that the matrix does not have"


def test_an_account_that_does_not_add_up_fails(account: Account) -> None:
    account(accepted=0, stored=0)
    with pytest.raises(AssertionError):
        account(accepted=10, stored=7, dropped=1, quarantined=1)


TESTS = """
import pytest

@pytest.mark.fault("EIO")
def test_it_survives(account):
    account(accepted=10, stored=7, dropped=2, quarantined=1)

@pytest.mark.fault("EIO", "slow disk")
def test_it_survives_too(account):
    account(accepted=5, stored=5)

@pytest.mark.fault("slow disk")
def test_it_fails():
    assert False

@pytest.mark.fault("power cut")
def test_it_is_skipped():
    pytest.skip("needs root")
"""


@pytest.mark.parametrize("workers", ["0", "2"])
def test_the_summary_tells_what_survived(tmp_path: Path, workers: str) -> None:
    register = Path(__file__).with_name("conftest.py").read_text("utf-8")
    (tmp_path / "conftest.py").write_text(register, "utf-8")
    (tmp_path / "test_some.py").write_text(TESTS, "utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers\n", "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", workers, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert done.returncode == 1, done.stdout
    assert "EIO survived" in lines, done.stdout
    assert "slow disk FAILED" in lines
    assert "power cut skipped (needs root)" in lines
    assert "config missing FAILED" in lines, "a row without any test"
    (line,) = [line for line in lines if line.startswith("faults survived")]
    assert line == (
        "faults survived 1/52, 1 skipped, accepted = stored + dropped + quarantined: "
        "15 = 12 + 2 + 1"
    )
