"""Golden vectors of Split, Flagsmith, PlanOut, statsig and flagd, computed by their own packages.

splitio_client 10.7.0, flagsmith-flag-engine 11.1.1, PlanOut 0.6.0, statsig-python-core 0.24.2,
openfeature-flagd-core 2.0.0. They are literals: no vendor package is needed here, and a change of
a hash would re-randomise every experiment that was imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from abkit.bucketing import SPACE, flagd, flagsmith, planout, split, statsig
from abkit.bucketing.scheme import scheme

if TYPE_CHECKING:
    from collections.abc import Callable

UNITS = (
    "user-1",
    "1234567890",
    "6f1c24b0-8a1e-4c3f-9d64-0a7a1b2c3d4e",
    "Ünïcode",
    "用户一号",
    "😀🎉",
    "two words",
    " spaced ",
    "x" * 300,
)
# PlanOut fails on the others: it encodes as ASCII.
ASCII_UNITS = tuple(unit for unit in UNITS if unit.isascii())
RULES = statsig.share_slot
GOLDEN: tuple[tuple[Callable[[str, str], int], str, tuple[int, ...]], ...] = (
    (split.slot, "-1222652054", (52, 51, 22, 33, 2, 66, 70, 54, 60)),
    (split.slot, "77", (30, 15, 45, 14, 90, 17, 28, 75, 74)),
    (flagsmith.slot, "17,ser.8Vzw_", (3593, 5023, 4092, 3721, 2861, 2702, 7025, 4181, 7926)),
    (statsig.group_slot, "20bcebf7-792a", (160, 826, 530, 125, 732, 882, 857, 381, 764)),
    (RULES, "gate.rule", (5378, 8628, 2503, 3859, 1232, 7911, 5577, 366, 5839)),
    (
        flagd.slot,
        "new-model",
        (
            2458672818,
            523567862,
            2739647784,
            2703803094,
            1641316099,
            998804021,
            748899214,
            3756486100,
            661156272,
        ),
    ),
    (
        flagd.slot,
        "cat:new-model",
        (
            3689557687,
            2334477122,
            4169017637,
            2040066647,
            2336905597,
            3584996941,
            972325603,
            2623205676,
            4261650298,
        ),
    ),
)
PLANOUT_DIGITS = (
    142751865649489536,
    702095341623326078,
    619195347657434718,
    1103115371847546346,
    680709434093749363,
    732887752682370469,
)
PLANOUT_CHOICE_OF_THREE = (0, 2, 0, 1, 1, 1)
NAMES = ("flagd", "flagsmith", "planout", "split", "statsig")
SALTS = dict.fromkeys(NAMES, "a salt") | {"split": "-5"}


@pytest.mark.parametrize(("slot", "salt", "expected"), GOLDEN)
def test_slots_are_the_vendors_own(
    slot: Callable[[str, str], int], salt: str, expected: tuple[int, ...]
) -> None:
    assert tuple(slot(salt, unit) for unit in UNITS) == expected


def test_planout_reads_15_hex_digits_and_keeps_52_bits() -> None:
    found = tuple(planout.digits("signup.colour", unit) for unit in ASCII_UNITS)
    assert found == PLANOUT_DIGITS
    slots = tuple(planout.slot("signup.colour", unit) for unit in ASCII_UNITS)
    assert slots == tuple(number >> 8 for number in PLANOUT_DIGITS)


def test_planout_takes_the_number_of_choices_from_the_end_of_the_salt() -> None:
    slots = tuple(planout.slot("signup.colour % 3", unit) for unit in ASCII_UNITS)
    assert slots == tuple(choice * SPACE // 3 for choice in PLANOUT_CHOICE_OF_THREE)


@pytest.mark.parametrize(
    "salt", ["a % ", "a % 0", "a % x", "a % ²", "a %3", "%", f"a % {SPACE + 1}"]
)
def test_planout_reads_other_salts_as_they_stand(salt: str) -> None:
    assert planout.slot(salt, "user-1") == planout.digits(salt, "user-1") >> 8


def test_flagsmith_hashes_again_where_its_percentage_would_be_100() -> None:
    # Of the units r0, r1, ... the first whose md5 modulo 9999 is 9998.
    assert flagsmith.slot("17,ser.8Vzw_", "r3854") == 4360


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (23, 376359034),
        (24, 390042729),
        (255, 3890713403),
        (256, 612719266),
        (65535, 479360911),
        (65536, 378186223),
    ],
)
def test_flagd_writes_the_length_of_a_text_in_its_shortest_form(size: int, expected: int) -> None:
    assert flagd.slot("cat:", "x" * size) == expected


def test_split_wants_a_whole_number_for_a_salt() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        split.slot("not a seed", "user-1")


@pytest.mark.parametrize("name", NAMES)
def test_every_slot_of_a_scheme_has_a_bucket_of_its_own(name: str) -> None:
    for slots in (scheme(name).split, scheme(name).rollout):
        seen = {slots.slot(SALTS[name], f"user-{number}") for number in range(500)}
        assert all(0 <= slot < slots.count for slot in seen)
        for slot in seen:
            assert slots.edge(slot) < slots.edge(slot + 1) <= SPACE


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("unit", ["", "\x00", "a\nb", "é" * 5000, "😀", "\u202e", "x" * 100_000])
def test_no_unit_makes_a_vendors_hash_raise(name: str, unit: str) -> None:
    for slots in (scheme(name).split, scheme(name).rollout):
        assert 0 <= slots.bucket(SALTS[name], unit) < SPACE
