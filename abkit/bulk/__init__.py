"""Many units at once, for batch inference: a list, a column, a frame, a relation or a file.

::

    frame = abkit.assign_many(experiment, users)      # users: a frame with a column unit_id
    frame["variant"], frame["reason"], frame["in_experiment"]

Each row gets what `Client.assign` would give its unit, in the same order of evaluation: hashes
are worked out in DuckDB, and only for the rows that need them. What a client remembers beyond
its snapshot has no part in it: neither a sticky store nor forced variants.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from abkit.errors import ConfigError, DataError, MissingExtraError
from abkit.targeting import text_attributes

try:
    import duckdb
    import numpy as np
    import pyarrow as pa

    from abkit.bulk import columns, tables
    from abkit.bulk.codes import codes_of
    from abkit.bulk.plan import Bound, Plan, bind, experiment_of
    from abkit.bulk.relations import add_to_relation, relation_of_file
except ModuleNotFoundError as error:
    if (error.name or "abkit").partition(".")[0] == "abkit":
        raise
    raise MissingExtraError(
        f"abkit.assign_many needs {error.name}: pip install 'abkit-rollouts[analysis]'"
    ) from error

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from abkit.bulk.codes import Codes
    from abkit.experiment import Experiment
    from abkit.layer import Holdout, Layer

__all__ = ["Bound", "assign_many", "experiment_of"]


def assign_many(
    experiment: Experiment | Bound,
    units: Any,
    *,
    unit: str = "unit_id",
    attributes: bool | Sequence[str] = True,
    layers: Iterable[Layer] = (),
    holdouts: Iterable[Holdout] = (),
    detail: bool = False,
    progress: bool = False,
) -> Any:
    """The variant of many units, in the shape in which the units came.

    =================================================  =========================================
    units                                              result
    =================================================  =========================================
    list, tuple, iterator                              list of variants
    numpy array                                        numpy array of variants
    pandas Series or Index                             Series of categories, on the same index
    polars Series, Arrow array                         the same kind, dictionary-encoded
    frame of pandas, polars (also lazy) or Arrow       the same with columns appended
    DuckDB relation                                    relation of the same connection
    path of a CSV or Parquet file                      DuckDB relation that reads the file
    =================================================  =========================================

    The columns `variant`, `reason` and `in_experiment` are appended to a frame; order and index
    of the rows stay. What is no unit (None, NaN, "", a float, a bool) gets control with the
    reason "invalid_unit", as in serving; a column whose type can hold no unit at all is refused.
    A relation stays lazy unless the experiment has a vendor's hash or an unusual targeting.

    Args:
        experiment: the experiment.
        units: what to assign.
        unit: of a frame, the column that holds the units.
        attributes: of a frame, the columns that targeting may see: all (True), none (False), or
            these. An attribute without a column is absent in every row; without a frame, all are.
        layers: the layer that the experiment names, among others.
        holdouts: the holdouts that the experiment names, among others.
        detail: append `bucket` (NULL where none was needed) and `epoch` too.
        progress: show a bar in the terminal.

    Raises:
        ConfigError: the experiment names a layer or holdout that is not given.
        DataError: a column is missing, is there already, or can hold no unit.

    Examples:
        >>> from abkit import Experiment
        >>> ranker = Experiment.create("ranker", {"old": 0.5, "new": 0.5}, salt="demo")
        >>> assign_many(ranker, ["user-1", "user-2", 3, None])
        ['old', 'new', 'old', 'old']
    """
    plan = Plan.of(bind(experiment, layers, holdouts))
    if not isinstance(attributes, bool):
        attributes = (attributes,) if isinstance(attributes, str) else tuple(attributes)
    request = tables.Request(plan, unit, attributes, detail=detail, progress=progress)
    if isinstance(units, (str, os.PathLike)):
        condition = plan.bound.experiment.targeting
        units = relation_of_file(units, {unit, *text_attributes(condition)})
    found = _frame(request, units)
    if found is None:
        if detail:
            raise ConfigError("detail adds columns, so it needs a frame; put the units in one")
        found = _sequence(request, units)
    return found


def _frame(request: tables.Request, units: Any) -> Any:
    """The frame with its columns, or None where the units are no frame."""
    # Whoever made the frame has imported what it is made of.
    pandas, polars = sys.modules.get("pandas"), sys.modules.get("polars")
    if isinstance(units, duckdb.DuckDBPyRelation):
        return add_to_relation(request, units)
    if isinstance(units, (pa.Table, pa.RecordBatch)):
        return tables.add_to_arrow(request, units)
    if pandas is not None and isinstance(units, pandas.DataFrame):
        return tables.add_to_pandas(request, units)
    if polars is not None and isinstance(units, polars.DataFrame):
        return tables.add_to_polars(request, units)
    if polars is not None and isinstance(units, polars.LazyFrame):
        return tables.add_to_lazy_polars(request, units)
    return None


def _sequence(request: tables.Request, units: Any) -> Any:
    """The variants, in the kind of column that the units came in."""
    pandas, polars = sys.modules.get("pandas"), sys.modules.get("polars")
    if pandas is not None and isinstance(units, (pandas.Series, pandas.Index)):
        index = units if isinstance(units, pandas.Index) else units.index
        codes = _codes(request, columns.text_of_pandas(units, "the column of units"))
        return pandas.Series(tables.categories(codes, 0), index=index, name="variant")
    if polars is not None and isinstance(units, polars.Series):
        codes = _codes(request, columns.text_of_polars(units, "the column of units"))
        return polars.from_arrow(tables.named(codes, 0)).alias("variant")
    if isinstance(units, (pa.Array, pa.ChunkedArray)):
        return tables.named(_codes(request, columns.text_of_arrow(units, "the array")), 0)
    if isinstance(units, np.ndarray):
        names, places = _codes(request, columns.text_of_numpy(units, "the array")).names(0)
        return np.array(names)[places]
    names, places = _codes(request, columns.text_of_objects(_listed(units))).names(0)
    found: list[str] = np.array(names, object)[places].tolist()
    return found


def _listed(units: Any) -> Sequence[object]:
    if isinstance(units, (list, tuple)):
        return units
    # A dict would give its keys, and bytes numbers: more likely a slip than a wish.
    if hasattr(units, "__iter__") and not isinstance(units, (bytes, bytearray, dict)):
        return list(units)
    raise DataError(
        f"cannot read units from a {type(units).__name__}; give a list, a column, a frame of "
        "pandas, polars or Arrow, a DuckDB relation, or the path of a file"
    )


def _codes(request: tables.Request, text: Any) -> Codes:
    met = tables.met(request.plan, {}, len(text))
    return codes_of(request.plan, text, met, progress=request.progress)
