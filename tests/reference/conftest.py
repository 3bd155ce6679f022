"""Finds the real data sets, which are read in place and never copied into the project."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

BESIDE_THE_REPOSITORY = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """Find a shared data file by name, or skip the test that needs it."""

    def find(name: str) -> Path:
        folder = Path(os.environ.get("ABKIT_SHARED_DATA", BESIDE_THE_REPOSITORY))
        path = folder / name
        if not path.is_file():
            pytest.skip(f"needs {name}: not in {folder}; set ABKIT_SHARED_DATA to its folder")
        return path

    return find
