"""Golden vectors of GrowthBook, Eppo, Unleash, LaunchDarkly, Optimizely and PostHog.

Computed by their own packages: growthbook 4.0.0, eppo-server-sdk 4.4.1, yggdrasil-engine 2.0.0 (of
UnleashClient 6.9.1), launchdarkly-server-sdk 9.18.2, optimizely-sdk 5.7.0, posthog 7.91.1. They are
literals: no vendor package is needed here, and a change of a hash would re-randomise every
experiment that was imported.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abkit.bucketing import SPACE, launchdarkly, posthog
from abkit.bucketing.growthbook import fnv1a32
from abkit.bucketing.murmur3 import murmur3_32
from abkit.bucketing.scheme import scheme

PAIRS = (
    ("salt", "user-1"),
    ("checkout.color", "00000000-0000-4000-8000-000000000001"),
    ("group 7 é 组", "用户42"),
    ("s", "😀 unit"),
    ("a-long-salt-of-a-flag.0123456789abcdef", "  Jane Doe "),
    ("x", "1"),
)
SPLIT = {
    "growthbook-v1": (548, 455, 7, 447, 191, 276),
    "growthbook-v2": (7202, 8976, 2701, 1290, 2263, 6899),
    "eppo": (9574, 1980, 2019, 2355, 5650, 3763),
    "unleash": (31, 849, 825, 748, 540, 600),
    "launchdarkly": (
        1861410870285461,
        3956087021922039,
        409677541550725,
        3078878842268895,
        4472777083168820,
        2128800782374898,
    ),
    "optimizely": (1355, 3685, 8999, 9039, 764, 1430),
    "posthog": (
        2386911692900305,
        4014814517371701,
        1540287607481647,
        935688703577313,
        2813587838941314,
        72118229336205,
    ),
}
ROLLOUT = SPLIT | {
    "unleash": (4, 73, 76, 45, 25, 96),
    # What its variants hash has "variant" behind the unit; the rollout is LaunchDarkly's hash.
    "posthog": SPLIT["launchdarkly"],
}


@pytest.mark.parametrize("name", SPLIT)
def test_a_vendors_hash_gives_the_slots_that_the_vendor_gives(name: str) -> None:
    found = scheme(name)
    assert tuple(found.split.slot(*pair) for pair in PAIRS) == SPLIT[name]
    assert tuple(found.rollout.slot(*pair) for pair in PAIRS) == ROLLOUT[name]


def test_a_launchdarkly_seed_is_the_salt_as_text() -> None:
    assert scheme("launchdarkly").split.slot("61", "user-1") == 3611167387110710


@pytest.mark.parametrize("name", SPLIT)
@given(
    salt=st.text(st.characters(codec="utf-8"), min_size=1),
    unit=st.text(st.characters(codec="utf-8")),
)
def test_every_text_has_a_slot(name: str, salt: str, unit: str) -> None:
    found = scheme(name)
    for slots in (found.split, found.rollout):
        assert 0 <= slots.slot(salt, unit) < slots.count
        assert 0 <= slots.bucket(salt, unit) < SPACE


@pytest.mark.parametrize("name", SPLIT)
def test_slots_and_their_edges_agree(name: str) -> None:
    for slots in (scheme(name).split, scheme(name).rollout):
        step = max(1, slots.count // 1000)
        for slot in range(0, slots.count, step):
            bucket = slot * SPACE // slots.count
            assert slots.edge(slot) <= bucket < slots.edge(slot + 1)
        assert slots.edge(slots.count) == SPACE


@pytest.mark.parametrize("module", [launchdarkly, posthog])
def test_the_largest_hash_that_rounds_up_to_1_is_in_the_last_slot(
    module: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Largest:
        @staticmethod
        def digest() -> bytes:
            return b"\xff" * 20

    monkeypatch.setattr(module, "sha1", lambda *_args, **_named: Largest)
    [found] = module.SCHEMES.values()  # type: ignore[attr-defined]
    assert found.split.slot("salt", "unit") == SPACE - 1


@pytest.mark.parametrize(
    ("text", "seed", "expected"),
    [
        # Test vectors that go round with implementations of MurmurHash3_x86_32, most of them in
        # the table of Wikipedia's "MurmurHash"; the package mmh3 5 gives the same.
        (b"", 0, 0x00000000),
        (b"", 1, 0x514E28B7),
        (b"", 0xFFFFFFFF, 0x81F16F39),
        (b"test", 0, 0xBA6BD213),
        (b"test", 0x9747B28C, 0x704B81DC),
        (b"Hello, world!", 0, 0xC0363E43),
        (b"Hello, world!", 0x9747B28C, 0x24884CBA),
        (b"The quick brown fox jumps over the lazy dog", 0, 0x2E4FF723),
        (b"The quick brown fox jumps over the lazy dog", 0x9747B28C, 0x2FA826CD),
    ],
)
def test_murmur3_gives_the_published_hashes(text: bytes, seed: int, expected: int) -> None:
    assert murmur3_32(text, seed) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Fowler, Noll, Vo and Eastlake, "The FNV Non-Cryptographic Hash Algorithm",
        # Internet-Draft draft-eastlake-fnv: test vectors of FNV-1a in 32 bits.
        ("", 0x811C9DC5),
        ("a", 0xE40C292C),
        ("foobar", 0xBF9CF968),
    ],
)
def test_fnv1a_gives_the_published_hashes(text: str, expected: int) -> None:
    assert fnv1a32(text) == expected
