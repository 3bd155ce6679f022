"""The order of evaluation as stages of a DuckDB relation.

Each stage adds what it decides to the column of codes, and leaves alone what an earlier one has
decided. A hash is most of the cost of a row, so it is worked out in a stage of its own, once, and
only for rows that are still open: DuckDB evaluates CASE and COALESCE for the rows that need it.
Digests are compared as hex text with a threshold's 13 digits; a digest that begins with all of
them is longer, and so not smaller.

Data never becomes part of a query's text by hand: values are DuckDB's constant expressions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import duckdb
from duckdb import CaseExpression as Case
from duckdb import CoalesceOperator as Coalesce
from duckdb import ColumnExpression as Column
from duckdb import ConstantExpression as Constant
from duckdb import FunctionExpression as Function
from duckdb import StarExpression as Star

from abkit.assignment import MAX_UNIT_CHARACTERS
from abkit.bucketing import SPACE, threshold
from abkit.bulk.plan import INVALID, Plan, codes_where
from abkit.layer import HELD_OUT
from abkit.ranges import widths

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from duckdb import DuckDBPyRelation, Expression

    from abkit.ranges import Range

HEX_DIGITS = 13
_FUNCTIONS = {"abkit-v1": "md5", "sha256": "sha256"}
_ROLLOUT_DIGITS = 17  # the first digit of the second uniform, counted from one


@dataclass(frozen=True, slots=True)
class Stages:
    """A relation on its way, with the names of the columns at work.

    Args:
        relation: has the column of texts, and after the first stage the column of codes.
        text: column of the units as text, NULL where a value is no unit.
        code: column of the codes, NULL where a row is still open.
        digest: column of the digest at work.
    """

    relation: DuckDBPyRelation
    text: str
    code: str
    digest: str

    def start(self, plan: Plan, given: Expression | None) -> Stages:
        """Decide what is no unit, and the overrides: `given` is their code, or NULL."""
        text = Column(self.text)
        size = Function("strlen", text)  # in bytes, at least as many as characters
        limit = Constant(MAX_UNIT_CHARACTERS)
        long = (size > limit) & (Function("length", text) > limit)
        decided = Case(text.isnull() | (size == Constant(0)) | long, Constant(INVALID))
        if plan.experiment.state != "running":
            decided = decided.otherwise(Constant(plan.out(plan.experiment.state)))
        elif given is not None:
            decided = decided.otherwise(given)
        return self._with(decided.cast("INTEGER").alias(self.code))

    def hashed(self, salt: str, hash_name: str) -> Stages:
        """Work out the digest of the rows that are still open."""
        salted = Function("concat", Constant(f"{salt}:"), Column(self.text))
        digest = Function(_FUNCTIONS[hash_name], salted)
        open_only = Case(Column(self.code).isnull(), digest).alias(self.digest)
        return self._with(open_only)

    def decide(self, then: Expression) -> Stages:
        """Give open rows this code, which may be NULL to leave them open."""
        code = Coalesce(Column(self.code), then).alias(self.code)
        rest = Star(exclude=[self.code])
        return replace(self, relation=self.relation.select(rest, code))

    def forget(self) -> Stages:
        """Drop the digest at work, so that another may take its place."""
        return replace(self, relation=self.relation.select(Star(exclude=[self.digest])))

    def _with(self, column: Expression) -> Stages:
        return replace(self, relation=self.relation.select(Star(), column))


def decide_all(
    stages: Stages, plan: Plan, *, given: Expression | None = None, met: Expression | None = None
) -> Stages:
    """The whole order of evaluation; every row has a code in the end.

    Args:
        stages: a relation with the column of texts.
        plan: the experiment.
        given: code of the unit's override, or NULL; None where there are no overrides.
        met: whether the row meets the targeting; None where that is no question.
    """
    item = plan.experiment
    stages = stages.start(plan, given)
    if item.state != "running":
        return stages
    for key in item.holdouts:
        holdout = plan.bound.holdouts[key]
        out = Case(_within(stages.digest, holdout.ranges, HELD_OUT), Constant(plan.out("holdout")))
        stages = stages.hashed(holdout.salt, "abkit-v1").decide(out).forget()
    if item.layer:
        layer = plan.bound.layers[item.layer]
        inside = _within(stages.digest, layer.ranges, item.key)
        out = Case(inside, Constant(None)).otherwise(Constant(plan.out("layer")))
        stages = stages.hashed(layer.salt, layer.hash).decide(out).forget()
    if met is not None:
        stages = stages.decide(Case(~met, Constant(plan.out("targeting"))))
    gate = threshold(item.rollout)
    own = bool(item.rollout_salt)
    if gate < SPACE and own:
        out = Case(~_in_rollout(stages.digest, gate), Constant(plan.out("rollout")))
        stages = stages.hashed(item.rollout_salt, item.hash).decide(out).forget()
    codes = {name: plan.code(name, "split") for name in widths(item.ranges)}
    outside = Constant(plan.out("rollout"))
    choice = _by_range(stages.digest, item.ranges, lambda name: Constant(codes[name]), outside)
    if gate < SPACE and not own:
        inside = _in_rollout(stages.digest, gate)
        choice = Case(inside, choice).otherwise(outside)
    return stages.hashed(item.salt, item.hash).decide(choice).forget()


def bucket(stages: Stages, plan: Plan) -> Expression:
    """The bucket that decides the variant, NULL where none was needed."""
    item = plan.experiment
    salted = Function("concat", Constant(f"{item.salt}:"), Column(stages.text))
    digest = Function(_FUNCTIONS.get(item.hash, "md5"), salted)
    digits = Function("left", digest, Constant(HEX_DIGITS))
    number = Function("concat", Constant("0x"), digits).cast("BIGINT")
    hashed = codes_where(plan, ("split", "rollout"))
    return Case(has_code(stages.code, hashed), number)


def has_code(code: str, codes: Collection[int]) -> Expression:
    """Whether the column holds one of these codes."""
    if not codes:
        return Constant(value=False)
    return Column(code).isin(*map(Constant, codes))


def given_in_sql(text: str, plan: Plan) -> Expression | None:
    """The code of a unit's override as an expression, for relations that stay lazy."""
    units: dict[int, list[str]] = {}
    for unit, code in plan.overrides.items():
        units.setdefault(code, []).append(unit)
    # As bytes: the column may have a collation under which other texts are equal.
    raw = Function("encode", Column(text))
    found = [
        Case(raw.isin(*(Constant(name.encode()) for name in names)), Constant(code))
        for code, names in units.items()
    ]
    return Coalesce(*found) if found else None


