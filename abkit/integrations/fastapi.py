"""FastAPI: `async def` dependencies that give an endpoint its assignment.

::

    from abkit.integrations.asgi import AbkitMiddleware
    from abkit.integrations.fastapi import Handle, assignment

    app = FastAPI()
    app.add_middleware(AbkitMiddleware, client=ab, unit=lambda scope: user_of(scope))

    Ranker = Annotated[Assignment, Depends(assignment("ranker", default="teacher"))]

    @app.get("/rank")
    async def rank(ranker: Ranker, handle: Handle):
        handle.expose(ranker)
        return models[ranker.variant](...)

A plain `def` dependency would cost five times as much: FastAPI runs it in a thread.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Annotated, Any

from abkit.assignment import DEFAULT_CONTROL, Assignment, fallback
from abkit.errors import ConfigError, MissingExtraError
from abkit.integrations.asgi import KEY
from abkit.integrations.request import RequestHandle

try:
    from fastapi import Depends
    from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
    from fastapi.requests import HTTPConnection  # noqa: TC002 - FastAPI reads it at run time
except ModuleNotFoundError as error:
    raise MissingExtraError(
        f"abkit.integrations.fastapi needs {error.name}: pip install fastapi"
    ) from error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from abkit.client import Client
    from abkit.targeting import Attributes

    AttributesOf = Callable[[HTTPConnection], Attributes | None]
    UnitOf = Callable[[HTTPConnection], str | int | None]

__all__ = ["Handle", "assignment", "handle_dependency", "unit_dependency"]

_NO_MIDDLEWARE = (
    "no abkit handle in the request: add abkit.integrations.asgi.AbkitMiddleware to the "
    "application, or give `assignment` a client and a unit"
)
_LOG = logging.getLogger("abkit")
_warned: set[str] = set()


def _found(connection: HTTPConnection) -> RequestHandle | None:
    found = connection.scope.get(KEY)
    if isinstance(found, RequestHandle):
        return found
    if KEY not in _warned:
        _warned.add(KEY)
        _LOG.warning(_NO_MIDDLEWARE)
    return None


async def handle_dependency(connection: HTTPConnection) -> RequestHandle:
    """The handle that `AbkitMiddleware` made for this request.

    Raises:
        ConfigError: the application has no `AbkitMiddleware`.
    """
    found = _found(connection)
    if found is None:
        raise ConfigError(_NO_MIDDLEWARE)
    return found


async def unit_dependency(connection: HTTPConnection) -> str | int | None:
    """The unit_id of this request; None where it has none, or without `AbkitMiddleware`."""
    found = _found(connection)
    return None if found is None or found.unit_id == "" else found.unit_id


Handle = Annotated[RequestHandle, Depends(handle_dependency)]
"""Annotates an endpoint's parameter: it is given the request's handle."""


def assignment(
    experiment: str,
    *,
    default: str = DEFAULT_CONTROL,
    attributes: AttributesOf | None = None,
    expose: bool = False,
    client: Client | None = None,
    unit: UnitOf | None = None,
) -> Callable[[HTTPConnection], Any]:
    """A dependency that gives an endpoint, or another dependency, the `Assignment` of its unit.

    It takes client and unit from `AbkitMiddleware`, or from its own arguments, and then needs no
    middleware. Where it has neither, the default is served, for the reason "error".

    With `expose` the exposure is logged once the endpoint has been entered, also where it then
    raises; a request that fails validation or another dependency meets no variant, and logs
    nothing. It is logged when FastAPI leaves the dependency: after the response, or, with
    `Depends(..., scope="function")`, before it, which a streaming endpoint wants.

    Args:
        experiment: key of the experiment.
        default: the variant to serve when the experiment is not known here.
        attributes: what is known of the unit, from the request, for targeting.
        expose: log the exposure.
        client: the client; None for the middleware's.
        unit: the unit_id of a request; goes with `client`.

    Raises:
        ConfigError: one of client and unit is given without the other.
    """
    if (client is None) != (unit is None):
        raise ConfigError(f"assignment({experiment!r}): give both a client and a unit, or neither")

    def handle_of(connection: HTTPConnection) -> RequestHandle | None:
        if client is None or unit is None:
            return _found(connection)
        return RequestHandle(client, connection, unit)

    def assigned(handle: RequestHandle | None, connection: HTTPConnection) -> Assignment:
        if handle is None:
            return fallback(experiment, "", "error", default)
        known = None
        if attributes is not None:
            try:
                known = attributes(connection)
            except Exception:  # noqa: BLE001 - R1: the application's own function
                handle.client.rejected.add("attributes_error")
        return handle.assign(experiment, known, default=default)

    async def assign(connection: HTTPConnection) -> Assignment:
        return assigned(handle_of(connection), connection)

    async def assign_and_expose(connection: HTTPConnection) -> AsyncIterator[Assignment]:
        handle = handle_of(connection)
        found = assigned(handle, connection)
        entered = True
        try:
            yield found
        except BaseException as error:
            entered = _was_entered(error)
            raise
        finally:
            if entered and handle is not None and found.in_experiment:
                handle.expose(found)

    return assign_and_expose if expose else assign


def _was_entered(error: BaseException) -> bool:
    """Whether an exception came from the endpoint or later, rather than on the way to it."""
    if isinstance(error, RequestValidationError | WebSocketRequestValidationError):
        return False
    step = error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_name == "solve_dependencies":
            return False
        step = step.tb_next
    return True
