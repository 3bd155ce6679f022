"""Forced variants: what a test or a person asks for, whoever the unit is."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from abkit.assignment import Arm, Assignment, plain_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from abkit.client.sink import Rejections
    from abkit.snapshot import Snapshot


class Forcing:
    """The forced variants of one client, each thread's and asyncio task's own.

    Args:
        rejected: where variants are counted that an experiment does not have.
    """

    def __init__(self, rejected: Rejections) -> None:
        """Begin with none."""
        self._variable: ContextVar[dict[str, str]] = ContextVar("abkit-forced")
        self._rejected = rejected

    @contextmanager
    def inside(self, variants: Mapping[str, str]) -> Iterator[None]:
        """Force these inside a block, besides what is forced around it."""
        try:
            wanted = {**self._variable.get({}), **variants}
        except Exception:  # noqa: BLE001 - R1: not a mapping
            self._rejected.add("invalid_forced_variants")
            wanted = {}
        token = self._variable.set(wanted)
        try:
            yield
        finally:
            try:
                self._variable.reset(token)
            except ValueError:
                # The block ends in another context than it began in, as that of a generator
                # which a framework runs in two threads; it forced nothing that outlives it.
                self._rejected.add("force_ended_elsewhere")

    def of(self, snapshot: Snapshot | None, experiment: str, unit_id: object) -> Assignment | None:
        """The forced assignment, or None where nothing lawful is forced."""
        variant = self._variable.get({}).get(experiment)
        found = None if snapshot is None else snapshot.experiments.get(experiment)
        if variant is None:
            return None
        if snapshot is None or found is None:
            self._rejected.add("unknown_forced_experiment")
            return None
        if found.state != "running":
            return None
        if variant not in found.variants:
            self._rejected.add("unknown_forced_variant")
            return None
        arm = Arm(
            found.key, variant, "forced", False, found.epoch, snapshot.version, snapshot.checksum
        )
        return Assignment(plain_text(unit_id), arm)
