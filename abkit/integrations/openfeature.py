"""OpenFeature: a provider, for code that evaluates flags through the OpenFeature SDK.

::

    from openfeature import api
    from abkit.integrations.openfeature import AbkitProvider

    api.set_provider(AbkitProvider(ab, values={"banner": {"on": True, "off": False}}))
    flags = api.get_client()
    context = EvaluationContext("user-1", {"country": "DE"})
    flags.get_string_value("ranker", "teacher", context)      # the variant's name
    flags.get_boolean_value("banner", False, context)         # its value
    flags.track("converted", context, TrackingEventDetails(1.0))

A flag is an experiment, the targeting key its unit, the other attributes are for targeting. The
SDK around it costs several times what `client.assign` does: the hot path stays direct.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any, TypeVar

from abkit.bucketing import SPACE
from abkit.errors import ConfigError, MissingExtraError

try:
    from openfeature.event import ProviderEventDetails
    from openfeature.exception import ErrorCode, ProviderNotReadyError
    from openfeature.flag_evaluation import FlagResolutionDetails, Reason
    from openfeature.provider import AbstractProvider, Metadata
except ModuleNotFoundError as error:
    raise MissingExtraError(
        f"abkit.integrations.openfeature needs {error.name}: "
        "pip install 'abkit-rollouts[openfeature]'"
    ) from error

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from openfeature.evaluation_context import EvaluationContext
    from openfeature.flag_evaluation import FlagValueType
    from openfeature.track import TrackingEventDetails

    from abkit.assignment import Assignment
    from abkit.client import Client
    from abkit.experiment import Experiment
    from abkit.snapshot import Snapshot

    Structure = Sequence[FlagValueType] | Mapping[str, FlagValueType]

_T = TypeVar("_T")

# A unit inside an experiment is "split"; `_reason_inside` knows the cases that are no split.
_REASONS = {
    "sticky": Reason.SPLIT,
    "override": Reason.TARGETING_MATCH,
    "forced": Reason.STATIC,
    "holdout": Reason.DEFAULT,
    "layer": Reason.DEFAULT,
    "targeting": Reason.DEFAULT,
    "rollout": Reason.DEFAULT,
    "killed": Reason.DISABLED,
    "draft": Reason.DISABLED,
}
_ERRORS = {
    "unknown_experiment": (ErrorCode.FLAG_NOT_FOUND, "no experiment has this key"),
    "no_snapshot": (ErrorCode.PROVIDER_NOT_READY, "no snapshot has been read yet"),
    "invalid_unit": (ErrorCode.INVALID_CONTEXT, "the targeting key is not usable as a unit"),
    "error": (ErrorCode.GENERAL, "the client failed; see its health"),
}


class AbkitProvider(AbstractProvider):
    """Resolves flags from the experiments of a client; nothing it does blocks or raises.

    A string flag is the variant's name. Other types, and other texts, come from `values`; a value
    of another type than was asked for is the error TYPE_MISMATCH, and a whole number serves as
    either kind of number. Control is resolved, with the reason DISABLED, for a killed experiment
    and for a draft, and with the reason DEFAULT for units kept outside.

    A change of the snapshot is noticed by the next evaluation, which emits
    PROVIDER_CONFIGURATION_CHANGED, or PROVIDER_READY for the first one. There is no thread.

    Args:
        client: assigns and logs.
        values: the value of each variant, by key of experiment; none for an experiment whose
            variants stand for themselves.
        expose: log an exposure with each evaluation of a unit inside an experiment. False where
            code evaluates what it may not show; it then calls `client.expose` itself.
        close: close the client at shutdown, rather than flush it.

    Raises:
        ConfigError: `values` is not a mapping of mappings.
    """

    def __init__(
        self,
        client: Client,
        *,
        values: Mapping[str, Mapping[str, Any]] | None = None,
        expose: bool = False,
        close: bool = False,
    ) -> None:
        """Check the values; read nothing yet."""
        super().__init__()
        self._client = client
        self._values = {} if values is None else _checked(values)
        self._expose = expose
        self._close = close
        self._snapshot: Snapshot | None = None
        self._inside: dict[str, Reason] = {}

    def get_metadata(self) -> Metadata:
        """The name of the provider."""
        return Metadata("abkit")

    def initialize(self, evaluation_context: EvaluationContext) -> None:
        """Take note of the snapshot.

        Raises:
            ProviderNotReadyError: there is none yet; the status is then ERROR until the first
                evaluation that finds one, and defaults are returned.
        """
        del evaluation_context
        self._take(self._client.snapshot())
        if self._snapshot is None:
            raise ProviderNotReadyError(_ERRORS["no_snapshot"][1])

    def shutdown(self) -> None:
        """Hand events to the system, and begin anew if initialised again."""
        self._take(None)
        if self._close:
            self._client.close()
        else:
            self._client.flush()

    def track(
        self,
        tracking_event_name: str,
        evaluation_context: EvaluationContext | None = None,
        tracking_event_details: TrackingEventDetails | None = None,
    ) -> None:
        """Record an outcome of the unit.

        Args:
            tracking_event_name: key of the metric.
            evaluation_context: its targeting key is the unit.
            tracking_event_details: its value is the outcome, 1 if there is none; attributes are
                not kept.
        """
        details = tracking_event_details
        value = 1.0 if details is None or details.value is None else details.value
        self._client.record(_unit(evaluation_context), tracking_event_name, value)

    def resolve_boolean_details(
        self,
        flag_key: str,
        default_value: bool,  # noqa: FBT001 - the SDK's signature
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[bool]:
        """The value of the unit's variant, where it is true or false."""
        return self._resolve(flag_key, default_value, evaluation_context, _boolean)

    def resolve_string_details(
        self,
        flag_key: str,
        default_value: str,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[str]:
        """The name of the unit's variant, or its value where that is a text."""
        return self._resolve(flag_key, default_value, evaluation_context, _string)

    def resolve_integer_details(
        self,
        flag_key: str,
        default_value: int,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[int]:
        """The value of the unit's variant, where it is a whole number."""
        return self._resolve(flag_key, default_value, evaluation_context, _integer)

    def resolve_float_details(
        self,
        flag_key: str,
        default_value: float,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[float]:
        """The value of the unit's variant, where it is a number."""
        return self._resolve(flag_key, default_value, evaluation_context, _float)

    def resolve_object_details(
        self,
        flag_key: str,
        default_value: Structure,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[Structure]:
        """The value of the unit's variant, where it is a dict or list; a copy of its own."""
        return self._resolve(flag_key, default_value, evaluation_context, _object)

    async def resolve_boolean_details_async(
        self,
        flag_key: str,
        default_value: bool,  # noqa: FBT001 - the SDK's signature
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[bool]:
        """The same; it waits for nothing."""
        return self._resolve(flag_key, default_value, evaluation_context, _boolean)

    async def resolve_string_details_async(
        self,
        flag_key: str,
        default_value: str,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[str]:
        """The same; it waits for nothing."""
        return self._resolve(flag_key, default_value, evaluation_context, _string)

    async def resolve_integer_details_async(
        self,
        flag_key: str,
        default_value: int,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[int]:
        """The same; it waits for nothing."""
        return self._resolve(flag_key, default_value, evaluation_context, _integer)

    async def resolve_float_details_async(
        self,
        flag_key: str,
        default_value: float,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[float]:
        """The same; it waits for nothing."""
        return self._resolve(flag_key, default_value, evaluation_context, _float)

    async def resolve_object_details_async(
        self,
        flag_key: str,
        default_value: Structure,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[Structure]:
        """The same; it waits for nothing."""
        return self._resolve(flag_key, default_value, evaluation_context, _object)

    def _resolve(
        self,
        flag_key: str,
        default: _T,
        context: EvaluationContext | None,
        typed: Callable[[Any], _T | None],
    ) -> FlagResolutionDetails[_T]:
        snapshot = self._client.snapshot()
        if snapshot is not self._snapshot:
            try:
                self._tell(snapshot)
            except Exception:  # noqa: BLE001 - R1: a handler's affair, not the flag's
                self._client.rejected.add("provider_event_error")
        unit = _unit(context)
        found = self._client.assign(flag_key, unit, None if context is None else context.attributes)
        error = _ERRORS.get(found.reason)
        if error is not None:
            if found.reason == "invalid_unit" and unit == "":
                error = (ErrorCode.TARGETING_KEY_MISSING, "the context has no targeting key")
            return _failed(default, *error)
        table = self._values.get(flag_key)
        if table is not None and found.variant not in table:
            message = f"`values` has nothing for the variant {found.variant!r} of {flag_key!r}"
            return _failed(default, ErrorCode.PARSE_ERROR, message)
        value = typed(found.variant if table is None else table[found.variant])
        if value is None:
            message = f"the variant {found.variant!r} of {flag_key!r} has a value of another type"
            return _failed(default, ErrorCode.TYPE_MISMATCH, message)
        if self._expose and found.in_experiment:
            self._client.expose(found)
        reason = _REASONS.get(found.reason) or self._inside.get(flag_key, Reason.SPLIT)
        return FlagResolutionDetails(
            value, reason=reason, variant=found.variant, flag_metadata=_metadata(found)
        )

    def _tell(self, snapshot: Snapshot | None) -> None:
        """Take note of another snapshot, and emit the event that says so."""
        before = self._snapshot
        self._take(snapshot)
        if snapshot is None:
            return
        details = ProviderEventDetails(
            flags_changed=_changed(before, snapshot),
            metadata={"version": snapshot.version, "snapshot": snapshot.checksum},
        )
        if before is None:
            self.emit_provider_ready(details)
        else:
            self.emit_provider_configuration_changed(details)

    def _take(self, snapshot: Snapshot | None) -> None:
        experiments = {} if snapshot is None else snapshot.experiments
        self._inside = {key: _reason_inside(item) for key, item in experiments.items()}
        self._snapshot = snapshot


def _reason_inside(experiment: Experiment) -> Reason:
    """Why a unit inside has its variant: by the split, or, where all get one, by what remains."""
    ranges = experiment.ranges
    is_split = (
        len({item.variant for item in ranges}) != 1
        or sum(item.width for item in ranges) != SPACE
        or experiment.rollout < 1.0
        or bool(experiment.layer)
        or bool(experiment.holdouts)
    )
    if is_split:
        return Reason.SPLIT
    if experiment.targeting is not None:
        return Reason.TARGETING_MATCH
    return Reason.DEFAULT if experiment.overrides else Reason.STATIC


def _changed(before: Snapshot | None, after: Snapshot) -> list[str]:
    """Keys of the experiments that are new, gone or different."""
    old = {} if before is None else before.experiments
    new = after.experiments
    if before is not None and (before.layers, before.holdouts) != (after.layers, after.holdouts):
        return sorted(set(old) | set(new))
    return sorted(key for key in set(old) | set(new) if old.get(key) != new.get(key))


def _unit(context: EvaluationContext | None) -> str:
    return "" if context is None or context.targeting_key is None else context.targeting_key


def _metadata(found: Assignment) -> dict[str, bool | int | float | str]:
    metadata: dict[str, bool | int | float | str] = {
        "version": found.version,
        "epoch": found.epoch,
        "snapshot": found.snapshot,
        "in_experiment": found.in_experiment,
        "reason": found.reason,
    }
    bucket = found.bucket
    if bucket is not None:
        metadata["bucket"] = bucket
    return metadata


def _failed(default: _T, code: ErrorCode, message: str) -> FlagResolutionDetails[_T]:
    return FlagResolutionDetails(
        default, error_code=code, error_message=message, reason=Reason.ERROR
    )


def _checked(values: object) -> dict[str, dict[str, Any]]:
    if not isinstance(values, Mapping):
        raise ConfigError(f"values must be a mapping by key of experiment, got {values!r}")
    for key, table in values.items():
        if not isinstance(table, Mapping):
            raise ConfigError(
                f"values[{key!r}] must be a mapping from variant to value, got {table!r}"
            )
    return {key: dict(table) for key, table in values.items()}


# Each gives a value as the type that was asked for, or None where that would change it.


def _boolean(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _string(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _integer(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) else None


def _float(value: object) -> float | None:
    if isinstance(value, float):
        return value
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if number == value else None


def _object(value: object) -> Structure | None:
    # A copy: what one request changes in it must not reach another.
    return deepcopy(value) if isinstance(value, dict | list) else None
