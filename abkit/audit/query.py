"""The text of an audit: units, their hashes, why, and what they get, one step after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from abkit import __version__
from abkit.assignment import MAX_UNIT_CHARACTERS
from abkit.audit.condition import condition_sql
from abkit.bucketing import SPACE, threshold
from abkit.ranges import gaps

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from abkit.audit.condition import Kind
    from abkit.audit.dialects import Dialect
    from abkit.experiment import Experiment
    from abkit.layer import Holdout, Layer
    from abkit.targeting import Condition

_SPLIT_DIGIT = 1
_ROLLOUT_DIGIT = 17


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """All that an audit is written from; everything is checked before.

    Args:
        experiment: whose assignments.
        engine: the engine that will run it.
        table: quoted name of the table of units.
        unit: quoted name of the column with the unit_id.
        layer: the experiment's layer, if it is in one.
        holdouts: the experiment's holdouts.
        condition: targeting, as far as it is audited.
        kinds: type of the column of each attribute in the condition.
    """

    experiment: Experiment
    engine: Dialect
    table: str
    unit: str
    layer: Layer | None
    holdouts: tuple[Holdout, ...]
    condition: Condition | None
    kinds: Mapping[str, Kind]

    def text(self) -> str:
        """The query, with a comment before it."""
        if self.experiment.state == "running":
            steps = [self._units(), *self._hashes(), *self._reasons(), *self._result()]
        else:
            steps = [self._units(), *self._off()]
        return "\n".join([*self._notes(), *steps]) + "\n"

    def _notes(self) -> list[str]:
        key, epoch, name = self.experiment.key, self.experiment.epoch, self.engine.name
        # No quotes in comments: there are clients that would look for the second one.
        notes = [f"abkit {__version__}: audit of experiment {key}, epoch {epoch}, in {name}"]
        if self.experiment.state == "running":
            notes.append(
                "A bucket is 52 bits of a hash, here as 13 hex digits: as text they sort as numbers"
            )
            if self.experiment.sticky:
                notes.append("Sticky, but read as if nobody had met a variant before")
            if self.experiment.targeting is not None and self.condition is None:
                notes.append("Targeting is left out: whom it keeps out is not shown")
        return [f"-- {note}." for note in notes]

    def _units(self) -> str:
        """First step: what is hashed and tested, free of collations."""
        columns = [f"source.{self.unit} as unit_id"]
        columns.append(
            f"{self._plain(self.engine.as_text.format(x=f'source.{self.unit}'))} as unit"
        )
        if self.experiment.state == "running":
            for name, kind in self.kinds.items():
                given = f"source.{self.engine.identifier(name, 'attribute')}"
                value = self._plain(given) if kind == "text" else given
                columns.append(f"{value} as {self._column(name)}")
        return f"with abkit_unit as (\n{_select(columns, f'{self.table} as source')}\n),"

    def _hashes(self) -> Iterable[str]:
        """Second step: the digits of every hash that anything below compares."""
        experiment = self.experiment
        columns = ["unit_id", "unit", *map(self._column, self.kinds)]
        if experiment.overrides:
            columns.append(f"{self._override()} as override_variant")
        for number, holdout in enumerate(self.holdouts, 1):
            digits = self._digits(holdout.salt, "abkit-v1", _SPLIT_DIGIT)
            columns.append(f"{digits} as holdout_{number}_digits")
        if self.layer is not None:
            digits = self._digits(self.layer.salt, self.layer.hash, _SPLIT_DIGIT)
            columns.append(f"{digits} as layer_digits")
        if threshold(experiment.rollout) < SPACE:
            salt = experiment.rollout_salt or experiment.salt
            digits = self._digits(salt, experiment.hash, _ROLLOUT_DIGIT)
            columns.append(f"{digits} as rollout_digits")
        digits = self._digits(experiment.salt, experiment.hash, _SPLIT_DIGIT)
        columns.append(f"{digits} as split_digits")
        yield f"abkit_hash as (\n{_select(columns, 'abkit_unit')}\n),"

    def _reasons(self) -> Iterable[str]:
        """Third step: the first thing that decides about a unit, in the compiler's order."""
        experiment = self.experiment
        cases = [self._invalid()]
        if experiment.overrides:
            cases.append("when override_variant is not null then 'override'")
        for number, holdout in enumerate(self.holdouts, 1):
            held = _within(f"holdout_{number}_digits", [(0, threshold(holdout.share))])
            cases.append(f"when {held} then 'holdout' -- {holdout.key}")
        if self.layer is not None:
            own = [(r.lower, r.upper) for r in self.layer.ranges if r.variant == experiment.key]
            inside = _within("layer_digits", own)
            cases.append(f"when not {inside} then 'layer' -- {self.layer.key}")
        if self.condition is not None:
            column_of = {name: self._column(name) for name in self.kinds}
            met = condition_sql(self.condition, column_of, self.engine, 6)
            cases.append(f"when not {met} then 'targeting'")
        gate = threshold(experiment.rollout)
        if gate < SPACE:
            outside = _within("rollout_digits", [(gate, SPACE)])
            cases.append(f"when {outside} then 'rollout' -- {experiment.rollout:g} of all units")
        free = gaps(experiment.ranges)
        if free:
            cases.append(f"when {_within('split_digits', free)} then 'rollout' -- free buckets")
        reason = _case([*cases, "else 'split'"])
        columns = ["unit_id", *(["override_variant"] if experiment.overrides else [])]
        columns += ["split_digits", f"{reason} as reason"]
        yield f"abkit_reason as (\n{_select(columns, 'abkit_hash')}\n)"

    def _result(self) -> Iterable[str]:
        """Last step: the variant, and the bucket where it was looked at."""
        experiment = self.experiment
        *firsts, last = experiment.ranges
        cases = ["when reason = 'override' then override_variant"] if experiment.overrides else []
        cases.append(f"when reason <> 'split' then '{experiment.control}'")
        # The gaps between ranges are dealt with: upper ends suffice.
        cases += [f"when split_digits < '{_hex(r.upper)}' then '{r.variant}'" for r in firsts]
        variant = _case([*cases, f"else '{last.variant}'"], 2)
        bucket = self.engine.bucket.format(x="split_digits")
        hashed = f"case when reason in ('split', 'rollout') then {bucket} end"
        columns = ["unit_id", f"{variant} as variant", "reason", f"{hashed} as bucket"]
        yield _select(columns, "abkit_reason", 0)

    def _off(self) -> Iterable[str]:
        """The two steps of an experiment that is killed or a draft: nothing is hashed."""
        cases = [self._invalid(), f"else '{self.experiment.state}'"]
        columns = ["unit_id", f"{_case(cases)} as reason"]
        yield f"abkit_reason as (\n{_select(columns, 'abkit_unit')}\n)"
        control, none = f"'{self.experiment.control}'", self.engine.no_bucket
        columns = ["unit_id", f"{control} as variant", "reason", f"{none} as bucket"]
        yield _select(columns, "abkit_reason", 0)

    def _invalid(self) -> str:
        long = f"{self.engine.length.format(x='unit')} > {MAX_UNIT_CHARACTERS}"
        tests = ["unit is null", "unit = ''", long]
        if self.engine.malformed:
            tests.append(self.engine.malformed.format(x="unit"))
        return f"when {' or '.join(tests)} then 'invalid_unit'"

    def _override(self) -> str:
        units: dict[str, list[str]] = {}
        for unit_id, variant in self.experiment.overrides.items():
            units.setdefault(variant, []).append(self.engine.literal(unit_id))
        return _case(
            [f"when unit in ({', '.join(some)}) then '{name}'" for name, some in units.items()]
        )

    def _digits(self, salt: str, hash_name: str, first: int) -> str:
        template = self.engine.md5 if hash_name == "abkit-v1" else self.engine.sha256
        hashed = template.format(x=f"concat('{salt}:', unit)")
        return self.engine.digits.format(x=hashed, first=first)

    def _plain(self, text: str) -> str:
        return self.engine.text.format(x=text)

    def _column(self, attribute: str) -> str:
        name = self.engine.identifier(attribute, "attribute")
        return f"{name[0]}attribute_{name[1:]}"


def _hex(bucket: int) -> str:
    return f"{bucket:013x}"


def _within(digits: str, intervals: Iterable[tuple[int, int]]) -> str:
    """Whether digits lie in one of the bucket intervals [lower, upper)."""
    tests = []
    for lower, upper in intervals:
        if lower >= upper:
            continue
        ends = [f"{digits} >= '{_hex(lower)}'"] if lower else []
        ends += [f"{digits} < '{_hex(upper)}'"] if upper < SPACE else []
        tests.append(" and ".join(ends) or "true")
    return f"({' or '.join(tests) or 'false'})"


def _case(cases: Iterable[str], depth: int = 4) -> str:
    indent = " " * depth
    return "\n".join(["case", *(f"{indent}  {case}" for case in cases), f"{indent}end"])


def _select(columns: Iterable[str], table: str, depth: int = 2) -> str:
    indent = " " * depth
    listed = f",\n{indent}  ".join(columns)
    return f"{indent}select\n{indent}  {listed}\n{indent}from {table}"
