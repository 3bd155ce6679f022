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

    __slots__ = ("_client", "_recording", "_started", "assignment")

    def __init__(self, client: Client, assignment: Assignment, recording: Recording) -> None:
        """Remember what to record."""
        self.assignment = assignment
        self._client = client
        self._recording = recording
        self._started = 0.0

    def __enter__(self) -> Assignment:
        """Log the exposure; the block is given the assignment."""
        if self.assignment.in_experiment:
            self._client.expose(self.assignment)
        self._started = time.perf_counter()
        return self.assignment

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        """Record the duration and whether the block failed, where metrics were named."""
        spent = time.perf_counter() - self._started
        found = self.assignment
        # A cancelled request or an interrupt says nothing about the model.
        if kind is not None and not issubclass(kind, Exception):
            return
        record = self._recording.answered if kind is None else self._recording.failed
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
        client, recording = self._client, self._recording

        if inspect.iscoroutinefunction(function):

            @wraps(function)
            async def answer_later(*args: Any, **kwargs: Any) -> Any:
                assignment, model = self._pick(unit_of, args, kwargs)
                self._in_the_dark(assignment, function, args, kwargs)
                try:
                    with Exposing(client, assignment, recording):
                        answer = await function(model, *args, **kwargs)
                except Exception:
                    if not self._may_rescue(assignment):
                        raise
                    return await function(self._models[self._default], *args, **kwargs)
                recording.measured(client, assignment, assignment.variant, answer)
                return answer

            return answer_later

        @wraps(function)
        def answer_now(*args: Any, **kwargs: Any) -> Any:
            assignment, model = self._pick(unit_of, args, kwargs)
            self._in_the_dark(assignment, function, args, kwargs)
            try:
                with Exposing(client, assignment, recording):
                    answer = function(model, *args, **kwargs)
            except Exception:
                if not self._may_rescue(assignment):
                    raise
                return function(self._models[self._default], *args, **kwargs)
            recording.measured(client, assignment, assignment.variant, answer)
            return answer

        return answer_now

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


def _argument(function: Callable[..., Any], name: str) -> Callable[..., object]:
    """A function that finds one argument of a call by its name, also where it came by position."""
    names = list(inspect.signature(function).parameters)
    if name not in names[1:]:
        raise TypeError(
            f"{function.__qualname__} has no argument {name!r} after the model; it takes {names}"
        )
    place = names.index(name) - 1

    def find(*args: Any, **kwargs: Any) -> object:
        return args[place] if place < len(args) else kwargs.get(name)

    return find
