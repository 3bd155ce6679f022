"""Django: a middleware, for WSGI and ASGI alike, that gives each request a handle.

::

    # settings.py
    MIDDLEWARE = [..., "abkit.integrations.django.AbkitMiddleware"]
    ABKIT = {
        "WORKSPACE": BASE_DIR / "workspace",
        "UNIT": "shop.experiments.unit_of",       # a function of the request, or its path
    }

    # views.py
    def rank(request):
        with request.abkit.exposure("ranker", default="teacher", latency="latency_ms") as a:
            return JsonResponse(models[a.variant](...))

Settings in ABKIT: UNIT, and either WORKSPACE or CLIENT (a client, or the path of one); besides,
FALLBACK and DURABILITY (as in `abkit.Client`), ATTRIBUTES, FORCE_HEADER, FORCE_TOKEN,
FORCE_TOKEN_HEADER and FORCE_IS_OPEN (as in `abkit.integrations.asgi.AbkitMiddleware`).
Outside of a request, such as in a command or a worker, `get_client()` is the same client.
"""

from __future__ import annotations

import atexit
from collections.abc import Awaitable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from abkit.client import Client
from abkit.errors import ConfigError, MissingExtraError
from abkit.integrations.request import ForceHeader, RequestHandle, check_unit

try:
    from asgiref.sync import iscoroutinefunction, markcoroutinefunction
    from django import conf
    from django.utils.module_loading import import_string
except ModuleNotFoundError as error:
    raise MissingExtraError(
        f"abkit.integrations.django needs {error.name}: pip install django"
    ) from error

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest, HttpResponseBase

_NAMES = (
    "ATTRIBUTES",
    "CLIENT",
    "DURABILITY",
    "FALLBACK",
    "FORCE_HEADER",
    "FORCE_IS_OPEN",
    "FORCE_TOKEN",
    "FORCE_TOKEN_HEADER",
    "UNIT",
    "WORKSPACE",
)


@cache
def get_client() -> Client:
    """The client of this process, made when first asked for; fork-safe.

    Raises:
        ConfigError: the setting ABKIT is not usable.
    """
    wanted = _settings()
    if "CLIENT" in wanted:
        client = _imported(wanted["CLIENT"])
        if not isinstance(client, Client):
            raise ConfigError(f"ABKIT['CLIENT'] must be an abkit.Client, got {client!r}")
        return client
    client = Client(
        wanted["WORKSPACE"],
        fallback=wanted.get("FALLBACK"),
        durability=wanted.get("DURABILITY", "os"),
    )
    atexit.register(client.close)
    return client


class AbkitMiddleware:
    """Sets `request.abkit`, a `RequestHandle`; no failure of the client fails a request.

    Args:
        get_response: the next layer, sync or async.

    Raises:
        ConfigError: the setting ABKIT is not usable.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        """Read the settings, once."""
        wanted = _settings()
        self._get_response = get_response
        self._client = get_client()
        self._unit = _imported(wanted.get("UNIT"))
        check_unit(self._unit, "ABKIT['UNIT']")
        self._attributes = _imported(wanted.get("ATTRIBUTES"))
        self._force = ForceHeader.named(
            wanted.get("FORCE_HEADER"),
            wanted.get("FORCE_TOKEN", ""),
            wanted.get("FORCE_TOKEN_HEADER", ""),
            is_open=wanted.get("FORCE_IS_OPEN", False),
        )
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Serve one request."""
        handle = RequestHandle(self._client, request, self._unit, self._attributes)
        request.abkit = handle
        if self._is_async:
            return self._answer_later(request)
        forced = self._forced(request)
        if not forced:
            return self._get_response(request)
        with self._client.force(forced):
            return self._get_response(request)

    async def _answer_later(self, request: HttpRequest) -> HttpResponseBase:
        forced = self._forced(request)
        if not forced:
            return await self._get_response(request)
        with self._client.force(forced):
            return await self._get_response(request)

    def _forced(self, request: HttpRequest) -> dict[str, str]:
        if self._force is None:
            return {}
        headers = request.headers
        return self._force.read(
            headers.get(self._force.header),
            headers.get(self._force.token_header),
            self._client.rejected,
        )


def _settings() -> Mapping[str, Any]:
    wanted = getattr(conf.settings, "ABKIT", None)
    if not isinstance(wanted, Mapping):
        raise ConfigError(f"the setting ABKIT must be a mapping, got {wanted!r}")
    unknown = sorted(set(wanted) - set(_NAMES))
    if unknown:
        raise ConfigError(f"ABKIT has unknown settings {unknown}; known are {', '.join(_NAMES)}")
    if ("CLIENT" in wanted) == ("WORKSPACE" in wanted):
        raise ConfigError("ABKIT needs either WORKSPACE, a folder, or CLIENT, an abkit.Client")
    return wanted


def _imported(value: object) -> Any:
    """What a dotted path names; anything else as it is.

    Raises:
        ConfigError: there is nothing at the path.
    """
    if not isinstance(value, str):
        return value
    try:
        return import_string(value)
    except ImportError as error:
        raise ConfigError(f"ABKIT names {value!r}, which cannot be imported: {error}") from error
