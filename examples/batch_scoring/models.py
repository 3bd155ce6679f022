"""Two models of one question, is this person employed, learned from the census of 2015."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

CENSUS = Path(__file__).parents[2] / "sample_data" / "census_ma.parquet"


@cache
def _fitted(kind: str) -> Any:
    """A model, trained once in a process; yours would be read from a file (`--model-file`)."""
    frame = pq.read_table(CENSUS, filters=[("year", "=", 2015)]).to_pandas()
    features, employed = frame.drop(columns=["id", "year", "employed"]), frame["employed"]
    if kind == "linear":
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
        return model.fit(features, employed)
    # A tree that has seen too little: it looks as plausible, and is wrong far more often.
    depth, rows = (9, len(frame)) if kind == "tree" else (1, 400)
    tree = DecisionTreeClassifier(max_depth=depth, min_samples_leaf=20, random_state=0)
    return tree.fit(features[:rows], employed[:rows])


def linear(frame: pd.DataFrame) -> NDArray[Any]:
    """The model that serves today: probability of being employed."""
    found: NDArray[Any] = _fitted("linear").predict_proba(frame)[:, 1]
    return found


def tree(frame: pd.DataFrame) -> NDArray[Any]:
    """A better one."""
    found: NDArray[Any] = _fitted("tree").predict_proba(frame)[:, 1]
    return found


def stump(frame: pd.DataFrame) -> NDArray[Any]:
    """A worse one."""
    found: NDArray[Any] = _fitted("stump").predict_proba(frame)[:, 1]
    return found
