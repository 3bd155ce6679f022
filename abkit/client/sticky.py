"""Sticky assignment: a unit keeps its variant while its attributes change."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from abkit.assignment import Sticky
    from abkit.client.sink import Rejections

DEFAULT_LIMIT = 100_000


class MemorySticky:
    """Remembers the units of this process, the latest ones up to a limit.

    Another process does not know them: where requests of one unit reach several, give the
    client a store that they share, with the same two methods.

    Args:
        limit: units remembered; the one that was asked for least recently is forgotten first.

    Examples:
        >>> sticky = MemorySticky(limit=1)
        >>> sticky.put("ranker", "ann", "1:student"), sticky.put("ranker", "bob", "1:teacher")
        (None, None)
        >>> sticky.get("ranker", "ann"), sticky.get("ranker", "bob")
        (None, '1:teacher')
    """

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        """Begin empty."""
        self._limit = limit
        self._known: OrderedDict[tuple[str, str], str] = OrderedDict()

    def get(self, experiment: str, unit_id: str) -> str | None:
        """What was put, or None."""
        key = (experiment, unit_id)
        found = self._known.get(key)
        if found is not None:
            try:
                self._known.move_to_end(key)
            except KeyError:  # another thread has just forgotten it
                return None
        return found

    def put(self, experiment: str, unit_id: str, met: str) -> None:
        """Remember it."""
        self._known[experiment, unit_id] = met
        while len(self._known) > self._limit:
            try:
                self._known.popitem(last=False)
            except KeyError:  # other threads have emptied it
                return


class GuardedSticky:
    """A sticky store whose failures are counted and otherwise mean that nothing is known.

    Args:
        store: the store of the application.
        rejected: where failures are counted, as "sticky_error".
    """

    def __init__(self, store: Sticky, rejected: Rejections) -> None:
        """Remember both."""
        self._store = store
        self._rejected = rejected

    def get(self, experiment: str, unit_id: str) -> str | None:
        """What was put, or None."""
        try:
            found = self._store.get(experiment, unit_id)
        except Exception:  # noqa: BLE001 - R1: serving goes on without memory
            self._rejected.add("sticky_error")
            return None
        return found if type(found) is str else None

    def put(self, experiment: str, unit_id: str, met: str) -> None:
        """Remember it."""
        try:
            self._store.put(experiment, unit_id, met)
        except Exception:  # noqa: BLE001 - R1
            self._rejected.add("sticky_error")
