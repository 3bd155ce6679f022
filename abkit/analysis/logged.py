"""`analyze` on a workspace: what serving code logged -> one row per unit, and what to say of it."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from abkit.analysis.given import margins_of
from abkit.analysis.logged_checks import (
    Shares,
    cells_of,
    check_units,
    metric_check,
    shares_of,
    unit_checks,
    unseen_checks,
    watermark_check,
    weights_of,
)
from abkit.analysis.logged_trust import trust_checks
from abkit.analysis.options import names_of
from abkit.analysis.relative import of_logarithms
from abkit.analysis.rules import explained_by_rule
from abkit.analysis.windows import moment_of, seconds_of
from abkit.errors import ConfigError, DataError, UnknownExperimentError
from abkit.metrics import Metric
from abkit.records import hint
from abkit.store.logged import (
    EPOCH,
    LABELS,
    UNIT,
    VARIANT,
    Events,
    Scope,
    Watermark,
    before_name,
    open_events,
)
from abkit.store.reader import StoreReader
from abkit.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from abkit.analysis.report import Report, Result
    from abkit.experiment import Experiment
    from abkit.store.logged import Units

_OF_TABLES: Final = ("unit", "variant", "cluster", "paired", "delivered")


@dataclass(frozen=True, slots=True)
class Definition:
    """What is known of an experiment before its events are read.

    Args:
        experiment: as published; None if it never was.
        epochs: first and last epoch of its current run; the last is None without an end.
        shares: intended share by epoch and variant, as far as it is known.
    """

    experiment: Experiment | None
    epochs: tuple[int, int | None]
    shares: Shares


def workspace_of(data: object) -> Path | None:
    """The folder of a workspace, if the data is one; None for tables."""
    if isinstance(data, Workspace):
        return data.path
    if isinstance(data, StoreReader):
        return data.workspace
    if isinstance(data, (str, os.PathLike)) and Path(data).is_dir():
        return Path(data)
    return None


def check_table(given: Mapping[str, Any]) -> tuple[str, str, str | int | bool]:
    """Reject options of `analyze` that a table lacks, or that only a workspace has.

    Returns:
        Columns of unit and variant, and the control.

    Raises:
        ConfigError: a column is not named, or an option does not belong to a table.
    """
    for name, what in (("unit", "column of the unit"), ("variant", "column of the variant")):
        if given[name] is None:
            raise ConfigError(f"a table needs {name}, the {what} (--{name})")
    if given["control"] is None:
        raise ConfigError("a table needs control, the value of control (--control)")
    for name in ("experiment", "window", "watermark"):
        if given[name] is not None:
            raise ConfigError(
                f"{name} is for a workspace folder with a log, and {_shown(given['data'])} is none"
            )
    return given["unit"], given["variant"], given["control"]


def analyze_logged(analyze: Callable[..., Report], given: Mapping[str, Any]) -> Report:
    """Analyse the units of an experiment in a workspace.

    Args:
        analyze: the analysis of a table of units.
        given: all arguments of `analyze` by name.

    Raises:
        ConfigError: an option is missing, or does not fit a workspace or this experiment.
        UnknownExperimentError: neither the snapshot nor the log knows the experiment.
        DataError: there is nothing to analyse yet.
        StoreError: the folder is no workspace, or cannot be read.
    """
    path = workspace_of(given["data"])
    assert path is not None  # noqa: S101 - the caller asked
    workspace = _workspace(path)
    key = _check_options(given, workspace)
    defined = definition_of(workspace, key)
    window = None if given["window"] is None else seconds_of(given["window"])
    moment = moment_of(given["watermark"])
    with open_events(path) as events:
        control = _control(given["control"], key, defined, events, workspace)
        metrics, unseen = _metrics(given, key, defined, events)
        before = [_metric(defined, name) for name in names_of("covariates", given["covariates"])]
        _check_margins(given["margins"], metrics)
        _check_seen(before, key, events)
        watermark = events.watermark()
        if moment is not None:
            watermark = Watermark(moment, moment)
        scope = Scope(
            experiment=key,
            epochs=(defined.epochs[0], defined.epochs[1] or max(1, events.last_epoch(key))),
            metrics=tuple(metrics.values()),
            before=tuple(before),
            window_seconds=window,
            watermark=None if watermark is None else watermark.time,
        )
        units = events.units(scope)
        check_units(units, scope, path)
        known = () if defined.experiment is None else (defined.experiment,)
        trust = trust_checks(events, scope, metrics.values(), known, workspace.snapshot())
    shares, strange = shares_of(units, defined.shares)
    table = _as_table(given, units, shares)
    table |= {"control": control, "metrics": _kinds(given, metrics, defined)}
    report = analyze(**table)
    found = [
        *unit_checks(units),
        *strange,
        *trust,
        *unseen_checks(unseen),
        metric_check([*metrics.values(), *before]),
        watermark_check(units, scope, watermark),
    ]
    results = tuple(_of_values(item, metrics) for item in report.results)
    checks = (*report.checks, *map(explained_by_rule, found))
    log = _facts(scope, control, units)
    return replace(report, results=results, checks=checks, log=log)


def _of_values(item: Result, metrics: Mapping[str, Metric]) -> Result:
    """A result whose lift is that of the values, where the log's numbers became logarithms."""
    column = item.metric.rpartition(" p")[0] if item.kind == "quantile" else item.metric
    metric = metrics.get(column)
    if metric is None or not metric.log:
        return item
    return replace(item, estimate=of_logarithms(item.estimate))


