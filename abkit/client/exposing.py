"""One assigned answer from beginning to end: exposure, duration, failure, models by variant."""

from __future__ import annotations

import inspect
import time
from functools import wraps
from typing import TYPE_CHECKING, Any

from abkit.assignment import Assignment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from abkit.client import Client
    from abkit.client.outcomes import Recording


class Exposing:
    """The block in which a unit meets its variant, for `with` and `async with` alike.

    The exposure is logged when the block begins, so that a variant that fails is not missing
    from the comparison. What the block raises goes on to the caller.
    """

    __slots__ = ("_client", "_recording", "_started", "assignment", "has_failed")

    def __init__(self, client: Client, assignment: Assignment, recording: Recording) -> None:
        """Remember what to record."""
        self.assignment = assignment
        self._client = client
        self._recording = recording
        self._started = 0.0
        self.has_failed = False
        """Whether a model failed, also where another answered in its place."""

    def __enter__(self) -> Assignment:
        """Log the exposure; the block is given the assignment."""
        if self.assignment.in_experiment:
            self._client.expose(self.assignment)
        self._started = time.perf_counter()
        return self.assignment

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        """Record the duration and whether the block failed, where metrics were named."""
        # A cancelled request, a closed stream or an interrupt says nothing about the model.
        if kind is not None and not issubclass(kind, Exception):
            return
        self.finish(failed=self.has_failed or kind is not None)

    def finish(self, *, failed: bool) -> None:
        """Record the duration so far."""
        found, spent = self.assignment, time.perf_counter() - self._started
        record = self._recording.failed if failed else self._recording.answered
        record(self._client, found, found.variant, spent)

    async def __aenter__(self) -> Assignment:
        """The same."""
        return self.__enter__()

    async def __aexit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        """The same."""
        self.__exit__(kind, *rest)


