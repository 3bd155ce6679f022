"""The decision as others read it: one flat record, in which nothing is ever null or NaN.

It joins two sources. The state file says where the rollout stands and always wins where it is
over; the newest decision record says what the judge saw. What others act on is `action`:

| the rollout | action |
|---|---|
| draft, or no look in this stage yet, or fewer units than the stage needs | insufficient_data |
| hold, ready (waits for a person), bake (watched) | continue |
| its last look said advance, promote or halt | the same |
| halted, rolled back | halt |
| promoted | promote |
| superseded by a later rollout | continue |

A caller that says at which weight it stands itself gets an answer for that weight: `advance` as
long as the rollout stands higher. Without it, an `advance` is told until the next look.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from abkit.decision import evidence_on, leading_arm
from abkit.observation import Observation
from abkit.rollout import Rollout

if TYPE_CHECKING:
    from collections.abc import Mapping

    from abkit.server.board import Board

# As in the controller, which is not imported: a server must do without DuckDB.
SCHEMA = "abkit.decision/v1"
Word = Literal["insufficient_data", "continue", "advance", "promote", "halt"]
WORDS: Mapping[Word, int] = {
    "insufficient_data": 0,
    "continue": 0,
    "advance": 1,
    "promote": 2,
    "halt": -1,
}
STALE_SECONDS = 300.0
_NEAR = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What to do with a rollout now.

    Args:
        rollout: key of the rollout.
        state: where it stands.
        action: what to do.
        code: the same as a number: -1 halt, 0 nothing, 1 advance, 2 promote.
        weight: percent of units that treatment answers.
        next_weight: the same after the action that comes next, if it is a good one.
        evalue_harm: the largest e-value of a guardrail against "not worse"; 1 without evidence. Of
            several treatments this and the next are about the one that is ahead.
        evalue_noninf: the smallest e-value of a guardrail for "not worse"; 1 without evidence.
        decision_id: of the record that this rests on; empty where none does.
        reason: why, in words.
        schema: of this record.
    """

    rollout: str
    state: str
    action: Word
    code: int
    weight: float
    next_weight: float
    evalue_harm: float = 1.0
    evalue_noninf: float = 1.0
    decision_id: str = ""
    reason: str
    schema: str = SCHEMA

    def to_dict(self) -> dict[str, Any]:
        """Plain data, the schema first."""
        data = asdict(self)
        return {"schema": data.pop("schema"), **data}


async def verdict_of(board: Board, key: str, *, at_weight: float | None = None) -> Verdict:
    """What to do with a rollout now.

    Args:
        board: what is known.
        key: of the rollout.
        at_weight: percent at which the caller stands itself; None if it follows this rollout.

    Raises:
        Problem: there is no such rollout, or its state file is damaged.
    """
    await board.refresh()
    rollout, record = board.rollout(key), board.record(key)
    known = board.verdicts.get(key)
    if known is None or known[0] is not rollout or known[1] is not record:
        known = rollout, record, _verdict(rollout, record)
        board.verdicts[key] = known
    found = known[2]
    if at_weight is not None:
        found = _seen_from(found, rollout, at_weight)
    notes = [board.store_error] if board.store_error else []
    if rollout.live and not notes and board.overview is not None:
        age = board.clock() - board.overview.published
        if age > STALE_SECONDS:
            notes = [f"the controller published last {age:.0f} s ago"]
    if not notes:
        return found
    reason = f"{found.reason} ({notes[0]}; this is what the state file and the last reading say)"
    return _changed(found, reason=reason)


