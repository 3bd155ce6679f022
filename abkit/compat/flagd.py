"""flagd: the flags document -> experiments.

Carried over are enabled flags whose targeting is one `fractional` rule on the targeting key:
in its short form, or with a `cat` of literal texts and the flag's key that ends in the targeting
key. Everything else that targeting can say is skipped.
"""

from __future__ import annotations

from reprlib import repr  # noqa: A004 - short, however deep the value is
from typing import TYPE_CHECKING, Any

from abkit.bucketing.flagd import CAT, COUNT, SCHEMES
from abkit.compat.document import listed, table, text
from abkit.compat.draft import Draft, Span, Unsupported, collect, span

if TYPE_CHECKING:
    from collections.abc import Mapping

    from abkit.compat import Imported
    from abkit.compat.document import Table

_MOST = 2**31 - 1  # of all weights together
_DEEPEST = 8
_FLAG_KEY = ("$flagd.flagKey",)
_UNIT = ("targetingKey",)


def load(config: Mapping[str, Any]) -> Imported:
    """The experiments in a flagd document.

    Args:
        config: `{"flags": {key: flag}}`.

    Raises:
        ConfigError: the document is not one of flagd's; the message says where.
    """
    flags = table(config.get("flags"), "flagd: flags")
    rows = [(key, table(flag, f"flagd {key!r}")) for key, flag in flags.items()]
    return collect(rows, _draft)


def _draft(key: str, flag: Table) -> Draft:
    what = f"flagd {key!r}"
    variants = table(flag.get("variants"), f"{what}: variants")
    state = text(flag.get("state"), f"{what}: state")
    if state != "ENABLED":
        raise Unsupported(f"its state is {state}: flagd serves the default of the caller")
    if "fractional" not in table(flag.get("targeting") or {}, f"{what}: targeting"):
        raise Unsupported("its targeting is not one fractional rule")
    if len(flag["targeting"]) != 1:
        raise Unsupported("its targeting says more than one fractional rule")
    salt, fractions = _rule(key, flag["targeting"]["fractional"])
    weights = [_fraction(item, variants) for item in fractions]
    total = sum(weight for _, weight in weights)
    if not 0 < total <= _MOST:
        raise Unsupported(f"its weights must sum to 1 to {_MOST}, got {total}")
    default = _name(flag.get("defaultVariant"))
    if default and default not in variants:
        raise Unsupported(f"its default {default!r} is not among its variants")
    return Draft(
        key=key,
        hash="flagd",
        salt=salt,
        spans=_spans(weights, total),
        variants=tuple(variants),
        # The rule meets every unit: only a kill brings control, and then it is the default.
        control=default or weights[0][0],
    )


def _rule(key: str, arguments: object) -> tuple[str, list[Any]]:
    """The salt and the fractions of a rule."""
    items = listed(arguments, f"flagd {key!r}: fractional")
    if not items:
        raise Unsupported("its fractional rule is empty")
    if isinstance(items[0], (list, tuple)):
        if key.startswith(CAT):
            raise Unsupported(f"a key that begins with {CAT!r} is a salt of another kind in abkit")
        return key, items
    parts = _texts(items[0], key, 0)
    if not parts or parts.pop() is not None or None in parts:
        raise Unsupported("its fractional rule buckets by something else than the targeting key")
    return CAT + "".join(filter(None, parts)), items[1:]


def _texts(rule: object, key: str, depth: int) -> list[str | None]:
    """What a bucketing value is made of; None stands for the targeting key."""
    if depth > _DEEPEST:
        raise Unsupported(f"its fractional rule nests more than {_DEEPEST} times")
    if isinstance(rule, dict) and len(rule) == 1:
        ((operator, given),) = rule.items()
        arguments = given if isinstance(given, list) else [given]
        if operator == "var" and tuple(arguments) == _FLAG_KEY:
            return [key]
        if operator == "var" and tuple(arguments) == _UNIT:
            return [None]
        if operator == "cat" and arguments:
            return [part for one in arguments for part in _texts(one, key, depth + 1)]
    elif isinstance(rule, str):
        return [rule]
    raise Unsupported("its fractional rule buckets by something that abkit does not know")


def _fraction(item: object, variants: Table) -> tuple[str, int]:
    """The variant and the weight of one fraction; 1 is the weight where there is none."""
    if not isinstance(item, (list, tuple)) or not 1 <= len(item) <= 2:
        raise Unsupported(f"a fraction must be a variant and a weight, got {repr(item)}")
    weight = item[1] if len(item) == 2 else 1
    if not isinstance(weight, int) or isinstance(weight, bool):
        raise Unsupported(f"a weight must be a whole number, got {repr(weight)}")
    name = _name(item[0])
    if variants.get(name) is None:
        raise Unsupported(f"a fraction names {name!r}, which is not among its variants")
    return name, max(weight, 0)


def _name(variant: object) -> str:
    """The name of a variant, which may be written as true or false."""
    if isinstance(variant, bool):
        return str(variant).lower()
    if variant is not None and not isinstance(variant, str):
        raise Unsupported(f"a variant's name must be a text, true or false, got {repr(variant)}")
    return variant or ""


def _spans(weights: list[tuple[str, int]], total: int) -> tuple[Span, ...]:
    slots = SCHEMES["flagd"].split
    spans, lower, end = [], 0, 0
    for name, weight in weights:
        end += weight
        # The first hash h with `(h * total) >> 32` not below the end.
        upper = -(-(end * COUNT) // total)
        spans.append(span(slots, lower, upper, name))
        lower = upper
    return tuple(spans)