class Route:
    """A decorator: the model of the assigned variant becomes the first argument of a function.

    Made by `Client.route`, which describes the arguments.
    """

    def __init__(
        self,
        client: Client,
        experiment: str,
        *,
        unit: str | Callable[..., object],
        models: Mapping[str, Any],
        default: str,
        attributes: Callable[..., Mapping[str, Any] | None] | None,
        recording: Recording,
        rescue: bool,
    ) -> None:
        """Remember the arguments."""
        self._client = client
        self._experiment = experiment
        self._unit = unit
        self._models = models
        self._default = default
        self._attributes = attributes
        self._recording = recording
        self._rescue = rescue

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function `f(model, ...)`; the wrapped one is called without the model."""
        unit_of = self._unit if callable(self._unit) else _argument(function, self._unit)
        kind = _kind(function)
        in_one_piece = self._rescue or self._recording.measure is not None
        if in_one_piece and kind in ("generator", "async generator"):
            raise TypeError(
                f"{_name(function)} yields its answer in parts: it cannot be rescued or "
                "measured by `route`; record what is known at its end"
            )
        wrapped: Callable[..., Any] = self._wrapped(function, kind, unit_of)
        _hide_model(wrapped, function)
        return wrapped

    def _wrapped(self, function: Any, kind: str, unit_of: Any) -> Any:
        """A function of the same kind: frameworks look whether it is a coroutine function."""
        if kind == "coroutine":

            @wraps(function)
            async def later(*args: Any, **kwargs: Any) -> Any:
                return await self._later(function, unit_of, args, kwargs)

            return later
        if kind == "async generator":

            @wraps(function)
            async def stream_later(*args: Any, **kwargs: Any) -> Any:
                async for part in self._stream_later(function, unit_of, args, kwargs):
                    yield part

            return stream_later
        if kind == "generator":

            @wraps(function)
            def stream(*args: Any, **kwargs: Any) -> Any:
                return (yield from self._stream(function, unit_of, args, kwargs))

            return stream

        @wraps(function)
        def now(*args: Any, **kwargs: Any) -> Any:
            return self._now(function, unit_of, args, kwargs)

        return now

    def _now(self, function: Any, unit_of: Any, args: Any, kwargs: Any) -> Any:
        assignment, model = self._begin(function, unit_of, args, kwargs)
        block = Exposing(self._client, assignment, self._recording)
        with block:
            try:
                answer = function(model, *args, **kwargs)
            except Exception:
                if not self._may_rescue(assignment):
                    raise
                block.has_failed = True
                answer = function(self._models[self._default], *args, **kwargs)
        self._recording.measured(self._client, assignment, assignment.variant, answer)
        return answer

    async def _later(self, function: Any, unit_of: Any, args: Any, kwargs: Any) -> Any:
        assignment, model = self._begin(function, unit_of, args, kwargs)
        block = Exposing(self._client, assignment, self._recording)
        with block:
            try:
                answer = await function(model, *args, **kwargs)
            except Exception:
                if not self._may_rescue(assignment):
                    raise
                block.has_failed = True
                answer = await function(self._models[self._default], *args, **kwargs)
        self._recording.measured(self._client, assignment, assignment.variant, answer)
        return answer

    def _stream(self, function: Any, unit_of: Any, args: Any, kwargs: Any) -> Any:
        assignment, model = self._begin(function, unit_of, args, kwargs)
        with Exposing(self._client, assignment, self._recording):
            return (yield from function(model, *args, **kwargs))

    async def _stream_later(self, function: Any, unit_of: Any, args: Any, kwargs: Any) -> Any:
        assignment, model = self._begin(function, unit_of, args, kwargs)
        with Exposing(self._client, assignment, self._recording):
            async for part in function(model, *args, **kwargs):
                yield part

    def _begin(self, function: Any, unit_of: Any, args: Any, kwargs: Any) -> tuple[Assignment, Any]:
        assignment, model = self._pick(unit_of, args, kwargs)
        self._in_the_dark(assignment, function, args, kwargs)
        return assignment, model

    def _pick(
        self, unit_of: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Assignment, Any]:
        """The assignment and its model; the default's model where the variant has none."""
        client = self._client
        try:
            unit_id: Any = unit_of(*args, **kwargs)
            attributes = None if self._attributes is None else self._attributes(*args, **kwargs)
        except Exception:  # noqa: BLE001 - R1: the request is answered by the default
            client.rejected.add("route_unit_error")
            unit_id, attributes = None, None
        found = client.assign(self._experiment, unit_id, attributes, default=self._default)
        model = self._models.get(found.variant)
        if model is not None:
            return found, model
        # It meets the default's model, so it must not count as having met its variant.
        client.rejected.add("no_model")
        served = found.arm._replace(
            variant=self._default, reason="error", in_experiment=False, shadow=""
        )
        return Assignment(found.unit_id, served), self._models[self._default]

    def _in_the_dark(
        self,
        assignment: Assignment,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        if not assignment.shadow:
            return
        model = self._models.get(assignment.shadow)
        if model is None:
            self._client.rejected.add("no_model")
            return
        self._client._in_the_dark(  # noqa: SLF001 - the other half of one thing
            assignment, self._recording, function, (model, *args), kwargs
        )

    def _may_rescue(self, assignment: Assignment) -> bool:
        return self._rescue and assignment.variant != self._default


def _name(function: object) -> str:
    return getattr(function, "__qualname__", type(function).__qualname__)


def _kind(function: Callable[..., Any]) -> str:
    """What calling a function gives; an object's `__call__` counts for the object."""
    for candidate in (function, getattr(function, "__call__", None)):  # noqa: B004 - to look into it
        if inspect.isasyncgenfunction(candidate):
            return "async generator"
        if inspect.iscoroutinefunction(candidate):
            return "coroutine"
        if inspect.isgeneratorfunction(candidate):
            return "generator"
    return "function"


def _hide_model(wrapped: Any, function: Callable[..., Any]) -> None:
    """Show the signature that callers use: frameworks would ask requests for a model."""
    signature = inspect.signature(function)
    first, *rest = signature.parameters.values()
    wrapped.__signature__ = signature.replace(parameters=rest)
    annotations = dict(getattr(function, "__annotations__", {}))
    annotations.pop(first.name, None)
    wrapped.__annotations__ = annotations


def _argument(function: Callable[..., Any], name: str) -> Callable[..., object]:
    """A function that finds one argument of a call by its name, also where it came by position."""
    names = list(inspect.signature(function).parameters)
    if name not in names[1:]:
        raise TypeError(
            f"{_name(function)} has no argument {name!r} after the model; it takes {names}"
        )
    place = names.index(name) - 1

    def find(*args: Any, **kwargs: Any) -> object:
        return args[place] if place < len(args) else kwargs.get(name)

    return find