def _verdict(rollout: Rollout, record: Mapping[str, Any] | None) -> Verdict:
    said, own = _said(rollout, record)
    evidence = _evidence(record)
    if said == "halt" or not rollout.live:
        return _over(rollout, said, own, evidence)
    share = 100.0 * rollout.last_share
    if rollout.state == "hold":
        return _made(rollout, "continue", share, share, f"on hold: {rollout.reason}", **evidence)
    if rollout.state == "ready":
        reason = f"ready: a person must promote it; {own or rollout.reason}"
        return _made(rollout, "continue", share, 100.0, reason, **evidence)
    if not said:
        return _made(rollout, "insufficient_data", share, _next(rollout), _unseen(rollout))
    if said == "moved":  # the look itself has moved the rollout: tell it from where it was
        before = 100.0 * _share_in((record or {}).get("rollout_state", {}))
        return _made(rollout, "advance", before, share, own, **evidence)
    word: Word = "continue" if said == "hold" else said  # type: ignore[assignment]
    if word == "continue" and _is_scarce(record):
        word = "insufficient_data"
    following = share if said == "hold" else _next(rollout)
    return _made(rollout, word, share, following, own, **evidence)


def share_of(rollout: Rollout) -> float:
    """Share of units that treatment answers now, in [0, 1]."""
    is_back = rollout.state in ("halted", "rolled_back") and rollout.owns
    return 0.0 if is_back or rollout.state == "draft" else rollout.last_share


def _over(rollout: Rollout, said: str, own: str, evidence: Mapping[str, Any]) -> Verdict:
    """The verdict on a rollout that nothing more can come of, or has yet to begin."""
    share = 100.0 * share_of(rollout)
    unsigned = {**evidence, "decision_id": ""}  # a person's word, which no record holds
    if rollout.state in ("halted", "rolled_back"):
        known = evidence if said == "halt" else unsigned
        return _made(rollout, "halt", share, 0.0, rollout.reason, **known)
    if rollout.state == "promoted":
        known = evidence if said == "promote" else unsigned
        return _made(rollout, "promote", share, share, rollout.reason, **known)
    if rollout.state == "superseded":
        return _made(rollout, "continue", share, share, rollout.reason)
    if said == "halt":
        return _made(rollout, "halt", share, 0.0, own, **evidence)
    return _made(rollout, "insufficient_data", 0.0, _next(rollout), _unseen(rollout))


def _said(rollout: Rollout, record: Mapping[str, Any] | None) -> tuple[str, str]:
    """The action of the newest record, as far as it is about where the rollout is now.

    Returns:
        "" if it is about another stage, "moved" if it began this stage; and its reason.
    """
    if record is None:
        return "", ""
    action, reason = str(record.get("action", "")), str(record.get("reason", ""))
    seen = record.get("rollout_state")
    if action not in ("continue", "hold", "advance", "promote", "halt") or not seen:
        return "", ""
    if action == "halt":
        return action, reason
    moved = rollout.version - int(seen.get("version", 0))
    if action == "advance" and _share_in(seen) < rollout.last_share:
        return ("moved", reason) if moved == 1 else ("", "")
    if action == "promote" and moved <= 1 and rollout.state in ("promoted", "ready"):
        return action, reason
    is_here = seen.get("stage_index") == rollout.stage_index
    is_same = (seen.get("state") == "bake") == (rollout.state == "bake")
    # Resumed by a person since: what was said before the hold is settled.
    is_settled = action == "hold" and moved > 1
    return (action, reason) if is_here and is_same and not is_settled else ("", "")


def _share_in(state: Mapping[str, Any]) -> float:
    """Share of units that treatment answered in the state of a record, in [0, 1]."""
    try:
        shares = state["allocations"][-1][1]
        arms = (state["treatment"], *state.get("rivals", ()))
        return min(1.0, max(0.0, float(sum(shares.get(arm, 0.0) for arm in arms))))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return 0.0


def _seen_from(found: Verdict, rollout: Rollout, weight: float) -> Verdict:
    """The verdict for a caller that stands at a weight of its own, in percent."""
    share = 100.0 * rollout.last_share
    if found.code in (-1, 2) or rollout.state in ("hold", "superseded", "draft"):
        return _changed(found, weight=weight)
    if share > weight + _NEAR:
        reason = f"the rollout stands at {share:g} %, above {weight:g} %: {found.reason}"
        return _changed(
            found, action="advance", code=1, weight=weight, next_weight=share, reason=reason
        )
    if weight > share + _NEAR:
        reason = f"the rollout stands at {share:g} %, below {weight:g} %: {found.reason}"
        return _changed(
            found, action="continue", code=0, weight=weight, next_weight=weight, reason=reason
        )
    if found.action == "advance" and found.next_weight <= share + _NEAR:
        # It has come to this weight, and nothing has been seen here yet.
        return _changed(
            found,
            action="insufficient_data",
            code=0,
            weight=share,
            next_weight=_next(rollout),
            reason=_unseen(rollout),
        )
    return found


