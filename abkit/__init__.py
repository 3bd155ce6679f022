"""abkit: ship models safely, from 1 % of traffic to winner.

Serving code needs the standard library alone::

    import abkit

    ab = abkit.Client("workspace")
    a = ab.assign("ranker", "user-1")   # a.variant, a.reason
    ab.expose(a)
    ab.record("user-1", "converted", 1.0)

Analysis, the controller and plots are loaded when first asked for, and say which extra to
install where one is missing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from abkit.analysis import Report, analyze
    from abkit.assignment import Assignment
    from abkit.audit import audit_sql
    from abkit.bulk import assign_many
    from abkit.client import Client, MemorySink, MemorySticky
    from abkit.controller import Controller
    from abkit.decision import Decision, Guardrail, Objective, Policy, decide
    from abkit.errors import AbkitError
    from abkit.experiment import Experiment
    from abkit.layer import Holdout, Layer
    from abkit.metrics import Metric
    from abkit.moments import Moments
    from abkit.rollout import Rollout, Stage
    from abkit.store.reader import StoreReader
    from abkit.workspace import Workspace

# Where each public name lives. Nothing is imported before it is asked for (PEP 562).
_HOMES = {
    "AbkitError": "errors",
    "Assignment": "assignment",
    "Client": "client",
    "Controller": "controller",
    "Decision": "decision",
    "Experiment": "experiment",
    "Guardrail": "decision",
    "Holdout": "layer",
    "Layer": "layer",
    "MemorySink": "client",
    "MemorySticky": "client",
    "Metric": "metrics",
    "Moments": "moments",
    "Objective": "decision",
    "Policy": "decision",
    "Report": "analysis",
    "Rollout": "rollout",
    "Stage": "rollout",
    "StoreReader": "store.reader",
    "Workspace": "workspace",
    "analyze": "analysis",
    "assign_many": "bulk",
    "audit_sql": "audit",
    "decide": "decision",
}

__all__ = [
    "AbkitError",
    "Assignment",
    "Client",
    "Controller",
    "Decision",
    "Experiment",
    "Guardrail",
    "Holdout",
    "Layer",
    "MemorySink",
    "MemorySticky",
    "Metric",
    "Moments",
    "Objective",
    "Policy",
    "Report",
    "Rollout",
    "Stage",
    "StoreReader",
    "Workspace",
    "__version__",
    "analyze",
    "assign_many",
    "audit_sql",
    "decide",
]

# What needs more than the standard library, and the extra that brings it.
_EXTRAS = {
    "duckdb": "analysis",
    "numpy": "analysis",
    "pandas": "analysis",
    "plotly": "analysis",
    "pyarrow": "analysis",
    "rich": "analysis",
    "scipy": "analysis",
    "statsmodels": "analysis",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'abkit' has no attribute {name!r}")
    try:
        value = getattr(import_module(f"abkit.{home}"), name)
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        from abkit.errors import MissingExtraError  # noqa: PLC0415 - needed on this path only

        raise MissingExtraError(
            f"abkit.{name} needs {error.name}: pip install 'abkit-rollouts[{extra}]'"
        ) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
