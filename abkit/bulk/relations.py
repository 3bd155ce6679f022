"""DuckDB relations and files: assigned where they lie, and lazily where that can be."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
from duckdb import CaseExpression as Case
from duckdb import ColumnExpression as Column
from duckdb import ConstantExpression as Constant
from duckdb import StarExpression as Star

from abkit.bulk.columns import check_sql_type, text_of_arrow
from abkit.bulk.plan import Plan, codes_where
from abkit.bulk.sql_conditions import condition_in_sql
from abkit.bulk.stages import Stages, bucket, connect, decide_all, given_in_sql, has_code
from abkit.bulk.tables import Request, append
from abkit.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from duckdb import DuckDBPyRelation, Expression

_CSV = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz")
_PARQUET = (".parquet", ".pq")
_WIDE = ("HUGEINT", "UHUGEINT")  # Arrow has no such type, and would take them for decimals


def relation_of_file(source: str | os.PathLike[str], texts: Iterable[str]) -> DuckDBPyRelation:
    """A relation that reads a CSV or Parquet file when it is asked for rows.

    In a CSV file these columns are read as the text they are: the unit "007" must not become 7,
    nor the version "2.10" another one.

    Raises:
        DataError: there is no such file, or it is neither.
    """
    path = os.fspath(source)
    if not Path(path).is_file():
        raise DataError(
            f"no file {path!r}; units are given as a list, a column, a frame or the path of a file"
        )
    # Brackets, in which DuckDB finds no pattern: only this very file is read.
    literal = "".join(f"[{letter}]" if letter in "*?[" else letter for letter in path)
    connection = connect()
    try:
        if path.lower().endswith(_PARQUET):
            return connection.read_parquet(literal, hive_partitioning=False)
        if path.lower().endswith(_CSV):
            found = connection.read_csv(literal, hive_partitioning=False)
            kinds = {name: "VARCHAR" for name in texts if name in found.columns}
            if not kinds:
                return found
            return connection.read_csv(literal, hive_partitioning=False, dtype=kinds)
    except duckdb.Error as error:
        reason = str(error).strip().partition("\n")[0]
        raise DataError(f"cannot read {path!r}: {reason}") from None
    raise DataError(
        f"cannot tell what {path!r} is from its ending; known are {', '.join(_CSV + _PARQUET)}"
    )


def add_to_relation(request: Request, relation: DuckDBPyRelation) -> DuckDBPyRelation:
    """A relation of the same connection with the columns appended.

    Nothing is computed before rows are asked for, except with a vendor's hash or with targeting
    that SQL would not judge exactly as serving does: then it is computed now and kept in memory.

    Raises:
        DataError: a column is missing, or there already, or can hold no unit.
    """
    names = relation.columns
    seen = request.seen(names)
    # To DuckDB, a column is the same however its letters are cased.
    folded = {name.casefold(): name for name in names}
    taken = next((folded[name] for name in request.added if name in folded), None)
    if taken is not None:
        raise DataError(f"there is a column {taken!r} already; rename or drop it")
    kinds = dict(zip(names, relation.types, strict=True))
    check_sql_type(kinds[request.unit], request.where)
    text, code, digest = (_free(f"abkit_{word}", folded) for word in ("text", "code", "digest"))
    relation = relation.select(Star(), Column(request.unit).cast("VARCHAR").alias(text))
    visible = {name: kinds[name] for name in seen}
    item = request.plan.experiment
    asked = item.targeting if item.state == "running" else None
    met = None if asked is None else condition_in_sql(asked, visible)
    if request.plan.in_sql and (asked is None or met is not None):
        return _later(request, Stages(relation, text, code, digest), met)
    return _now(request, relation, text, visible)


def _free(name: str, taken: Mapping[str, object]) -> str:
    while name in taken:
        name += "_"
    return name


def _later(request: Request, stages: Stages, met: Expression | None) -> DuckDBPyRelation:
    """The columns as expressions."""
    plan = request.plan
    stages = decide_all(stages, plan, given=given_in_sql(stages.text, plan), met=met)
    inside = has_code(stages.code, codes_where(plan, ("split",)))
    added = [_named(stages.code, plan, 0), _named(stages.code, plan, 1), inside]
    if request.detail:
        added += [bucket(stages, plan), Constant(plan.experiment.epoch).cast("BIGINT")]
    pairs = zip(added, request.added, strict=True)
    rest = Star(exclude=[stages.text, stages.code])
    return stages.relation.select(rest, *(what.alias(name) for what, name in pairs))


def _named(code: str, plan: Plan, column: int) -> Expression:
    """Variant (column 0) or reason (column 1) of a code."""
    codes: dict[str, list[int]] = {}
    for number, outcome in enumerate(plan.outcomes):
        codes.setdefault(outcome[column], []).append(number)
    (first, numbers), *others = codes.items()
    found = Case(has_code(code, numbers), Constant(first))
    for name, numbers in others:
        found = found.when(has_code(code, numbers), Constant(name))
    return found


def _now(
    request: Request, relation: DuckDBPyRelation, text: str, seen: Mapping[str, Any]
) -> DuckDBPyRelation:
    """The columns by way of Arrow, every other column with the type it had."""
    table = relation.to_arrow_table()

    def column(name: str) -> Any:
        values = table.column(name)
        if str(seen[name]) not in _WIDE:
            return values
        return [None if value is None else int(value) for value in values.to_pylist()]

    units = text_of_arrow(table.column(text), request.where)
    codes = request.codes(units, list(seen), column)
    found: Any
    abkit_assigned_rows = append(request, table.drop_columns([text]), codes)
    try:
        # DuckDB finds the rows by the name of the variable, on the connection of the relation.
        found = relation.query("abkit_source", "FROM abkit_assigned_rows")
    except duckdb.Error:  # that connection may not look at variables
        found = connect().from_arrow(abkit_assigned_rows)
    kinds = dict(zip(relation.columns, relation.types, strict=True))
    columns = (
        Column(name).cast(kinds[name]).alias(name) if name in kinds else Column(name)
        for name in found.columns
    )
    assigned: DuckDBPyRelation = found.select(*columns)
    return assigned