def _changed(found: Verdict, **changes: Any) -> Verdict:
    for name in changes.keys() & {"weight", "next_weight"}:
        changes[name] = _rounded(changes[name])
    return Verdict(**{**asdict(found), **changes})


def _made(
    rollout: Rollout, action: Word, weight: float, following: float, reason: str, **known: Any
) -> Verdict:
    return Verdict(
        rollout=rollout.key,
        state=rollout.state,
        action=action,
        code=WORDS[action],
        weight=_rounded(weight),
        next_weight=_rounded(following),
        reason=reason or rollout.state,
        **known,
    )


def _evidence(record: Mapping[str, Any] | None) -> dict[str, Any]:
    if record is None:
        return {}
    harm, noninf = guardrail_e_values(record, leading_arm(record))
    decision_id = str(record.get("decision_id", ""))
    return {"evalue_harm": harm, "evalue_noninf": noninf, "decision_id": decision_id}


def guardrail_e_values(record: Mapping[str, Any], arm: str) -> tuple[float, float]:
    """Of a treatment's guardrails: the largest e-value of harm, the smallest of not worse."""
    rules = [item for item in evidence_on(record, arm) if item.get("role") == "guardrail"]
    return (
        max((_finite(item.get("e_harm")) for item in rules), default=1.0),
        min((_finite(item.get("e_promote")) for item in rules), default=1.0),
    )


def _is_scarce(record: Mapping[str, Any] | None) -> bool:
    """Whether the stage had not met the units it needs when the record was made."""
    if record is None:
        return True
    try:
        rollout = Rollout.from_dict(record["rollout_state"])
        observation = Observation.from_dict(record["observation"])
    except (KeyError, TypeError, ValueError):
        return False
    if rollout.state == "bake":
        return False
    stage = rollout.stage
    units = observation.units(rollout.last_epoch, rollout.treatment)
    units = units if observation.live is None else observation.live
    units = min((units, *observation.lives.values()))
    if stage.mode == "shadow":
        pairs = [observation.pairs.get(metric) for metric in stage.requires]
        units = min(
            (0 if pair is None else pair.difference.n for pair in pairs),
            default=observation.units(rollout.last_epoch, rollout.control),
        )
    return units < max(stage.min_units, 1)


def _next(rollout: Rollout) -> float:
    """Percent after the next good move."""
    if rollout.mode == "dry_run":
        return 100.0 * rollout.last_share  # somebody else's split
    if rollout.state == "draft":
        return 100.0 * rollout.stages[0].share
    if rollout.growing:  # at least: how far it may grow, the next look says
        return 100.0 * min(2.0 * rollout.last_share, rollout.top_share)
    if rollout.state in ("ready", "bake") or rollout.stage_index + 1 >= len(rollout.stages):
        return 100.0
    return 100.0 * rollout.stages[rollout.stage_index + 1].share


def _unseen(rollout: Rollout) -> str:
    if rollout.state == "draft":
        return "a draft: it has not been started"
    if rollout.state == "bake":
        return "promoted, and not looked at since"
    return f"no look has been taken in stage {rollout.stage.name!r} yet"


def _finite(value: object) -> float:
    """An e-value that JSON and other people's conditions can hold."""
    if not isinstance(value, (int, float)) or value != value:  # noqa: PLR0124 - NaN, of any size
        return 1.0
    return float(min(max(value, 0.0), sys.float_info.max))


def _rounded(percent: float) -> float:
    """Percent without the dust of floats, whole where it is whole."""
    number = round(percent, 6)
    return int(number) if number == int(number) else number
