"""Six nights of batch scoring in a minute: a better model comes in, a worse one is stopped.

    python examples/batch_scoring/run.py

Each night has 6,000 other people of the census of 2016 to 2018. What was true of them arrives the
day after, for nine in ten.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import duckdb
from models import CENSUS
from nightly import HERE, NAME, TABLE, main, run

from abkit import Workspace

PEOPLE = 6_000
NIGHTS = tuple(f"2026-11-{day:02}" for day in range(2, 8))
STARTS = {"2026-11-03": "tree.toml", "2026-11-06": "stump.toml"}


def prepare(folder: Path, number: int) -> None:
    """Tonight's people, and the labels of last night's."""
    people = (
        f"(SELECT * FROM read_parquet('{CENSUS}') WHERE year > 2015 ORDER BY md5(id::VARCHAR) "  # noqa: S608
        f"LIMIT {PEOPLE} OFFSET {{}})"
    )
    with duckdb.connect(folder / "predictions.duckdb") as connection:
        connection.execute(
            f"CREATE OR REPLACE TABLE {TABLE} AS SELECT * EXCLUDE (year, employed) "  # noqa: S608
            f"FROM {people.format(number * PEOPLE)}"
        )
        if number:
            path = folder / "labels" / f"{NIGHTS[number - 1]}.csv"
            connection.execute(
                f"COPY (SELECT id, employed FROM {people.format((number - 1) * PEOPLE)} "  # noqa: S608
                f"WHERE id % 10 <> 0) TO '{path}'"
            )


def story(folder: Path) -> None:
    """The nights, one after the other."""
    (folder / "labels").mkdir(parents=True)
    space = Workspace(folder / "workspace")
    space.create()
    for number, night in enumerate(NIGHTS):
        print(f"\n--- night {night}", flush=True)
        prepare(folder, number)
        if night in STARTS:
            run("rollout", "start", space.path, HERE / STARTS[night])
        if number == 1:  # last night's labels are of a time before any rollout
            (folder / "labels" / f"{NIGHTS[0]}.csv").unlink()
        main(folder, night)
    with duckdb.connect(folder / "predictions.duckdb", read_only=True) as connection:
        found = connection.execute(
            f"SELECT model_version, variant, count(*) FROM {NAME} GROUP BY ALL ORDER BY ALL"  # noqa: S608
        ).fetchall()
    print("\nreaders see:", "; ".join(f"{n:,} by {variant}" for _, variant, n in found))
    for rollout in space.rollouts():
        print(f"{rollout.key}: {rollout.state}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, help="keep everything in this new folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="abkit-") as temporary:
        story((options.folder or Path(temporary) / "batch").absolute())
