"""What assignment promises for every unit, experiment and history of shares."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from abkit.bucketing import SPACE, digest, rollout_bucket, split_bucket
from abkit.compiler import compile_experiment
from abkit.experiment import Experiment, Range

if TYPE_CHECKING:
    from collections.abc import Callable

UNITS = [f"user-{i}" for i in range(2_000)]
MANY = 100_000

names = st.sampled_from(["a", "b", "c", "d", "e"])
parts = st.dictionaries(names, st.integers(0, 1000), min_size=1).filter(lambda p: any(p.values()))
shares_of = parts.map(lambda p: {name: n / sum(p.values()) for name, n in p.items()})
salts = st.integers(0, 10**6).map(lambda n: f"salt{n}")
rollouts = st.floats(0, 1)


def experiment(shares: dict[str, float], *, salt: str = "s", rollout: float = 1.0) -> Experiment:
    return Experiment.create("x", shares, salt=salt, rollout=rollout)


def served(of: Experiment, units: list[str] = UNITS) -> dict[str, tuple[str, str]]:
    assign = compile_experiment(of)
    return {unit: (item.variant, item.reason) for unit in units for item in [assign(unit)]}


# Every process, any hash seed


SCRIPT = """
import hashlib, json, sys
from abkit.compiler import compile_experiment
from abkit.experiment import Experiment
import random
experiment = Experiment.from_dict(json.loads(sys.argv[1]))
assign = compile_experiment(experiment)
units = [chr(97 + i % 26) * (i % 70) + str(i) + "é東👩"[i % 3] for i in range(5000)]
units += range(500)
lines = [f"{a.unit_id}|{a.variant}|{a.reason}|{a.bucket}" for a in map(assign, units)]
print(hashlib.sha256("\\n".join(lines).encode()).hexdigest())
"""

# One experiment with everything; the digest of its 5,500 assignments is a golden vector too.
FIXED = {
    "key": "x",
    "salt": "fixed-salt",
    "control": "a",
    "variants": {"a": 0.2, "b": 0.3, "c": 0.5},
    "rollout": 0.6,
    "overrides": {"17": "c", "cc2👩": "b"},
}
FIXED_DIGEST = "2928653a258c9a0d31519b591a0b4d1276fe110b6f52e3e5aa8da4896fed5d88"


def run_fixed(seed: str, *flags: str) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    command = [sys.executable, *flags, "-c", SCRIPT, json.dumps(FIXED)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_every_process_assigns_the_same() -> None:
    found = {run_fixed("0"), run_fixed("1"), run_fixed("4294967295"), run_fixed("random", "-O")}
    assert found == {FIXED_DIGEST}


def test_a_build_without_the_fast_md5_assigns_the_same() -> None:
    """FIPS builds have no `_md5`; hashlib takes its place."""
    script = f"import sys; sys.modules['_md5'] = None\n{SCRIPT}"
    command = [sys.executable, "-c", script, json.dumps(FIXED)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == FIXED_DIGEST


# Ramps


@given(shares=shares_of, salt=salts, steps=st.lists(rollouts, min_size=2, max_size=5))
@settings(max_examples=25)
def test_growing_the_rollout_loses_and_switches_nobody(
    shares: dict[str, float], salt: str, steps: list[float]
) -> None:
    before: dict[str, tuple[str, str]] = {}
    for share in sorted(steps):
        after = served(experiment(shares, salt=salt, rollout=share))
        inside = {unit: item for unit, item in after.items() if item[1] == "split"}
        assert before.items() <= inside.items()
        before = inside


@given(shares=shares_of, salt=salts, share=rollouts)
@settings(max_examples=25)
def test_units_inside_the_rollout_get_what_they_get_at_full_rollout(
    shares: dict[str, float], salt: str, share: float
) -> None:
    full = served(experiment(shares, salt=salt))
    partial = served(experiment(shares, salt=salt, rollout=share))
    for unit, (variant, reason) in partial.items():
        expected = full[unit][0] if reason == "split" else next(iter(shares))
        assert variant == expected


@given(shares=shares_of)
@settings(max_examples=10)
def test_the_ends_of_the_rollout_hold_everyone_and_nobody(shares: dict[str, float]) -> None:
    assert {reason for _, reason in served(experiment(shares)).values()} == {"split"}
    nobody = served(experiment(shares, rollout=0.0))
    assert set(nobody.values()) == {(next(iter(shares)), "rollout")}


# Reweighting, exactly, on buckets


def owners(ranges: tuple[Range, ...], at: list[int]) -> list[str]:
    found, remaining = [], iter(ranges)
    current = next(remaining)
    for bucket in at:
        while bucket >= current.upper:
            current = next(remaining)
        found.append(current.variant)
    return found


def overlaps(before: Experiment, after: Experiment) -> Counter[tuple[str, str]]:
    """Number of buckets by (variant before, variant after)."""
    cuts = sorted({0, SPACE} | {r.upper for r in (*before.ranges, *after.ranges)})
    starts = cuts[:-1]
    pairs = zip(owners(before.ranges, starts), owners(after.ranges, starts), strict=True)
    found: Counter[tuple[str, str]] = Counter()
    for (lower, upper), pair in zip(itertools.pairwise(cuts), pairs, strict=True):
        found[pair] += upper - lower
    return found


def widths(of: Experiment) -> Counter[str]:
    found: Counter[str] = Counter()
    for item in of.ranges:
        found[item.variant] += item.width
    return found


histories = st.lists(shares_of, min_size=2, max_size=6)


@given(history=histories)
def test_a_reweight_moves_exactly_the_sum_of_the_growths(history: list[dict[str, float]]) -> None:
    current = experiment(history[0])
    for shares in history[1:]:
        after = current.reweight(shares)
        moved = sum(n for (old, new), n in overlaps(current, after).items() if old != new)
        growth = widths(after) - widths(current)  # Counter keeps what grew
        assert moved == growth.total()
        assert math.isclose(
            moved / SPACE,
            sum(max(0.0, shares.get(v, 0) - current.weights.get(v, 0)) for v in "abcde"),
            abs_tol=1e-12,
        )
        current = after


@given(history=histories)
def test_a_variant_that_grows_keeps_all_of_its_units(history: list[dict[str, float]]) -> None:
    current = experiment(history[0])
    for shares in history[1:]:
        after = current.reweight(shares)
        lost = Counter({old: n for (old, new), n in overlaps(current, after).items() if old != new})
        before, now = widths(current), widths(after)
        assert not [name for name in before if now[name] >= before[name] and lost[name]]
        current = after


@given(history=histories, salt=salts)
@settings(max_examples=20)
def test_no_unit_leaves_a_variant_that_grows(history: list[dict[str, float]], salt: str) -> None:
    """The same as a caller sees it: through assignments."""
    current = experiment(history[0], salt=salt)
    was = served(current)
    for shares in history[1:]:
        after = current.reweight(shares)
        now = served(after)
        grows = {name for name in "abcde" if widths(after)[name] >= widths(current)[name]}
        assert not [unit for unit in UNITS if was[unit][0] in grows and was[unit] != now[unit]]
        current, was = after, now


@given(history=histories)
def test_a_reweight_ends_with_the_shares_that_were_asked(history: list[dict[str, float]]) -> None:
    current = experiment(history[0])
    for shares in history[1:]:
        after = current.reweight(shares)
        assert after.weights.keys() == {name for name, share in shares.items() if share}
        for name, weight in after.weights.items():
            assert math.isclose(weight, shares[name], abs_tol=1e-14)
        assert after.epoch == current.epoch + 1
        assert after.salt == current.salt
        current = after


@given(history=histories)
def test_a_reweight_leaves_lawful_ranges_that_do_not_crumble(
    history: list[dict[str, float]],
) -> None:
    current = experiment(history[0])
    for shares in history[1:]:
        after = current.reweight(shares)
        assert all(a.variant != b.variant for a, b in itertools.pairwise(after.ranges))
        # Each variant gives up one stretch at most, and each stretch is dealt out in pieces.
        assert len(after.ranges) <= 2 * (len(current.ranges) + len(shares))
        current = after


def test_a_ramp_in_small_steps_holds_few_ranges() -> None:
    """A hundred steps of a rollout must not make assignment slow."""
    current = experiment({"a": 1.0})
    for percent in range(1, 101):
        current = current.reweight({"a": 1 - percent / 100, "b": percent / 100})
        assert len(current.ranges) <= 2


@given(shares=shares_of)
def test_reweighting_to_the_same_shares_moves_nobody(shares: dict[str, float]) -> None:
    first = experiment(shares)
    assert first.reweight(shares).ranges == first.ranges


# Ranges and hashes together


@given(
    cuts=st.lists(st.integers(1, SPACE - 1), max_size=8, unique=True).map(sorted),
    data=st.data(),
    unit=st.text(min_size=1),
)
def test_a_unit_gets_the_range_that_its_bucket_is_in(
    cuts: list[int], data: st.DataObject, unit: str
) -> None:
    # Half of the time a cut lies on the unit's own bucket or one beside it.
    own = split_bucket(digest("s", unit))
    near = data.draw(st.none() | st.integers(-1, 1))
    if near is not None:
        cuts = sorted({*cuts, min(max(own + near, 1), SPACE - 1)})
    ends = [0, *cuts, SPACE]
    ranges = tuple(
        Range(lower, upper, f"v{i}") for i, (lower, upper) in enumerate(itertools.pairwise(ends))
    )
    found = compile_experiment(Experiment(key="x", salt="s", control="v0", ranges=ranges))(unit)
    assert found.bucket == own
    assert [r.variant for r in ranges if r.lower <= own < r.upper] == [found.variant]


@given(unit=st.text(min_size=1), step=st.integers(-1, 1))
def test_a_unit_is_inside_the_rollout_below_its_bucket(unit: str, step: int) -> None:
    own = rollout_bucket(digest("s", unit))
    bound = own + step
    assume(0 <= bound <= SPACE)
    found = compile_experiment(experiment({"a": 0.5, "b": 0.5}, rollout=bound / SPACE))(unit)
    assert (found.reason == "split") == (own < bound)


# Quality of the hash, on sequential ids


def quick_or_slow(quick: list[int], slow: list[int]) -> list[object]:
    return [*quick, *(pytest.param(item, marks=pytest.mark.slow) for item in slow)]


def uniforms(salt: str, count: int, bucket: Callable[[bytes], int]) -> np.ndarray:
    return np.fromiter(
        (bucket(digest(salt, str(i))) / SPACE for i in range(count)), dtype=np.float64, count=count
    )


@pytest.mark.parametrize(
    "shares",
    [{"a": 0.5, "b": 0.5}, {"a": 0.9, "b": 0.09, "c": 0.01}, {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}],
)
def test_ranges_hold_their_shares(shares: dict[str, float]) -> None:
    assign = compile_experiment(experiment(shares, salt="shares"))
    seen = Counter(assign(i).variant for i in range(MANY))
    expected = [share * MANY for share in shares.values()]
    assert stats.chisquare([seen[name] for name in shares], expected).pvalue > 1e-6


@pytest.mark.parametrize("rollout", [0.0001, 0.001, 0.005, 0.015])
def test_arms_keep_their_ratio_at_any_rollout(rollout: float) -> None:
    """The vendor that uses one uniform for both gave 1,004 treatment and 0 control at 0.5 %."""
    seen: Counter[tuple[str, str]] = Counter()
    for salt in range(2):
        of = experiment({"a": 0.5, "b": 0.5}, salt=f"arms{salt}", rollout=rollout)
        seen.update(served(of, [str(i) for i in range(MANY)]).values())
    arms = [seen["a", "split"], seen["b", "split"]]
    inside = sum(arms)
    assert stats.binomtest(inside, 2 * MANY, rollout).pvalue > 1e-6
    assert min(arms) > 0
    assert stats.binomtest(arms[0], inside, 0.5).pvalue > 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("rollout", [0.0001, 0.001, 0.005, 0.015])
def test_arms_keep_their_ratio_at_any_rollout_over_many_salts(rollout: float) -> None:
    gate = rollout * SPACE
    arms = np.zeros(2, dtype=np.int64)
    for salt, unit in itertools.product(range(40), range(MANY)):
        raw = digest(f"arms{salt}", str(unit))
        if rollout_bucket(raw) < gate:
            arms[int(split_bucket(raw) >= SPACE // 2)] += 1
    assert stats.binomtest(int(arms[0]), int(arms.sum()), 0.5).pvalue > 1e-4


@pytest.mark.parametrize("salt", quick_or_slow([0, 1, 2], list(range(3, 40))))
@pytest.mark.parametrize("bucket", [split_bucket, rollout_bucket])
def test_buckets_are_uniform(salt: int, bucket: Callable[[bytes], int]) -> None:
    values = uniforms(f"uniform{salt}", MANY, bucket)
    # 80 such tests in all: a true uniform fails one of them once in 1,000 runs of all.
    assert stats.kstest(values, "uniform").pvalue > 1e-5


def dependent_pairs(salts_count: int, units: int) -> tuple[int, int]:
    """Pairs of experiments whose 50/50 splits are dependent at p < 0.01, and all pairs."""
    splits = np.array(
        [uniforms(f"pair{salt}", units, split_bucket) < 0.5 for salt in range(salts_count)]
    )
    found = 0
    pairs = list(itertools.combinations(range(salts_count), 2))
    for i, j in pairs:
        table = np.histogram2d(splits[i], splits[j], bins=2)[0]
        found += stats.chi2_contingency(table, correction=False).pvalue < 0.01
    return found, len(pairs)


def test_experiments_are_independent_of_one_another() -> None:
    found, pairs = dependent_pairs(12, 20_000)
    # 66 pairs: 1 % of them by chance, and more than 6 once in 10,000 times.
    assert found <= 6, f"{found} of {pairs}"


@pytest.mark.slow
def test_of_780_pairs_of_experiments_one_percent_look_dependent() -> None:
    found, pairs = dependent_pairs(40, MANY)
    assert pairs == 780
    assert 0.003 <= found / pairs <= 0.02


def test_a_bad_hash_would_be_seen() -> None:
    """The measuring stick itself: crc32-like linear hashes make all pairs dependent."""
    linear = [np.arange(20_000) * 2_654_435_761 % 2**32 ^ (salt * 40503) for salt in range(2)]
    table = np.histogram2d(linear[0] < 2**31, linear[1] < 2**31, bins=2)[0]
    assert stats.chi2_contingency(table, correction=False).pvalue < 0.01


def test_the_fixed_digest_is_what_hashlib_alone_gives() -> None:
    """The golden digest, recomputed from the design's words without abkit's assignment."""
    lines = []
    for unit in [
        *(chr(97 + i % 26) * (i % 70) + str(i) + "é東👩"[i % 3] for i in range(5000)),
        *map(str, range(500)),
    ]:
        override = {"17": "c", "cc2👩": "b"}.get(unit)
        if override:
            lines.append(f"{unit}|{override}|override|None")
            continue
        text = hashlib.md5(f"fixed-salt:{unit}".encode(), usedforsecurity=False).hexdigest()
        split, gate = int(text[:13], 16), int(text[16:29], 16)
        if gate >= round(0.6 * 2**52):
            lines.append(f"{unit}|a|rollout|{split}")
            continue
        variant = "a" if split < round(0.2 * 2**52) else "b" if split < 2**51 else "c"
        lines.append(f"{unit}|{variant}|split|{split}")
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == FIXED_DIGEST