def _check_margins(margins: Mapping[str, Any], metrics: Mapping[str, Metric]) -> None:
    """A share of a mean of logarithms is no margin."""
    for name, share in margins_of(margins)[1].items():
        if name in metrics and metrics[name].log:
            raise ConfigError(
                f"the values of {name!r} are logarithms, of which a share says nothing; a margin "
                f"of {100 * share:g} % is {math.log1p(share):.4g}"
            )


def _as_table(given: Mapping[str, Any], units: Units, shares: Shares | None) -> dict[str, Any]:
    """Arguments of `analyze` for the table of units."""
    several = len(cells_of(units)) > 1
    epoch = EPOCH if given["epoch"] is None and several else given["epoch"]
    weights = given["weights"]
    return {
        **given,
        "data": units.table,
        "experiment": None,
        "window": None,
        "watermark": None,
        "unit": UNIT,
        "variant": VARIANT,
        "covariates": [before_name(name) for name in names_of("covariates", given["covariates"])],
        "missing": "exclude",
        "epoch": epoch,
        "weights": weights_of(shares, ramp=epoch is not None) if weights is None else weights,
    }


def definition_of(workspace: Workspace, key: str) -> Definition:
    """The published experiment, the epochs of its current run, and what is known of its shares.

    A rollout that came before is another run: its epochs, with another treatment perhaps and
    another salt, are left out.

    Args:
        workspace: the workspace.
        key: of the experiment.
    """
    snapshot = workspace.snapshot()
    experiment = None if snapshot is None else snapshot.experiments.get(key)
    rollouts = [
        item
        for item in workspace.rollouts(on_damage=lambda _path, _error: None)
        if item.experiment.key == key and item.allocations
    ]
    if not rollouts:
        shares = {} if experiment is None else {experiment.epoch: experiment.weights}
        return Definition(experiment, (1, None), shares)
    last = max(rollouts, key=lambda item: item.last_epoch)
    if experiment is not None and experiment.epoch > last.last_epoch:
        shares = {experiment.epoch: experiment.weights}
        return Definition(experiment, (last.last_epoch + 1, None), shares)
    return Definition(
        last.experiment if experiment is None else experiment,
        (last.first_epoch, last.last_epoch),
        dict(last.allocations),
    )


def _workspace(path: Path) -> Workspace:
    if not (path / "log").is_dir() and not (path / "snapshot.json").is_file():
        raise ConfigError(
            f"no workspace {os.fspath(path)!r}: it has neither a log nor a snapshot; give the "
            "folder that serving code writes to, or the file of a table"
        )
    return Workspace(path)


def _check_options(given: Mapping[str, Any], workspace: Workspace) -> str:
    """The experiment's key, once the options fit a workspace."""
    key = given["experiment"]
    if not isinstance(key, str) or not key:
        raise ConfigError(
            f"a workspace needs experiment, the key of one (--experiment); there is "
            f"{', '.join(_published(workspace)) or 'none published yet'}"
        )
    for name in _OF_TABLES:
        if given.get(name):
            raise ConfigError(
                f"{name} is for tables; in a workspace the log says what a unit is and what it got"
            )
    if given["missing"] != "error":
        raise ConfigError(
            "missing is for tables; in a workspace the definition of each metric says whether a "
            "unit without an outcome counts as 0 or is left out (missing = 'zero' or 'exclude')"
        )
    for name in names_of("segments", given["segments"]):
        if name not in LABELS:
            raise ConfigError(
                f"no segment {name!r}: exposures hold no attributes of a unit; join them to a "
                f"table of your own, or use one of {EPOCH}"
            )
    return key


def _published(workspace: Workspace) -> list[str]:
    snapshot = workspace.snapshot()
    return [] if snapshot is None else sorted(snapshot.experiments)


