"""Batch inference: assign tables, score them into immutable versions, swap, and judge late labels.

::

    users          --assign-->  who gets which model, exposures in the workspace, once
    pred_churn_v7  <--score---  immutable, in one piece: readers see all of it or none
    churn          <--swap----  the view that readers use; validated, and back at once
    outcomes       <--labels--  joined when they arrive, in the workspace, once

The predictions are in a DuckDB file of the user's; the workspace's controller decides.
"""

from __future__ import annotations

from abkit.errors import MissingExtraError

try:
    from abkit.batch.assigning import Assigned, assign
    from abkit.batch.cache import CacheStats, cache_stats, clear_cache, limit_cache
    from abkit.batch.comparing import Comparison, compare
    from abkit.batch.database import Database
    from abkit.batch.labelling import Labelled, join_labels
    from abkit.batch.models import Model, load_model
    from abkit.batch.scoring import Scored, score
    from abkit.batch.validation import Check, Limits, Validation, validate
    from abkit.batch.versions import Move, Version, back, history, swap, versions
except ModuleNotFoundError as error:
    if (error.name or "abkit").partition(".")[0] == "abkit":
        raise
    raise MissingExtraError(
        f"abkit.batch needs {error.name}: pip install 'abkit-rollouts[analysis]'"
    ) from error

__all__ = [
    "Assigned",
    "CacheStats",
    "Check",
    "Comparison",
    "Database",
    "Labelled",
    "Limits",
    "Model",
    "Move",
    "Scored",
    "Validation",
    "Version",
    "assign",
    "back",
    "cache_stats",
    "clear_cache",
    "compare",
    "history",
    "join_labels",
    "limit_cache",
    "load_model",
    "score",
    "swap",
    "validate",
    "versions",
]