def _hex(bucket: int) -> Expression:
    return Constant(f"{bucket:0{HEX_DIGITS}x}")


def _within(digest: str, ranges: Iterable[Range], owner: str) -> Expression:
    """Whether the digest's bucket lies in one of the ranges of this owner."""
    return _by_range(digest, ranges, lambda name: Constant(name == owner), Constant(value=False))


def _in_rollout(digest: str, gate: int) -> Expression:
    return Function("substring", Column(digest), Constant(_ROLLOUT_DIGITS)) < _hex(gate)


def _by_range(
    digest: str, ranges: Iterable[Range], of: Callable[[str], Expression], outside: Expression
) -> Expression:
    """What belongs to the owner of the range that the digest's bucket is in, or `outside`."""
    steps: list[tuple[int, Expression]] = []
    lower = 0
    for part in ranges:
        if lower < part.lower:
            steps.append((part.lower, outside))
        steps.append((part.upper, of(part.variant)))
        lower = part.upper
    last = steps.pop()[1] if lower == SPACE else outside
    choice: Any = None
    for upper, value in steps:
        below = Column(digest) < _hex(upper)
        choice = Case(below, value) if choice is None else choice.when(below, value)
    return last if choice is None else choice.otherwise(last)


def connect() -> duckdb.DuckDBPyConnection:
    """A connection of our own, which keeps the order of rows and fetches no extensions."""
    return duckdb.connect(
        config={"autoinstall_known_extensions": "false", "preserve_insertion_order": "true"}
    )
