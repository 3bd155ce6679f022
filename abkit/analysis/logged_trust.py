"""What a log says about its own trustworthiness: drift, losses, late and early outcomes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from abkit.analysis.doubts import RARE, p_of_counts
from abkit.analysis.windows import told_span
from abkit.check import Check
from abkit.stats.srm import balance_test
from abkit.store.drift import definitions, drift, early, late, losses

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from abkit.check import Severity
    from abkit.experiment import Experiment
    from abkit.metrics import Metric
    from abkit.snapshot import Snapshot
    from abkit.store.drift import Drift, Early, Late, Losses
    from abkit.store.logged import Events, Scope

MUCH: Final = 0.01  # share of an experiment's events that were lost, from which a check warns
LOSS_SHIFT: Final = 0.1  # shift of an even share of the losses that is looked for
FRESH: Final = 0.01  # share of units that are too young for their outcome to be there


def trust_checks(
    events: Events,
    scope: Scope,
    metrics: Iterable[Metric],
    known: Iterable[Experiment],
    snapshot: Snapshot | None,
) -> list[Check]:
    """All of them; the units of the scope have been made.

    Args:
        events: the log.
        scope: what is analysed.
        metrics: whose outcomes count.
        known: the experiment as published and as its rollout has it.
        snapshot: with the layers and holdouts.
    """
    connection, key = events.connection, scope.experiment
    names = sorted({metric.recorded for metric in metrics})
    defined = definitions(connection, key, known)
    audited, skipped = drift(
        connection,
        defined,
        scope.epochs,
        layers=[] if snapshot is None else list(snapshot.layers.values()),
        holdouts=[] if snapshot is None else list(snapshot.holdouts.values()),
    )
    found = drift_checks(audited, skipped)
    found += loss_checks(losses(connection, key))
    found += early_checks(early(connection, key, names))
    if scope.window_seconds is None and scope.watermark is not None:
        found += late_checks(late(connection, key, names, scope.watermark))
    return found


def drift_checks(audited: Sequence[Drift], skipped: Sequence[str]) -> list[Check]:
    """Exposures whose variant is not what the hash says.

    Args:
        audited: by epoch.
        skipped: why other epochs were not audited.
    """
    wrong = [item for item in audited if item.wrong]
    if wrong:
        told = "; ".join(
            f"{item.wrong:,} of {item.units:,} units of epoch {item.epoch} met another variant "
            f"than their hash says, such as {item.example!r}, logged by {item.writers} writers "
            f"such as {item.writer}"
            for item in wrong
        )
        return [
            Check(
                "assignment_drift",
                "block",
                f"{told}; serving assigned otherwise than published: find out which version or "
                "salt these writers have",
                {"wrong": sum(item.wrong for item in wrong), "epochs": [i.epoch for i in wrong]},
            )
        ]
    units = sum(item.units for item in audited)
    if not units and not skipped:
        return []
    text = f"the hash of {units:,} exposed units was computed again: all met the variant it says"
    text = "no assignment could be computed again" if not units else text
    left = f"; left out: {', '.join(skipped)}" if skipped else ""
    return [Check("assignment_drift", "info", text + left, {"wrong": 0, "units": units})]


def loss_checks(found: Losses) -> list[Check]:
    """Events that writers dropped, by variant, and those that nobody explains."""
    checks = []
    lost, stored = sum(found.dropped.values()), sum(found.stored.values())
    if lost:
        every = {
            name: found.dropped.get(name, 0) + found.stored.get(name, 0)
            for name in {*found.dropped, *found.stored}
        }
        shares = {name: found.dropped.get(name, 0) / n for name, n in sorted(every.items()) if n}
        told = ", ".join(f"{share:.2%} of {name}" for name, share in shares.items())
        why = ", ".join(f"{n:,} {reason}" for reason, n in sorted(found.reasons.items()))
        e_value, status = 1.0, "ok"
        if len(every) > 1:
            weights = {k: float(n) for k, n in every.items() if n}
            test = balance_test(dict(found.dropped), weights, share_shift=LOSS_SHIFT)
            e_value, status = test.e_value, test.status
        much = lost > MUCH * (lost + stored)
        severity: Severity = "warn" if status == "warn" or (much and status == "ok") else "info"
        severity = "block" if status == "block" else severity
        differs = "; the loss depends on the variant" if status != "ok" else ""
        checks.append(
            Check(
                "logging_loss",
                severity,
                f"writers dropped {lost:,} events: {told} ({why}; e-value {e_value:.3g}){differs}",
                {"dropped": dict(found.dropped), "e_value": e_value, "shares": shares},
            )
        )
    if found.unexplained:
        checks.append(
            Check(
                "unexplained_events",
                "warn",
                f"{found.unexplained:,} sequence numbers of the log are explained by nothing, of "
                "whichever variant: files are gone, or a writer was killed; see `abkit reconcile`",
                {"events": found.unexplained},
            )
        )
    return checks


def early_checks(found: Early) -> list[Check]:
    """Outcomes from before the exposure, which count for nothing."""
    total = sum(found.events.values())
    if not total:
        return []
    p = p_of_counts(found.early, found.units)
    shares = {name: found.early[name] / n for name, n in found.units.items() if n}
    told = ", ".join(f"{share:.2%} of {name}" for name, share in shares.items())
    text = (
        f"{total:,} outcomes came more than a minute before the exposure of their unit and are not "
        f"counted: {told} of the units have some"
    )
    odd = p < RARE
    if odd:
        text += f" (p {p:.2g}); arms differ in what came before: is one exposed later than served?"
    evidence = {"events": dict(found.events), "units": dict(found.early), "p_value": p}
    return [Check("early_outcomes", "warn" if odd else "info", text, evidence)]


def late_checks(found: Sequence[Late]) -> list[Check]:
    """Outcomes that take longer in one variant, while units are young enough for it to matter."""
    checks = []
    for item in found:
        p = p_of_counts(item.late, item.answered) * len(found)
        if p >= RARE or item.fresh < FRESH:
            continue
        told = ", ".join(f"{item.late[k] / n:.1%} of {k}" for k, n in item.answered.items())
        checks.append(
            Check(
                "late_outcomes",
                "warn",
                f"first outcomes of {item.metric!r} take longer than "
                f"{told_span(max(0.0, item.seconds))} for {told} (p {p:.2g}), and {item.fresh:.1%} "
                "of the units are younger than that: the slower variant lacks outcomes that are "
                "still to come; give a window",
                {"metric": item.metric, "p_value": min(1.0, p), "fresh": item.fresh},
            )
        )
    return checks
