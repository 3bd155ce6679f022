"""A judge that goes on from a checkpoint decides what one that replays everything does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st

from abkit.controller import decision_record
from abkit.decision import Guardrail, Objective, Policy
from abkit.judge import JudgeState, judge, taken_again
from abkit.judge.checkpoint import Checkpoint
from abkit.machine import advance, start
from abkit.metrics import Metric
from abkit.moments import Moments
from abkit.observation import Observation
from abkit.rollout import Ramp, Rollout, Stage

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

METRICS = (
    Metric(key="error", kind="proportion", direction="decrease"),
    Metric(key="slow", source="latency", above=200.0, direction="decrease"),
    Metric(key="latency", direction="decrease"),
)
POLICY = Policy(
    guardrails=(
        Guardrail(metric="error"),
        Guardrail(metric="slow", test="limit", limit=0.2),
        Guardrail(metric="latency", test="difference", margin=20.0),
    ),
    objectives=(Objective(metric="latency"),),
)
STAGES = (Stage(name="30 %", share=0.3, min_units=300), Stage(name="60 %", share=0.6))
increments = st.lists(
    st.tuples(*[st.integers(0, 60)] * 4, st.floats(50, 400), st.integers(1, 3_000)),
    min_size=1,
    max_size=12,
)


def walked(news: list[tuple[Any, ...]], *, is_ramp: bool) -> list[dict[str, Any]]:
    """Records of looks at a rollout, as they stand in a store."""
    grows: dict[str, Any] = {"ramp": Ramp(requests_per_second=9.0, start_share=0.1)}
    plan = Rollout.plan(
        "r",
        experiment="x",
        control="old",
        treatment="new",
        salt="s",
        policy=POLICY,
        metrics=METRICS,
        **(grows if is_ramp else {"stages": STAGES}),
    )
    rollout, state, now = start(plan, now=0.0, epoch=1), JudgeState(), 0.0
    cells: dict[int, tuple[int, int, int, int]] = {}
    records: list[dict[str, Any]] = []
    for *counts, latency, seconds in news:
        now += seconds
        before = cells.get(rollout.last_epoch, (0, 0, 0, 0))
        n, m, x, y = (a + b for a, b in zip(before, counts, strict=True))
        cells[rollout.last_epoch] = (n, m, min(x, n), min(y, m))
        seen = observed(cells, latency, now)
        decision, state = judge(rollout, state, seen)
        moved = advance(rollout, decision, now=now)
        look = len(records) + 1
        record = decision_record(rollout, moved, decision, seen, look=look, watermark={"a": look})
        records.append(json.loads(json.dumps(record)))
        rollout = moved
        if not rollout.live:
            break
    return records


def observed(cells: dict[int, tuple[int, int, int, int]], latency: float, now: float) -> Any:
    exposures = {epoch: {"old": n, "new": m} for epoch, (n, m, _, _) in cells.items()}
    bad = {
        epoch: {"old": Moments.of_counts(n, x), "new": Moments.of_counts(m, y)}
        for epoch, (n, m, x, y) in cells.items()
    }
    spent = {
        epoch: {"old": Moments(n, latency, 90.0 * n), "new": Moments(m, 0.9 * latency, 90.0 * m)}
        for epoch, (n, m, _, _) in cells.items()
    }
    values = {"error": bad, "slow": bad, "latency": spent}
    newest = max(cells)
    return Observation(now, exposures, values, {}, {newest: exposures[newest]}, cells[newest][1])


@settings(max_examples=60)
@given(news=increments, is_ramp=st.booleans(), place=st.integers(0, 11))
def test_going_on_from_a_checkpoint_is_replaying_everything(
    tmp_path_factory: pytest.TempPathFactory,
    news: list[tuple[Any, ...]],
    place: int,
    *,
    is_ramp: bool,
) -> None:
    records = walked(news, is_ramp=is_ramp)
    whole = list(taken_again(records))
    at = min(place, len(records) - 1)
    path = tmp_path_factory.mktemp("c") / "r.judge.json"
    record, _, state = whole[at]
    assert Checkpoint("r", at + 1, record["decision_id"], state).write(path)
    kept = Checkpoint.read(path, rollout="r")
    assert kept is not None
    assert kept.state == state
    rest = list(taken_again(records[at + 1 :], kept.state))
    assert [item[1:] for item in rest] == [item[1:] for item in whole[at + 1 :]]


@given(data=st.data())
def test_a_checkpoint_that_was_changed_anywhere_is_not_used(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path: Path = tmp_path_factory.mktemp("c") / "r.judge.json"
    records = walked([(50, 40, 5, 4, 120.0, 60)], is_ramp=True)
    state = next(iter(taken_again(records)))[2]
    Checkpoint("r", 1, records[0]["decision_id"], state).write(path)
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] = data.draw(st.integers(33, 126).filter(lambda x: x != content[place]))
    path.write_bytes(content)
    kept = Checkpoint.read(path, rollout="r")
    assert kept is None or kept.state == state  # such as 1e5 for 1E5
    path.write_bytes(bytes(content[:place]))
    assert Checkpoint.read(path, rollout="r") is None


def test_a_checkpoint_of_another_rollout_or_code_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r.judge.json"
    assert Checkpoint.read(path, rollout="r") is None
    Checkpoint("r", 3, "sha256:0", JudgeState()).write(path)
    assert Checkpoint.read(path, rollout="s") is None
    assert Checkpoint.read(path, rollout="r") == Checkpoint("r", 3, "sha256:0", JudgeState())
    monkeypatch.setattr("abkit.judge.checkpoint.__version__", "0.0.0")
    assert Checkpoint.read(path, rollout="r") is None
    assert not Checkpoint("r", 3, "sha256:0", JudgeState()).write(tmp_path / "no" / "folder")
