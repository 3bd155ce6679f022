"""A vendor's names -> names that are lawful in abkit."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import TYPE_CHECKING

from abkit.metrics import NAME_PATTERN

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

_UNLAWFUL = re.compile(r"[^A-Za-z0-9_.-]+")
_ROOM = 64


def lawful(names: Iterable[str]) -> dict[str, str]:
    """A lawful name for each of some names, none given twice.

    A lawful name stays as it is. Another one keeps what is lawful of it, and a part of its own
    digest behind: it depends on the other names only where two digests begin alike.

    Args:
        names: any texts.

    Returns:
        The lawful name of each.

    Examples:
        >>> lawful(["new-model", "new model"])
        {'new-model': 'new-model', 'new model': 'new-model-d556e02a'}
    """
    wanted = list(dict.fromkeys(names))
    found = {name: name for name in wanted if NAME_PATTERN.match(name)}
    taken = set(found)
    for name in sorted(set(wanted) - taken):
        digest = sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
        stem = _UNLAWFUL.sub("-", name).strip("-_.")
        candidates = (_joined(stem, digest[:digits]) for digits in range(8, _ROOM))
        found[name] = next(one for one in candidates if one not in taken)
        taken.add(found[name])
    return {name: found[name] for name in wanted}


def fresh(name: str, taken: Collection[str]) -> str:
    """The name, or the name with the first number behind it that is not taken."""
    if name not in taken:
        return name
    return next(one for n in range(2, len(taken) + 3) if (one := f"{name}-{n}") not in taken)


def _joined(stem: str, digest: str) -> str:
    stem = stem[: _ROOM - 1 - len(digest)]
    return f"{stem}-{digest}" if stem else digest
