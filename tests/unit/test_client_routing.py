"""What a client does besides assigning: blocks, routes, shadows, forced and sticky variants."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from typing import Any

import pytest

from abkit.client import Client, MemorySink, MemorySticky
from abkit.client.pool import ShadowPool
from abkit.errors import ConfigError
from abkit.experiment import Experiment
from abkit.snapshot import Snapshot

ALL_NEW = Experiment.create("ranker", {"old": 0.0, "new": 1.0}, salt="s", control="old")
SHADOWED = Experiment(
    key="ranker",
    salt="s",
    control="old",
    ranges=Experiment.create("ranker", {"old": 1.0}, salt="s").ranges,
    shadow="new",
)
MODELS = {"old": lambda x: x, "new": lambda x: -x}


def client(*experiments: Experiment, **options: Any) -> Client:
    return Client.from_experiments(experiments or [ALL_NEW], clock=lambda: 5.0, **options)


def events(ab: Client) -> list[tuple[Any, ...]]:
    assert isinstance(ab.sink, MemorySink)
    return list(ab.sink.records)


def outcomes(ab: Client) -> dict[tuple[str, str], float]:
    """Value by (metric, variant named)."""
    return {(r[3], r[6]): r[4] for r in events(ab) if r[0] == "o"}


# The exposure block


def test_a_block_logs_the_exposure_its_duration_and_that_it_went_well() -> None:
    ab = client()
    with ab.exposure("ranker", "u", latency="ms", error="failed") as a:
        assert (a.variant, a.reason) == ("new", "split")
        assert [event[0] for event in events(ab)] == ["e"]
        time.sleep(0.01)
    assert outcomes(ab)["failed", ""] == 0.0
    assert outcomes(ab)["ms", ""] >= 10.0


def test_a_block_that_raises_was_met_and_failed() -> None:
    ab = client()
    with pytest.raises(ZeroDivisionError), ab.exposure("ranker", "u", error="failed"):
        _ = 1 / 0
    assert [event[0] for event in events(ab)] == ["e", "o"]
    assert outcomes(ab) == {("failed", ""): 1.0}


def test_an_interrupt_says_nothing_about_the_model() -> None:
    ab = client()
    with pytest.raises(KeyboardInterrupt), ab.exposure("ranker", "u", error="failed", latency="ms"):
        raise KeyboardInterrupt
    assert outcomes(ab) == {}


def test_a_unit_outside_is_not_exposed() -> None:
    ab = client(Experiment.create("ranker", {"old": 0.5, "new": 0.5}, rollout=0.0))
    with ab.exposure("ranker", "u") as a:
        assert a.reason == "rollout"
    with ab.exposure("absent", "u", default="old") as a:
        assert (a.variant, a.reason) == ("old", "unknown_experiment")
    assert events(ab) == []
    assert ab.health().rejected == {}


def test_a_block_works_in_a_task() -> None:
    ab = client()

    async def answer() -> str:
        async with ab.exposure("ranker", "u", latency="ms") as a:
            await asyncio.sleep(0)
            return a.variant

    assert asyncio.run(answer()) == "new"
    assert [event[0] for event in events(ab)] == ["e", "o"]


def test_an_outcome_of_an_assignment_is_that_of_the_variant_served() -> None:
    ab = client(SHADOWED)
    a = ab.assign("ranker", "u")
    assert ab.record(a, "wrong", 1)
    assert outcomes(ab) == {("wrong", "old"): 1.0}
    plain = client()
    assert plain.record(plain.assign("ranker", "u"), "wrong", 1)
    assert outcomes(plain) == {("wrong", ""): 1.0}


# Routes


def test_a_route_gives_the_function_the_model_of_the_variant() -> None:
    ab = client()

    @ab.route("ranker", unit="user", models=MODELS, default="old", error="failed")
    def rank(model: Any, x: int, user: str) -> int:
        """Rank."""
        return int(model(x))

    assert rank(3, "u") == -3
    assert rank(3, user="u") == -3
    assert rank.__doc__ == "Rank."
    assert [event[0] for event in events(ab)] == ["e", "o", "e", "o"]


def test_a_route_works_for_coroutines_and_finds_the_unit_by_a_function() -> None:
    ab = client()

    @ab.route("ranker", unit=lambda request: request["user"], models=MODELS, default="old")
    async def rank(model: Any, request: dict[str, Any]) -> int:
        await asyncio.sleep(0)
        return int(model(request["x"]))

    assert asyncio.run(rank({"user": "u", "x": 3})) == -3
    assert events(ab)[0][3] == "u"


def test_a_route_measures_answers() -> None:
    ab = client()

    @ab.route("ranker", unit="u", models=MODELS, default="old", measure=lambda y: {"score": y})
    def rank(model: Any, u: str) -> int:
        return int(model(4))

    rank("u")
    assert outcomes(ab) == {("score", ""): -4.0}

    @ab.route("ranker", unit="u", models=MODELS, default="old", measure=lambda y: y.oops)
    def broken(model: Any, u: str) -> int:
        return int(model(4))

    assert broken("u") == -4
    assert ab.health().rejected == {"measure_error": 1}


def test_a_variant_without_a_model_is_answered_by_the_default_and_not_exposed() -> None:
    ab = client()

    @ab.route("ranker", unit="u", models={"old": MODELS["old"]}, default="old")
    def rank(model: Any, u: str) -> int:
        return int(model(4))

    assert rank("u") == 4
    assert events(ab) == []
    assert ab.health().rejected == {"no_model": 1}


def test_attributes_and_units_that_raise_are_answered_by_the_default() -> None:
    ab = client(
        Experiment.create(
            "ranker", {"new": 1.0}, control="old", targeting={"attribute": "x", "above": 1}
        )
    )

    @ab.route("ranker", unit="u", models=MODELS, default="old", attributes=lambda u: {"x": u / 2})
    def rank(model: Any, u: Any) -> int:
        return int(model(4))

    assert (rank(3), rank(1), rank("text")) == (-4, 4, 4)
    assert ab.health().rejected == {"route_unit_error": 1}


def broken_model(x: int) -> int:
    raise OSError(x)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_variant_that_fails_is_rescued_if_asked_and_counted_as_failed(is_async: bool) -> None:  # noqa: FBT001
    ab = client()
    models = {"old": MODELS["old"], "new": broken_model}

    def make(rescue: bool) -> Any:  # noqa: FBT001
        route = ab.route(
            "ranker", unit="u", models=models, default="old", error="failed", rescue=rescue
        )
        if is_async:

            @route
            async def later(model: Any, u: str) -> int:
                return int(model(4))

            return lambda unit: asyncio.run(later(unit))

        @route
        def now(model: Any, u: str) -> int:
            return int(model(4))

        return now

    assert make(rescue=True)("u") == 4
    assert outcomes(ab) == {("failed", ""): 1.0}
    with pytest.raises(OSError, match="4"):
        make(rescue=False)("u")


def test_a_route_that_could_not_work_is_refused_where_it_is_written() -> None:
    ab = client()
    with pytest.raises(ConfigError, match="default 'control' has no model; there are models for"):
        ab.route("ranker", unit="u", models=MODELS)
    with pytest.raises(TypeError, match="no argument 'user' after the model"):

        @ab.route("ranker", unit="user", models=MODELS, default="old")
        def rank(model: Any, u: str) -> int:
            return int(model(4))


# Shadows


def test_a_shadow_answers_in_the_dark_and_both_answers_are_a_pair() -> None:
    ab = client(SHADOWED)
    caller = threading.get_ident()
    seen: list[int] = []

    @ab.route(
        "ranker",
        unit="u",
        models=MODELS,
        default="old",
        measure=lambda y: {"score": y},
        error="bad",
        latency="ms",
    )
    def rank(model: Any, u: str) -> int:
        seen.append(threading.get_ident())
        return int(model(4))

    assert rank("u") == 4
    ab.close()
    found = outcomes(ab)
    assert found["score", "old"] == 4.0
    assert found["score", "new"] == -4.0
    assert found["bad", "old"] == found["bad", "new"] == 0.0
    assert {key for key in found if key[0] == "ms"} == {("ms", "old"), ("ms", "new")}
    assert seen.count(caller) == 1
    assert len(set(seen)) == 2


def test_a_shadow_that_fails_or_hangs_is_nobodys_trouble() -> None:
    ab = client(SHADOWED)
    a = ab.assign("ranker", "u")
    assert ab.shadow(a, broken_model, 3, error="bad")
    ab.close()
    assert outcomes(ab) == {("bad", "new"): 1.0}


def test_shadow_answers_without_room_are_dropped_and_counted() -> None:
    ab = client(SHADOWED)
    ab._shadow_size = (1, 2)
    a = ab.assign("ranker", "u")
    hold = threading.Event()
    taken = [ab.shadow(a, hold.wait, 5) for _ in range(20)]
    hold.set()
    ab.close()
    assert 2 <= sum(taken) <= 3
    assert ab.health().rejected == {"shadow_queue_full": 20 - sum(taken)}


def test_without_a_shadow_nothing_answers() -> None:
    ab = client()
    assert not ab.shadow(ab.assign("ranker", "u"), MODELS["new"], 3)
    assert ab.health().rejected == {"no_shadow": 1}


def test_a_shadow_may_be_a_coroutine_of_the_running_loop() -> None:
    ab = client(SHADOWED)

    async def model(x: int) -> int:
        await asyncio.sleep(0)
        return -x

    async def bad(x: int) -> int:
        raise OSError(x)

    async def request() -> None:
        a = ab.assign("ranker", "u")
        assert ab.shadow(a, model, 4, measure=lambda y: {"score": y}, latency="ms")
        assert ab.shadow(a, bad, 4, error="bad")
        await asyncio.sleep(0.01)

    asyncio.run(request())
    assert outcomes(ab)["score", "new"] == -4.0
    assert outcomes(ab)["bad", "new"] == 1.0


def test_a_coroutine_without_a_loop_is_counted() -> None:
    ab = client(SHADOWED)

    async def model() -> int:
        return 1

    assert not ab.shadow(ab.assign("ranker", "u"), model)
    assert ab.health().rejected == {"shadow_error": 1}


def test_a_pool_does_all_that_it_took() -> None:
    pool, done = ShadowPool(workers=3, queue_size=1_000), []
    assert all(pool.submit(lambda i=i: done.append(i)) for i in range(500))
    assert pool.drain(10)
    assert sorted(done) == list(range(500))


# Forced variants


def test_a_forced_variant_holds_inside_the_block_and_is_not_analysed() -> None:
    ab = client()
    with ab.force({"ranker": "old"}):
        a = ab.assign("ranker", "u")
        assert (a.variant, a.reason, a.in_experiment) == ("old", "forced", False)
        assert ab.variant("ranker", "u") == "old"
        with ab.force({"ranker": "new"}):
            assert ab.variant("ranker", "u") == "new"
        assert ab.variant("ranker", "u") == "old"
    assert ab.assign("ranker", "u").reason == "split"


def test_forcing_is_each_threads_and_tasks_own() -> None:
    ab = client()
    inside, seen = threading.Event(), []

    def other() -> None:
        inside.wait(5)
        seen.append(ab.variant("ranker", "u"))

    thread = threading.Thread(target=other)
    thread.start()
    with ab.force({"ranker": "old"}):
        inside.set()
        thread.join()
    assert seen == ["new"]

    async def forced(variant: str) -> str:
        with ab.force({"ranker": variant}):
            await asyncio.sleep(0.001)
            return ab.variant("ranker", "u")

    async def both() -> list[str]:
        return list(await asyncio.gather(forced("old"), forced("new"), forced("old")))

    assert asyncio.run(both()) == ["old", "new", "old"]


@pytest.mark.parametrize(
    "variants", [{"ranker": "nowhere"}, {"ranker": ["old"]}, None, 7, "ranker"]
)
def test_a_force_that_makes_no_sense_is_counted_and_left_out(variants: Any) -> None:
    ab = client()
    with ab.force(variants):
        assert ab.assign("ranker", "u").reason == "split"
    assert sum(ab.health().rejected.values()) == 1


def test_a_killed_experiment_stays_killed() -> None:
    ab = client(ALL_NEW.kill())
    with ab.force({"ranker": "new"}):
        assert (ab.variant("ranker", "u"), ab.assign("ranker", "u").reason) == ("old", "killed")


# Sticky assignment


TARGETED = Experiment.create(
    "ranker",
    {"old": 0.0, "new": 1.0},
    control="old",
    salt="s",
    sticky=True,
    targeting={"attribute": "plan", "is": "free"},
)


def test_a_unit_keeps_its_variant_while_its_attributes_change() -> None:
    ab = client(TARGETED, sticky=MemorySticky())
    assert ab.assign("ranker", "u", {"plan": "paid"}).reason == "targeting"
    assert ab.assign("ranker", "u", {"plan": "free"}).reason == "split"
    later = ab.assign("ranker", "u", {"plan": "paid"})
    assert (later.variant, later.reason, later.in_experiment) == ("new", "sticky", True)
    assert later.bucket == ab.assign("ranker", "u", {"plan": "free"}).bucket
    assert ab.assign("ranker", "v", {"plan": "paid"}).reason == "targeting"


def test_without_a_store_or_the_word_nothing_sticks() -> None:
    for ab in (
        client(TARGETED),
        client(Experiment.from_dict(TARGETED.to_dict() | {"sticky": False}), sticky=MemorySticky()),
    ):
        ab.assign("ranker", "u", {"plan": "free"})
        assert ab.assign("ranker", "u", {"plan": "paid"}).reason == "targeting"


def test_what_has_no_buckets_any_more_does_not_stick() -> None:
    sticky = MemorySticky()
    sticky.put("ranker:s", "u", "1:gone")
    ab = client(TARGETED, sticky=sticky)
    assert ab.assign("ranker", "u", {}).reason == "targeting"
    killed = client(TARGETED.kill(), sticky=sticky)
    sticky.put("ranker:s", "u", "1:new")
    assert killed.assign("ranker", "u", {}).reason == "killed"


class Broken:
    def get(self, experiment: str, unit_id: str) -> str | None:
        raise OSError(experiment)

    def put(self, experiment: str, unit_id: str, variant: str) -> None:
        raise OSError(experiment)


def test_a_store_that_fails_is_counted_and_the_unit_assigned() -> None:
    ab = client(TARGETED, sticky=Broken())
    assert ab.assign("ranker", "u", {"plan": "free"}).reason == "split"
    assert ab.health().rejected == {"sticky_error": 2}


def test_a_memory_of_units_is_bounded_also_among_threads() -> None:
    sticky = MemorySticky(limit=50)

    def work(seed: int) -> None:
        for i in range(2_000):
            sticky.put("x", f"{seed}-{i % 70}", "a")
            sticky.get("x", f"{seed}-{i % 30}")

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sticky._known) <= 50


# A bound experiment


def test_a_picker_gives_what_variant_gives_and_follows_the_configuration(tmp_path: Any) -> None:
    now = [0.0]
    ab = Client(tmp_path, monotonic=lambda: now[0])
    pick = ab.picker("ranker", default="today")
    assert pick("u") == "today"
    for version, (experiment, expected) in enumerate([(TARGETED, "new"), (TARGETED.kill(), "old")]):
        content = Snapshot.of([experiment], version=version, published=0.0).to_bytes()
        (tmp_path / "snapshot.json").write_bytes(content)
        now[0] += 1.0
        assert pick("u", {"plan": "free"}) == expected
        assert pick("u", {"plan": "paid"}) == pick("u") == "old"
    assert pick(None) == "old"  # type: ignore[arg-type]


def test_a_picker_obeys_force_and_never_raises() -> None:
    ab = client(TARGETED)
    pick = ab.picker("ranker", default="today")
    assert pick("u", {"plan": "free"}) == "new"
    with ab.force({"ranker": "old"}):
        assert pick("u", {"plan": "free"}) == "old"
    assert client(TARGETED).picker("ranker")("u", Hostile()) == "old"
    assert ab.picker([], default="today")("u") == "today"  # type: ignore[arg-type]


# Everything at once, and before there is anything


def test_all_experiments_are_assigned_at_once() -> None:
    other = Experiment.create("colour", {"red": 1.0})
    ab = client(ALL_NEW, other)
    found = ab.assign_all("u")
    assert {key: a.variant for key, a in found.items()} == {"ranker": "new", "colour": "red"}
    assert ab.assign_all(None)["colour"].reason == "invalid_unit"  # type: ignore[arg-type]


def test_a_packaged_snapshot_serves_until_there_is_one(tmp_path: Any) -> None:
    packaged = tmp_path / "packaged.json"
    packaged.write_bytes(Snapshot.of([ALL_NEW], version=7, published=0.0).to_bytes())
    now = [0.0]
    ab = Client(tmp_path / "ws", fallback=packaged, monotonic=lambda: now[0])
    assert ab.assign("ranker", "u").version == 7
    health = ab.health().snapshot
    assert health is not None
    assert (health.origin, health.errors) == ("fallback", 0)
    (tmp_path / "ws").mkdir()
    published = Snapshot.of([ALL_NEW.kill()], version=1, published=0.0)
    (tmp_path / "ws" / "snapshot.json").write_bytes(published.to_bytes())
    now[0] = 1.0
    assert ab.assign("ranker", "u").reason == "killed"
    assert ab.health().snapshot.origin == "file"  # type: ignore[union-attr]


def test_a_packaged_snapshot_that_is_bad_is_counted_too(tmp_path: Any) -> None:
    (tmp_path / "packaged.json").write_text("{")
    ab = Client(tmp_path / "ws", fallback=tmp_path / "packaged.json")
    a = ab.assign("ranker", "u", default="teacher")
    assert (a.variant, a.reason) == ("teacher", "no_snapshot")
    health = ab.health().snapshot
    assert health is not None
    assert (health.origin, health.errors) == ("none", 1)


HOSTILE = [None, True, 1.5, b"u", "", "x" * 20_000, "\ud800", [], {}, object(), float("nan")]


@pytest.mark.parametrize("value", HOSTILE)
def test_no_call_raises_whatever_it_is_given(value: Any) -> None:
    ab = client(
        TARGETED, ALL_NEW.__class__.create("two", {"a": 0.5, "b": 0.5}), sticky=MemorySticky()
    )
    for experiment in ("ranker", "two", value):
        assert ab.assign(experiment, value, value).variant in ("control", "old", "a")
        assert ab.assign(experiment, "u", value, default="old").variant
        ab.variant(experiment, value, value)
        with ab.exposure(experiment, value, value, latency="ms"):
            pass
        ab.shadow(value, value)
        ab.expose(value)
        ab.record(value, value, value)
        ab.assign_all(value, value)


# What a hard review found


def test_a_sticky_unit_counts_in_the_epoch_in_which_it_came_in() -> None:
    sticky = MemorySticky()
    narrow = Experiment.create("ranker", {"old": 0.9, "new": 0.1}, salt="s", sticky=True)
    wide = narrow.reweight({"old": 0.5, "new": 0.5})
    units = [f"user-{i}" for i in range(400)]
    before = client(narrow, sticky=sticky)
    first = {unit: before.variant("ranker", unit) for unit in units}
    ab = client(wide, sticky=sticky)
    later = {unit: ab.assign("ranker", unit) for unit in units}
    assert {unit: a.variant for unit, a in later.items()} == first
    assert {(a.epoch, a.reason) for a in later.values()} == {(1, "sticky")}
    assert ab.assign("ranker", "somebody new").epoch == 2


def test_an_experiment_that_begins_anew_remembers_nobody() -> None:
    sticky = MemorySticky()
    client(TARGETED, sticky=sticky).assign("ranker", "u", {"plan": "free"})
    anew = Experiment.from_dict(TARGETED.to_dict() | {"salt": "another"})
    assert client(anew, sticky=sticky).assign("ranker", "u").reason == "targeting"


def test_a_rollout_that_shrinks_takes_sticky_units_with_it() -> None:
    sticky = MemorySticky()
    client(TARGETED, sticky=sticky).assign("ranker", "u", {"plan": "free"})
    nobody = Experiment.from_dict(TARGETED.to_dict() | {"rollout": 0.0})
    found = client(nobody, sticky=sticky).assign("ranker", "u", {"plan": "free"})
    assert (found.variant, found.reason) == ("old", "rollout")


@pytest.mark.parametrize("known", ["", "new", "x:new", "9:new", "1:gone", ":", "1:"])
def test_what_a_store_cannot_have_been_given_is_not_believed(known: str) -> None:
    sticky = MemorySticky()
    sticky.put("ranker:s", "u", known)
    assert client(TARGETED, sticky=sticky).assign("ranker", "u", {}).reason == "targeting"


def test_a_rescued_answer_took_as_long_as_both_and_is_what_is_measured() -> None:
    ab = client()

    def slow(x: int) -> int:
        time.sleep(0.02)
        raise OSError(x)

    @ab.route(
        "ranker",
        unit="u",
        models={"old": slow_answer, "new": slow},
        default="old",
        latency="ms",
        error="failed",
        measure=lambda y: {"score": y},
        rescue=True,
    )
    def rank(model: Any, u: str) -> int:
        return int(model(4))

    assert rank("u") == 4
    found = outcomes(ab)
    assert found["failed", ""] == 1.0
    assert found["score", ""] == 4.0
    assert found["ms", ""] >= 40.0


def slow_answer(x: int) -> int:
    time.sleep(0.02)
    return x


def test_an_answer_in_parts_is_timed_to_its_end() -> None:
    ab = client()

    @ab.route("ranker", unit="u", models=MODELS, default="old", latency="ms", error="failed")
    def stream(model: Any, u: str) -> Any:
        yield model(1)
        time.sleep(0.02)
        yield model(2)

    assert list(stream("u")) == [-1, -2]
    assert outcomes(ab)["ms", ""] >= 20.0
    assert outcomes(ab)["failed", ""] == 0.0


def test_an_answer_in_parts_of_a_coroutine_is_timed_to_its_end() -> None:
    ab = client()

    @ab.route("ranker", unit="u", models=MODELS, default="old", latency="ms", error="failed")
    async def stream(model: Any, u: str) -> Any:
        yield model(1)
        await asyncio.sleep(0.02)
        raise OSError("late")

    parts: list[int] = []

    async def read() -> None:
        async for part in stream("u"):
            parts.append(part)  # noqa: PERF401 - what came before it failed

    with pytest.raises(OSError, match="late"):
        asyncio.run(read())
    assert parts == [-1]
    assert outcomes(ab)["ms", ""] >= 20.0
    assert outcomes(ab)["failed", ""] == 1.0


def test_an_answer_in_parts_cannot_be_rescued_or_measured() -> None:
    def stream(model: Any, u: str) -> Any:
        yield model(1)

    for options in ({"rescue": True}, {"measure": lambda y: {"score": y}}):
        with pytest.raises(TypeError, match="yields its answer in parts"):
            client().route("ranker", unit="u", models=MODELS, default="old", **options)(stream)


def test_an_object_may_answer() -> None:
    class Ranker:
        async def __call__(self, model: Any, u: str) -> int:
            await asyncio.sleep(0.02)
            return int(model(4))

    ab = client()
    rank = ab.route("ranker", unit="u", models=MODELS, default="old", latency="ms")(Ranker())
    assert asyncio.run(rank("u")) == -4
    assert outcomes(ab)["ms", ""] >= 20.0


def test_frameworks_see_the_function_without_the_model() -> None:
    @client().route("ranker", unit="user", models=MODELS, default="old")
    async def rank(model: Any, user: str, x: int = 3) -> int:
        return int(model(x))

    assert str(inspect.signature(rank)) == "(user: 'str', x: 'int' = 3) -> 'int'"
    assert inspect.iscoroutinefunction(rank)
    assert "model" not in rank.__annotations__


def test_outcomes_of_a_forced_variant_are_nobodys() -> None:
    ab = client()
    with ab.force({"ranker": "old"}):
        with ab.exposure("ranker", "u", latency="ms", error="failed") as a:
            assert a.variant == "old"
        assert not ab.record(a, "clicked", 1.0)
    assert events(ab) == []
    with ab.force({"absent": "old"}):
        ab.assign("absent", "u")
    assert ab.health().rejected == {
        "not_in_experiment": 1,
        "unknown_forced_experiment": 1,
    }


class Hostile(dict[str, Any]):
    def get(self, *names: Any) -> Any:
        raise RuntimeError(names)


def test_where_assigning_fails_control_is_served() -> None:
    ab = client(TARGETED)
    found = ab.assign("ranker", "u", Hostile())
    assert (found.variant, found.reason) == ("old", "error")
    assert ab.variant("ranker", "u", Hostile()) == "old"
    assert ab.variant([], "u", Hostile(), default="today") == "today"  # type: ignore[arg-type]


def test_all_experiments_are_as_fresh_as_one(tmp_path: Any) -> None:
    now = [0.0]
    ab = Client(tmp_path, monotonic=lambda: now[0])
    assert ab.assign_all("u") == {}
    (tmp_path / "snapshot.json").write_bytes(
        Snapshot.of([ALL_NEW], version=1, published=0.0).to_bytes()
    )
    now[0] = 1.0
    assert set(ab.assign_all("u")) == {"ranker"}


def test_a_snapshot_that_could_not_be_read_for_want_of_memory_is_read_again(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    path = tmp_path / "snapshot.json"
    path.write_bytes(Snapshot.of([ALL_NEW], version=1, published=0.0).to_bytes())
    ab = Client(tmp_path, monotonic=lambda: now[0])
    path.write_bytes(Snapshot.of([ALL_NEW.kill()], version=2, published=0.0).to_bytes())
    real = Snapshot.from_bytes

    def starved(content: bytes) -> Snapshot:
        raise MemoryError

    monkeypatch.setattr(Snapshot, "from_bytes", starved)
    now[0] = 1.0
    assert ab.assign("ranker", "u").version == 1
    monkeypatch.setattr(Snapshot, "from_bytes", real)
    now[0] = 2.0
    assert ab.assign("ranker", "u").reason == "killed"
    assert ab.health().snapshot.errors == 1  # type: ignore[union-attr]


def test_two_routes_may_have_a_metric_of_the_same_name() -> None:
    other = Experiment.create("speller", {"old": 0.0, "new": 1.0}, salt="t", control="old")
    ab = client(ALL_NEW, other)
    for key in ("ranker", "speller"):
        with ab.exposure(key, "u", error="failed"):
            pass
    assert ab.record("u", "clicked", 1.0)
    assert ab.record("u", "clicked", 1.0, experiment="ranker")
    assert [(r[3], r[5], r[6]) for r in events(ab) if r[0] == "o"] == [
        ("failed", "ranker", ""),
        ("failed", "speller", ""),
        ("clicked", "", ""),
        ("clicked", "ranker", ""),
    ]


def test_what_was_not_exposed_has_no_outcomes() -> None:
    ab = client(Experiment.create("ranker", {"old": 0.5, "new": 0.5}, rollout=0.0))

    @ab.route(
        "ranker", unit="u", models=MODELS, default="old", error="e", measure=lambda y: {"score": y}
    )
    def rank(model: Any, u: str) -> int:
        return int(model(4))

    assert rank("u") == 4
    assert events(ab) == []


def test_where_a_shadow_has_no_model_the_variant_answers_alone() -> None:
    ab = client(SHADOWED)

    @ab.route("ranker", unit="u", models={"old": MODELS["old"]}, default="old", error="e")
    def rank(model: Any, u: str) -> int:
        return int(model(4))

    assert rank("u") == 4
    assert ab.health().rejected == {"no_model": 1}


def test_a_missing_model_takes_the_shadow_along() -> None:
    shadowed = Experiment.from_dict(ALL_NEW.to_dict() | {"shadow": "old"})
    ab = client(shadowed)
    seen = []

    @ab.route("ranker", unit="u", models={"old": MODELS["old"]}, default="old", error="e")
    def rank(model: Any, u: str) -> int:
        seen.append(u)
        return int(model(4))

    rank("u")
    ab.close()
    assert seen == ["u"]
    assert events(ab) == []


def test_the_defaults_own_failure_is_nobodys_to_rescue() -> None:
    ab = client(Experiment.create("ranker", {"old": 1.0}, salt="s"))
    calls = []

    @ab.route("ranker", unit="u", models={"old": broken_model}, default="old", rescue=True)
    def rank(model: Any, u: str) -> int:
        calls.append(u)
        return int(model(4))

    with pytest.raises(OSError, match="4"):
        rank("u")
    assert calls == ["u"]


def test_shadow_tasks_of_a_closed_loop_leave_room_and_are_counted() -> None:
    ab = client(SHADOWED)
    ab._shadow_size = (1, 3)

    async def model() -> None:
        await asyncio.sleep(60)

    async def request() -> bool:
        return ab.shadow(ab.assign("ranker", "u"), model)

    for _ in range(5):  # each run cancels what it leaves behind
        assert asyncio.run(request())
    assert ab.health().rejected == {"shadow_unfinished": 5}


def test_where_no_thread_can_be_had_a_shadow_is_refused_and_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ab = client(SHADOWED)
    real = threading.Thread.start

    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    a = ab.assign("ranker", "u")
    assert not any(ab.shadow(a, MODELS["new"], 4) for _ in range(5))
    monkeypatch.setattr(threading.Thread, "start", real)
    assert ab.shadow(a, MODELS["new"], 4, error="e")
    ab.close()
    assert outcomes(ab) == {("e", "new"): 0.0}
    assert ab.health().rejected == {"shadow_error": 5}


def without_a_module() -> Any:
    class Odd(type):
        @property
        def __module__(cls) -> str:
            raise RuntimeError("module")

    return Odd("OddUnit", (), {})()


def numpys_in_name_only() -> Any:
    def index(_self: Any) -> int:
        raise RuntimeError("index")

    return type("Fake", (), {"__module__": "numpy", "__index__": index})()


@pytest.mark.parametrize("make", [without_a_module, numpys_in_name_only])
def test_units_that_fail_when_looked_at_are_invalid(make: Any) -> None:
    value = make()
    ab = client()
    assert ab.assign("ranker", value).reason == "invalid_unit"
    assert ab.assign(value, "u").variant == "control"
    assert set(ab.assign_all(value)) == {"ranker"}
    with ab.exposure(value, value) as a:
        assert a.variant == "control"


def test_a_good_file_comes_before_a_packaged_one(tmp_path: Any) -> None:
    packaged = tmp_path / "packaged.json"
    packaged.write_bytes(Snapshot.of([ALL_NEW], version=7, published=0.0).to_bytes())
    (tmp_path / "snapshot.json").write_bytes(
        Snapshot.of([ALL_NEW], version=3, published=0.0).to_bytes()
    )
    ab = Client(tmp_path, fallback=packaged)
    assert ab.assign("ranker", "u").version == 3
    assert ab.health().snapshot.origin == "file"  # type: ignore[union-attr]
