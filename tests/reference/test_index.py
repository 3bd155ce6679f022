"""README.md names a test for every reference number, and each of those tests exists."""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = Path(__file__).parent
TEXT = (FOLDER / "README.md").read_text(encoding="utf-8")


def test_every_test_that_the_table_names_exists() -> None:
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", TEXT)
    assert len(named) > 60
    for file, test in named:
        assert f"def {test}(" in (FOLDER / file).read_text(encoding="utf-8"), (file, test)


def test_every_number_and_every_row_has_a_test() -> None:
    first, second = TEXT.split("## The rows of")
    numbers = {int(n) for n in re.findall(r"^\| (\d+) \|.*`test_", first, re.MULTILINE)}
    assert numbers == set(range(1, 17))
    rows = re.findall(r"^\| (O\d\d(?:, O\d\d)*) \| `test_", second, re.MULTILINE)
    assert {row for group in rows for row in group.split(", ")} == {
        f"O{n:02}" for n in range(1, 25)
    }
