"""The hash is frozen: literals, hashlib's hex digits and DuckDB's SQL all give the same buckets."""

from __future__ import annotations

import hashlib
import random
import string
import unicodedata

import duckdb
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from abkit import bucketing
from abkit.bucketing import SPACE, threshold, threshold_bytes

NFC = "caf\u00e9"
NFD = "cafe\u0301"

# (salt, unit, bucket of the variant, bucket of the rollout), made with hashlib.md5 alone:
# int(hexdigest[0:13], 16) and int(hexdigest[16:29], 16). Never change one.
GOLDEN = [
    ("salt", "user-1", 3118532721041239, 2758937541195425),
    ("salt", "1", 3921521365347179, 1541676260869176),
    ("salt", "7", 4154651127243628, 2607062552627572),
    ("salt", "-12", 1389399704923785, 4233755968838721),
    ("salt", "123456789012345678901234567890", 4235838310226312, 1735495430260319),
    ("salt", "3f2504e0-4f89-41d3-9a0c-0305e82c3301", 3177067802168673, 2575551928637159),
    ("salt", "a:b", 1362062914515450, 2710931546601767),
    ("salt", " ", 3299994173132279, 3830120190029914),
    ("salt", "  lead and trail ", 1683934020183750, 638943142610457),
    ("salt", "tab\there", 1762805839174556, 2802589210066720),
    ("salt", "line\nbreak", 1412970978693376, 3778917084542196),
    ("salt", 'it\'s "quoted" `x`', 748759443102078, 3931552505405654),
    ("salt", "NULL", 478401848259451, 2774626552135552),
    ("salt", "東京都渋谷区", 3822267478972218, 3331073459470859),
    ("salt", "👩\u200d🚀🚀", 3594529730744579, 1253525448078557),
    ("salt", NFC, 1560604374681259, 3590593200903688),
    ("salt", NFD, 3319011971884907, 1321453428775767),
    ("salt", "日" * 5000, 3139614303549052, 4386936033744622),
    ("salt", "x" * 5000, 2458204288033958, 3277730221006689),
    ("0", "user-1", 2061884341769601, 2895204245149669),
    ("A_b-c.9", "user-1", 1644502157674747, 1114096223174284),
    ("a" * 128, "user-1", 2583922168206503, 3904846663012845),
]

ALPHABETS = [
    string.ascii_letters + string.digits,
    string.printable,
    "'\"`\\;:%_-–$?{}()[]<> \t\r\n",
    "東京都渋谷区日本語한국어中文字",
    "👩🚀🎉🇩🇪\u200d\ufe0f",
    "éèüñÅ\u0301\u0308\u030a",
    "אבגابج\u202e\u200f",
    "\u00a0\u2028\ufeff\u0085\x01\x7f",
    "\U0010ffff\U00010000\ue000\uffff",
]


def buckets(salt: str, unit: str) -> tuple[int, int]:
    raw = bucketing.digest(salt, unit)
    return bucketing.split_bucket(raw), bucketing.rollout_bucket(raw)


def buckets_by_hex(salt: str, unit: str) -> tuple[int, int]:
    """What the design says, in its own words: hex digits 1-13 and 17-29."""
    text = hashlib.md5(f"{salt}:{unit}".encode(), usedforsecurity=False).hexdigest()
    return int(text[0:13], 16), int(text[16:29], 16)


