"""The audit: one SQL query that derives every assignment again, where the units lie.

The query needs the experiment's plain data and the engine's own hash, nothing of abkit: whoever
doubts an assignment can read it and run it.

Run against real engines in `tests/conformance`: DuckDB, PostgreSQL, ClickHouse, Spark and
MariaDB. The queries for BigQuery, Snowflake and Trino are parsed in their dialect, but unverified
on the engine itself; so is MySQL, which gets the same query as MariaDB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from abkit.audit.condition import kinds_of
from abkit.audit.dialects import DIALECTS, dialect_of
from abkit.audit.query import Query
from abkit.bucketing.scheme import is_vendor
from abkit.errors import ConfigError
from abkit.records import check_choice

if TYPE_CHECKING:
    from collections.abc import Iterable

    from abkit.experiment import Experiment
    from abkit.layer import Holdout, Layer

__all__ = ["DIALECTS", "audit_sql"]


def audit_sql(
    experiment: Experiment,
    dialect: str,
    *,
    table: str = "units",
    unit: str = "unit_id",
    layers: Iterable[Layer] = (),
    holdouts: Iterable[Holdout] = (),
    targeting: Literal["sql", "ignore"] = "sql",
) -> str:
    """A query that assigns every unit of a table exactly as abkit does.

    One row per row of the table: `unit_id`, `variant`, `reason`, and `bucket`, which is null
    where no hash decided. What sticky experiments remember and what a test forces is the
    client's, and not known to it.

    Args:
        experiment: whose assignments; its hash must be abkit's own.
        dialect: one of `DIALECTS`.
        table: where the units are, with up to three qualifiers, such as "schema.units". Names
            are quoted as they stand, so write them in the case that the engine stores.
        unit: the column with the unit_id, of text or whole numbers.
        layers: the experiment's layer; others are passed over.
        holdouts: the experiment's holdouts; others are passed over.
        targeting: "sql" compiles the condition over columns named like the attributes, null
            where an attribute is absent. A column must be of text, of truth values, or of whole
            numbers or doubles, as the tests on it are. "ignore" audits only the hashes: units
            that targeting keeps out get the variant that their bucket says.

    Raises:
        ConfigError: a vendor's hash, targeting that SQL cannot tell exactly, a name that is no
            lawful identifier, or a layer or holdout that was not passed.

    Examples:
        >>> from abkit.experiment import Experiment
        >>> ranker = Experiment.create("ranker", {"old": 0.5, "new": 0.5}, salt="s1")
        >>> print(audit_sql(ranker, "duckdb").splitlines()[0])
        -- abkit ...: audit of experiment ranker, epoch 1, in duckdb.
    """
    engine = dialect_of(dialect)
    where = f"experiment {experiment.key!r}"
    check_choice(where, "targeting", targeting, ("sql", "ignore"))
    layer, held = _around(experiment, layers, holdouts)
    hashes = {where: experiment.hash}
    if layer is not None:
        hashes[f"layer {layer.key!r}"] = layer.hash
    for owner, name in hashes.items():
        if is_vendor(name):
            raise ConfigError(
                f"{owner}: SQL cannot audit the vendor's hash {name!r}; assign the units in Python "
                "and import the result into the warehouse"
            )
    targeted = experiment.state == "running" and targeting == "sql"
    condition = experiment.targeting if targeted else None
    return Query(
        experiment=experiment,
        engine=engine,
        table=engine.table(table),
        unit=engine.identifier(unit, "unit column"),
        layer=layer,
        holdouts=held,
        condition=condition,
        kinds={} if condition is None else kinds_of(condition, where),
    ).text()


def _around(
    experiment: Experiment, layers: Iterable[Layer], holdouts: Iterable[Holdout]
) -> tuple[Layer | None, tuple[Holdout, ...]]:
    """The experiment's own layer and holdouts."""
    layer_of = {item.key: item for item in layers}
    holdout_of = {item.key: item for item in holdouts}
    wanted = [("layer", experiment.layer)] if experiment.layer else []
    wanted += [("holdout", key) for key in experiment.holdouts]
    for what, key in wanted:
        if key not in (layer_of if what == "layer" else holdout_of):
            raise ConfigError(
                f"experiment {experiment.key!r} is in {what} {key!r}, which its audit needs; "
                f"pass {what}s=[...] with it"
            )
    return layer_of.get(experiment.layer), tuple(holdout_of[key] for key in experiment.holdouts)
