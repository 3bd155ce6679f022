"""A shadow's predictions beside those that readers see, entity by entity."""

from __future__ import annotations

import math
from dataclasses import dataclass

from abkit.batch.database import Database, quoted
from abkit.batch.versions import find_version
from abkit.errors import ConfigError

_Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Comparison:
    """What two models said of the same entities.

    Args:
        name: of the predictions.
        version: that holds both.
        pairs: entities with both predictions.
        unpaired: entities with one of them only.
        equal: pairs in which both say the same.
        mean: of the predictions that readers see.
        shadow_mean: of the shadow's.
        difference: mean of shadow minus seen.
        interval: 95 % confidence interval of it, by the central limit theorem.
        largest: largest absolute difference.
        correlation: of the pairs; None where one of them is constant.
    """

    name: str
    version: int
    pairs: int
    unpaired: int
    equal: int
    mean: float
    shadow_mean: float
    difference: float
    interval: tuple[float, float]
    largest: float
    correlation: float | None


def compare(database: Database, name: str, version: int | None = None) -> Comparison:
    """Compare a shadow's predictions with those of the model that answers.

    Args:
        database: where they are.
        name: of the predictions.
        version: scored with a shadow; the newest by default.

    Raises:
        ConfigError: there is no such version, or it has no shadow.
    """
    with database.reading() as connection:
        item = find_version(connection, name, version)
        if not any(key.startswith("shadow ") for key in item.models):
            raise ConfigError(f"{name!r} version {item.version} was scored without a shadow")
        (row,) = connection.execute(
            "SELECT count(d), count(*) - count(d), count(*) FILTER (d = 0), "  # noqa: S608
            "avg(prediction) FILTER (d IS NOT NULL), avg(shadow_prediction) FILTER "
            "(d IS NOT NULL), avg(d), stddev_samp(d), max(abs(d)), "
            "stddev_pop(prediction), stddev_pop(shadow_prediction), "
            "covar_pop(prediction, shadow_prediction) FROM (SELECT *, "
            f"shadow_prediction - prediction AS d FROM {quoted(item.table)})"
        ).fetchall()
    pairs, unpaired, equal, mean, dark, difference, spread, largest, a, b, both = row
    if not pairs:
        raise ConfigError(f"{name!r} version {item.version} has no entity with both predictions")
    half = _Z95 * (spread or 0.0) / math.sqrt(pairs) if pairs > 1 else math.inf
    return Comparison(
        name,
        item.version,
        *(pairs, unpaired, equal, mean, dark, difference),
        (difference - half, difference + half),
        largest,
        both / (a * b) if a and b else None,
    )
