"""The Django middleware, through Django's own test clients, sync and async."""

from __future__ import annotations

import asyncio
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from abkit.client import Client
from abkit.errors import ConfigError
from abkit.experiment import Experiment

pytest.importorskip(
    "django", reason="Django is not installed; `python3 dev.py conformance` brings it"
)

import django
from django import conf
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, override_settings
from django.test import Client as HttpClient
from django.urls import path

from abkit.integrations.asgi import AbkitMiddleware as AsgiMiddleware
from abkit.integrations.django import AbkitMiddleware, get_client

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOKEN = "a-token-for-one-test"  # noqa: S105 - opens nothing
FORCED = {"x-user": "ann", "x-abkit-force": "ranker=student", "x-abkit-force-token": TOKEN}
RANKER = Experiment.create("ranker", {"teacher": 1.0, "student": 0.0}, salt="s")
URLS = "abkit_test_urls"


def unit_of(request: Any) -> str | None:
    return request.headers.get("x-user")  # type: ignore[no-any-return]


def view(request: HttpRequest) -> HttpResponse:
    with request.abkit.exposure("ranker", default="teacher") as a:
        request.abkit.record("served", 1.0)
    return HttpResponse(a.variant)


async def async_view(request: HttpRequest) -> HttpResponse:
    async with request.abkit.exposure("ranker", default="teacher") as a:
        await asyncio.sleep(0)
    return HttpResponse(a.variant)


def direct(request: HttpRequest) -> HttpResponse:
    return HttpResponse(get_client().variant("ranker", "anybody"))


@pytest.fixture(scope="module", autouse=True)
def _configured() -> None:
    urls: Any = ModuleType(URLS)
    urls.urlpatterns = [path("", view), path("async", async_view), path("direct", direct)]
    sys.modules[URLS] = urls
    if not conf.settings.configured:
        conf.settings.configure(
            ALLOWED_HOSTS=["*"],
            DEFAULT_CHARSET="utf-8",
            MIDDLEWARE=["abkit.integrations.django.AbkitMiddleware"],
            ROOT_URLCONF=URLS,
            SECRET_KEY=TOKEN,
            USE_TZ=True,
        )
        django.setup()


@pytest.fixture
def client() -> Iterator[Client]:
    client = Client.from_experiments([RANKER])
    wanted = {
        "CLIENT": client,
        "UNIT": unit_of,
        "FORCE_HEADER": "x-abkit-force",
        "FORCE_TOKEN": TOKEN,
    }
    get_client.cache_clear()
    with override_settings(ABKIT=wanted):
        yield client
    get_client.cache_clear()


def kinds(client: Client) -> str:
    return "".join(record[0] for record in client.sink.records)  # type: ignore[attr-defined]


def ask(path: str, headers: dict[str, str], *, is_async: bool) -> str:
    if not is_async:
        return HttpClient().get(path, headers=headers).content.decode()

    async def run() -> str:
        answer = await AsyncClient().get(path, headers=headers)
        return answer.content.decode()  # type: ignore[no-any-return]

    return asyncio.run(run())


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(("path", "events"), [("/", "eo"), ("/async", "e")])
def test_a_view_is_given_a_handle_bound_to_its_unit(
    client: Client, path: str, events: str, *, is_async: bool
) -> None:
    """Sync and async views alike, under WSGI and ASGI."""
    assert ask(path, {"x-user": "ann"}, is_async=is_async) == "teacher"
    assert kinds(client) == events


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("path", ["/", "/async", "/direct"])
def test_a_header_with_the_token_forces_a_variant_for_its_request_alone(
    client: Client, path: str, *, is_async: bool
) -> None:
    assert ask(path, FORCED, is_async=is_async) == "student"
    assert ask("/direct", {}, is_async=is_async) == "teacher"
    assert "e" not in kinds(client), "a forced unit is kept out of the analysis"


@pytest.mark.parametrize("is_async", [False, True])
def test_a_wrong_token_forces_nothing(client: Client, *, is_async: bool) -> None:
    headers = {**FORCED, "x-abkit-force-token": "wrong"}
    assert ask("/", headers, is_async=is_async) == "teacher"
    assert client.rejected.counts == {"force_refused": 1}


def test_the_middleware_is_sync_for_wsgi_and_async_for_asgi(client: Client) -> None:
    from inspect import iscoroutinefunction

    async def later(request: Any) -> None:
        """Stands for Django's handler under ASGI."""

    assert iscoroutinefunction(later)
    assert AbkitMiddleware(later)._is_async
    assert not AbkitMiddleware(lambda request: None)._is_async


def test_a_unit_function_that_raises_fails_no_request(client: Client) -> None:
    wanted = {"CLIENT": client, "UNIT": lambda request: request.headers["absent"]}
    with override_settings(ABKIT=wanted):
        assert ask("/", {}, is_async=False) == "teacher"
    assert client.rejected.counts["unit_error"] == 1


def test_settings_may_name_things_by_their_path(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[URLS], "unit_of", unit_of, raising=False)
    monkeypatch.setattr(sys.modules[URLS], "ab", client, raising=False)
    with override_settings(ABKIT={"CLIENT": f"{URLS}.ab", "UNIT": f"{URLS}.unit_of"}):
        assert ask("/", {"x-user": "ann"}, is_async=False) == "teacher"
    assert kinds(client) == "eo"


def test_a_workspace_makes_one_client_for_the_process(client: Client, tmp_path: Path) -> None:
    wanted = {"WORKSPACE": tmp_path / "workspace", "UNIT": unit_of, "DURABILITY": "buffered"}
    with override_settings(ABKIT=wanted):
        assert get_client() is get_client()
        assert ask("/", {"x-user": "ann"}, is_async=False) == "teacher"
        assert get_client().assign("ranker", "ann").reason == "no_snapshot"
        get_client().close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"CLIENT": None, "WORKSPACE": "w"}, "either WORKSPACE"),
        ({"CLIENTS": 1}, "unknown settings"),
        ({"UNIT": "nowhere.at_all"}, "cannot be imported"),
        ({"UNIT": None}, "unit must be a function"),
        ({"FORCE_HEADER": "x-force"}, "at least 16 characters"),
        ({"CLIENT": 7}, r"must be an abkit\.Client"),
    ],
)
def test_settings_that_are_not_usable_are_refused_at_the_start(
    client: Client, change: dict[str, Any], message: str
) -> None:
    with (
        override_settings(ABKIT={"CLIENT": client, "UNIT": unit_of, **change}),
        pytest.raises(ConfigError, match=message),
    ):
        AbkitMiddleware(lambda request: None)


def test_a_missing_setting_is_named(client: Client) -> None:
    with (
        override_settings(ABKIT=None),
        pytest.raises(ConfigError, match="setting ABKIT must be a mapping"),
    ):
        AbkitMiddleware(lambda request: None)


def test_djangos_asgi_application_gets_a_lifespan_from_the_asgi_middleware(
    client: Client,
) -> None:
    """Django refuses the lifespan protocol; the client is closed all the same."""
    closed: list[bool] = []
    client.close = lambda: closed.append(True)  # type: ignore[method-assign]
    waiting = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    heard: list[str] = []

    async def receive() -> Any:
        return waiting.pop(0)

    async def send(message: Any) -> None:
        heard.append(message["type"])

    app = AsgiMiddleware(get_asgi_application(), client, unit_of)
    asyncio.run(app({"type": "lifespan"}, receive, send))
    assert heard == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert closed == [True]