def _control(
    given: object, key: str, defined: Definition, events: Events, workspace: Workspace
) -> str:
    if defined.experiment is None:
        logged = events.experiments()
        if key not in logged:
            known = dict.fromkeys([*_published(workspace), *logged])
            told = hint(key, known) if known else "; none is published and none was logged"
            raise UnknownExperimentError(f"no experiment {key!r} in {workspace.path}{told}")
        if given is None:
            raise ConfigError(
                f"the log has exposures of {key!r}, but no snapshot says which variant is its "
                "control; give control (--control)"
            )
    if given is not None:
        return str(given)
    assert defined.experiment is not None  # noqa: S101 - see above
    return defined.experiment.control


def _metric(defined: Definition, name: str) -> Metric:
    return Metric(key=name) if defined.experiment is None else defined.experiment.metric(name)


def _declared(defined: Definition) -> dict[str, Metric]:
    metrics = () if defined.experiment is None else defined.experiment.metrics
    return {metric.key: metric for metric in metrics}


def _metrics(
    given: Mapping[str, Any], key: str, defined: Definition, events: Events
) -> tuple[dict[str, Metric], list[str]]:
    """The metrics whose columns are needed, and declared ones that were never recorded."""
    declared = _declared(defined)
    seen = dict.fromkeys(events.metrics(key))
    names = list(dict.fromkeys(_columns(given)))
    if not names:
        if not declared:
            told = f"; recorded were {', '.join(seen)}" if seen else ""
            raise ConfigError(f"experiment {key!r} declares no metrics; name some{told}")
        names = [name for name, metric in declared.items() if metric.recorded in seen]
        if not names:
            raise DataError(
                f"no outcome of {', '.join(declared)} is in the log yet, so {key!r} has nothing to "
                "compare; serving logs them with record()"
            )
        unseen = [name for name in declared if name not in names]
    else:
        unseen = []
    found = {name: _metric(defined, name) for name in names}
    _check_seen(found.values(), key, events)
    folded: dict[str, str] = {name: name for name in LABELS}
    for name in found:
        other = folded.setdefault(name.lower(), name)
        if other != name or name in LABELS:
            raise ConfigError(
                f"metric {name!r} cannot stand beside {other!r} in one table, whose columns do "
                "not differ by case; analyse it on its own or rename it"
            )
    return found, unseen


def _columns(given: Mapping[str, Any]) -> list[str]:
    """Names of the metrics that the options need."""
    found = list(names_of("metrics", given["metrics"]))
    for term in (given.get("ratios") or {}).values():
        found += term
    counts = given.get("counts") or ()
    for term in counts.values() if isinstance(counts, Mapping) else counts:
        found += [term] if isinstance(term, str) else term
    found += given.get("quantiles") or ()
    return list(names_of("metrics", found))


def _check_seen(metrics: Iterable[Metric], key: str, events: Events) -> None:
    """A metric that nobody has recorded is unknown, not zero: it may be misspelt."""
    seen = dict.fromkeys(events.metrics(key))
    for metric in metrics:
        if metric.recorded not in seen:
            told = hint(metric.recorded, seen) if seen else "; the log has no outcomes yet"
            raise DataError(f"no outcome of metric {metric.recorded!r} in {key!r}{told}")


def _kinds(
    given: Mapping[str, Any], metrics: Mapping[str, Metric], defined: Definition
) -> dict[str, Any]:
    """Kind of each metric that is compared as such: as declared, else as given."""
    declared = _declared(defined)
    asked = given["metrics"]
    others = any(given.get(name) for name in ("ratios", "counts", "quantiles"))
    if not asked and not others:
        asked = list(metrics)
    wanted: dict[str, Any] = dict(asked) if isinstance(asked, Mapping) else dict.fromkeys(asked)
    for name, kind in wanted.items():
        if name not in declared:
            continue
        if kind is not None and kind != declared[name].kind:
            raise ConfigError(
                f"metric {name!r} is declared as {declared[name].kind!r}, got {kind!r}; leave the "
                "kind out"
            )
        wanted[name] = declared[name].kind
    return wanted


def _facts(scope: Scope, control: str, units: Units) -> dict[str, Any]:
    until = scope.watermark
    return {
        "experiment": scope.experiment,
        "control": control,
        "epochs": list(scope.epochs),
        "watermark": None if until is None else f"{until.isoformat()}Z",
        "window_seconds": scope.window_seconds,
        "exposed": units.exposed,
        "matured": units.matured,
        "metrics": [metric.to_dict() for metric in scope.metrics],
    }


def _shown(data: object) -> str:
    return repr(os.fspath(data)) if isinstance(data, (str, os.PathLike)) else "the table"
