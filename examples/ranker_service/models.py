"""Two real models of one question, is this person employed, learned from the census of 2015."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
from sklearn.ensemble import RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier

if TYPE_CHECKING:
    from numpy.typing import NDArray

CENSUS = Path(__file__).parents[2] / "sample_data" / "census_ma.parquet"


def rows(year: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Ids, features of shape (n, 16), and whether each person was employed, of one year."""
    table = pq.read_table(CENSUS, filters=[("year", "=", year)])
    features = table.drop_columns(["id", "year", "employed"])
    matrix = np.column_stack([column.to_numpy() for column in features.columns])
    return table["id"].to_numpy(), matrix.astype(np.float32), table["employed"].to_numpy()


def train() -> dict[str, Any]:
    """The forest that serves today, and a single tree that learned the forest's answers.

    Neither uses OpenMP, whose threads do not survive a fork: what does (gradient boosting)
    belongs in a server that loads its models after the fork, without `--preload`.
    """
    _, features, employed = rows(2015)
    forest = RandomForestClassifier(n_estimators=40, min_samples_leaf=5, random_state=0)
    forest.fit(features, employed)
    tree = DecisionTreeClassifier(max_depth=10, min_samples_leaf=15, random_state=0)
    tree.fit(features, forest.predict(features))
    return {"forest": forest, "tree": tree}
