"""One night: join the labels that came, let the controller decide, score, swap or go back.

    python nightly.py FOLDER NIGHT        # NIGHT names the run, such as 2026-11-24

Safe to start again at any point, by hand or by the scheduler: exposures and outcomes are logged
once, an interrupted scoring goes on, and a night that is done does nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path

import duckdb

from abkit import Workspace
from abkit.cli import main as abkit

NAME = "employment"
TABLE = "applicants"
HERE = Path(__file__).parent


def run(*words: str | Path) -> None:
    """One `abkit` command, as a shell would run it; a failure ends the night."""
    print("$ abkit", *(word.name if isinstance(word, Path) else word for word in words), flush=True)
    code = abkit([str(word) for word in words])
    if code:
        raise SystemExit(code)


def main(folder: Path, night: str) -> None:
    """Do everything that is to be done in a night."""
    sys.path.insert(0, str(HERE))  # where `models:tree` is
    database, workspace = folder / "predictions.duckdb", folder / "workspace"
    space = Workspace(workspace)

    # Labels of earlier nights: joined to what was live then, counted once.
    for path in sorted((folder / "labels").glob("*.csv")):
        run(
            *("batch", "labels", database, path, "--name", NAME, "--run", path.stem),
            *("--entity", "id", "--label", "employed", "--threshold", "0.5"),
            *("--metric", "wrong", "--workspace", workspace),
        )
        path.rename(path.with_suffix(".joined"))

    # The ordinary controller decides: the next share, everyone, or nobody.
    run("controller", workspace, "--once")
    rollout = next(iter(space.rollouts()), None)
    if rollout is None:
        score(database, night, "linear")
        return
    print(f"{rollout.key}: {rollout.state}, {rollout.stage.name}; {rollout.reason}")
    while rollout.state == "halted" and readers_see(database, rollout.treatment):
        run("batch", "back", database, NAME, "--reason", f"{rollout.key} halted")

    run(
        *("batch", "assign", database, TABLE, "--unit", "id", "--run", night),
        *("--experiment", rollout.experiment.key, "--workspace", workspace),
    )
    new = f"{rollout.treatment}=models:{rollout.treatment}@1"
    score(database, night, rollout.control, "--variant", new)


def score(database: Path, night: str, control: str, *more: str) -> None:
    """Score tonight's table into a version, and swap it in if it is fit to be read."""
    run(
        *("batch", "score", database, TABLE, "--name", NAME, "--unit", "id", "--run", night),
        *("--model", f"models:{control}", "--model-version", "1", *more),
    )
    # Where it is refused, the night ends here and readers keep what they have. The models of this
    # example differ more than by the 0.1 that is allowed without a word.
    run("batch", "swap", database, NAME, "--max-drift", "0.25", "--reason", f"night {night}")


def readers_see(database: Path, variant: str) -> bool:
    """Whether what readers see holds predictions of this variant."""
    with duckdb.connect(database, read_only=True) as connection:
        query = f"SELECT count(*) FROM {NAME} WHERE variant = $variant"  # noqa: S608 - ours
        return connection.execute(query, {"variant": variant}).fetchall()[0][0] > 0


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
