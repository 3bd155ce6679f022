"""One request and its answer: what the contracts share."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from abkit.server.problems import Problem, dumps

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from starlette.requests import Request

    from abkit.server.auth import Caller

    Endpoint = Callable[..., Coroutine[Any, Any, Response]]
    Route = tuple[str, str, Endpoint]
    """Method, path and the function that answers."""

MAX_ID_BYTES = 256


def respond(
    data: object, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """An answer in JSON."""
    return Response(dumps(data), status, dict(headers or {}), "application/json")


def body_of(request: Request) -> bytes:
    """The whole body; its size is checked already."""
    body: bytes = request.scope["abkit.body"]
    return body


def caller_of(request: Request) -> Caller:
    """Who asks."""
    found: Caller = request.scope["abkit.caller"]
    return found


def headers_of(request: Request) -> dict[str, str]:
    """The headers, names in lower case."""
    found: dict[str, str] = request.scope["abkit.headers"]
    return found


def table_of(request: Request) -> dict[str, Any]:
    """The body as a JSON object; NaN is read as Java writes it.

    Raises:
        Problem: it is none.
    """
    body = body_of(request)
    try:
        data = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        raise Problem(400, "the body is not valid JSON") from None
    if not isinstance(data, dict):
        raise Problem(400, f"the body must be a JSON object, got {type(data).__name__}")
    return data


def text_of(data: Mapping[str, Any], name: str, *, default: str | None = None) -> str:
    """A short text of a body.

    Raises:
        Problem: it is absent without a default, no text, empty, or too long.
    """
    value = data.get(name, default)
    if value is None:
        raise Problem(400, f"the body has no {name!r}")
    if not isinstance(value, str) or (default is None and not value.strip()):
        raise Problem(400, f"{name!r} must be text that says something, got {value!r:.60}")
    if len(value.encode("utf-8", "replace")) > MAX_ID_BYTES:
        raise Problem(400, f"{name!r} has more than {MAX_ID_BYTES} bytes")
    return value