def hostile_units(count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    units = [str(rng.getrandbits(rng.choice((1, 31, 63, 64, 128)))) for _ in range(count // 10)]
    while len(units) < count:
        alphabet = rng.choice(ALPHABETS)
        length = rng.choice((1, 1, 2, 3, 5, 8, 13, 36, 55, 56, 63, 64, 65, 119, 120, 300))
        units.append("".join(rng.choices(alphabet, k=length)))
    return units


@pytest.mark.parametrize(("salt", "unit", "split", "rollout"), GOLDEN)
def test_golden_vectors_never_change(salt: str, unit: str, split: int, rollout: int) -> None:
    assert buckets(salt, unit) == (split, rollout)
    assert bucketing.bucket(salt, unit) == split


def test_composed_and_decomposed_letters_are_different_units() -> None:
    assert unicodedata.normalize("NFC", NFD) == NFC
    assert buckets("salt", NFC) != buckets("salt", NFD)


@given(salt=st.from_regex(r"[A-Za-z0-9_.-]{1,40}", fullmatch=True), unit=st.text(min_size=1))
def test_buckets_are_hex_digits_of_the_hash(salt: str, unit: str) -> None:
    assert buckets(salt, unit) == buckets_by_hex(salt, unit)


def test_duckdb_finds_the_same_buckets_for_ten_thousand_hostile_units() -> None:
    units = hostile_units(10_000, seed=20_240_131)
    rows = (
        duckdb.connect()
        .execute(
            """
            select ('0x' || substr(md5($salt || ':' || unit), 1, 13))::bigint,
                   ('0x' || substr(md5($salt || ':' || unit), 17, 13))::bigint
            from (select unnest($units) as unit)
            """,
            {"salt": "S-1_x.9", "units": units},
        )
        .fetchall()
    )
    assert len(rows) == len(units)
    assert rows == [buckets("S-1_x.9", unit) for unit in units]


def test_duckdb_assigns_the_same_by_comparing_hex_text() -> None:
    """The portable form of the audit query: no integers at all."""
    units = hostile_units(2_000, seed=7)
    upper = threshold(0.33)
    rows = (
        duckdb.connect()
        .execute(
            "select substr(md5('s:' || unit), 1, 13) < $upper from (select unnest($units) as unit)",
            {"upper": f"{upper:013x}", "units": units},
        )
        .fetchall()
    )
    assert [row[0] for row in rows] == [bucketing.bucket("s", unit) < upper for unit in units]


@pytest.mark.parametrize(
    ("share", "bucket"),
    [
        (0, 0),
        (0.0, 0),
        (1, SPACE),
        (1.0, SPACE),
        (0.5, SPACE // 2),
        (0.33, 0x547AE147AE148),
        (2.0**-52, 1),
        (1e-300, 0),
        (1 - 2.0**-52, SPACE - 1),
    ],
)
def test_a_share_ends_at_the_nearest_bucket(share: float, bucket: int) -> None:
    assert threshold(share) == bucket


edges = st.sampled_from([0, 1, 15, 16, SPACE // 2 - 1, SPACE // 2, SPACE - 2, SPACE - 1, SPACE])
bounds = edges | st.integers(0, SPACE) | st.floats(0, 1).map(threshold)


@given(raw=st.binary(min_size=16, max_size=16), bound=bounds)
@example(raw=b"\x00" * 16, bound=0)
@example(raw=b"\x00" * 16, bound=1)
@example(raw=b"\xff" * 16, bound=SPACE - 1)
@example(raw=b"\xff" * 16, bound=SPACE)
def test_comparing_bytes_is_comparing_buckets(raw: bytes, bound: int) -> None:
    upper = threshold_bytes(bound)
    below = True if upper is None else raw < upper
    below_rollout = True if upper is None else raw[8:] < upper
    assert below == (bucketing.split_bucket(raw) < bound)
    assert below_rollout == (bucketing.rollout_bucket(raw) < bound)


@given(bound=bounds, step=st.integers(-1, 1), tail=st.binary(min_size=9, max_size=9))
def test_comparing_bytes_is_exact_next_to_the_threshold(bound: int, step: int, tail: bytes) -> None:
    """Random digests nearly never meet a threshold; these sit on it and one beside it."""
    bucket = min(max(bound + step, 0), SPACE - 1)
    raw = ((bucket << 4) | (tail[0] & 15)).to_bytes(7, "big") + tail
    upper = threshold_bytes(bound)
    assert (True if upper is None else raw < upper) == (bucket < bound)


def test_only_the_end_of_the_space_needs_no_comparison() -> None:
    assert threshold_bytes(SPACE) is None
    assert threshold_bytes(SPACE - 1) == b"\xff" * 6 + b"\xf0"
    assert threshold_bytes(0) == b"\x00" * 7


def test_the_two_buckets_of_a_unit_are_independent() -> None:
    """Correlation over 20,000 units within five standard errors of 0."""
    count = 20_000
    pairs = [buckets("independent", str(unit)) for unit in range(count)]
    x = [split / SPACE - 0.5 for split, _ in pairs]
    y = [rollout / SPACE - 0.5 for _, rollout in pairs]
    correlation = 12 * sum(a * b for a, b in zip(x, y, strict=True)) / count
    assert abs(correlation) < 5 / count**0.5
