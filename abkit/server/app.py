"""The application: one route table out of all contracts, behind the guard."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from abkit.client import Client
from abkit.errors import AbkitError, MissingExtraError
from abkit.server.auth import Tokens
from abkit.server.board import Board
from abkit.server.limits import RATE, READ_SECONDS, Guard, Rates
from abkit.workspace import Workspace

try:
    from fastapi import FastAPI
    from starlette.exceptions import HTTPException
    from starlette.responses import Response
except ModuleNotFoundError as error:
    raise MissingExtraError(
        f"abkit serve needs {error.name}: pip install 'abkit-rollouts[server]'"
    ) from error

from abkit.server import actions, decisions, flagger, kayenta, ofrep, prometheus, snapshots
from abkit.server.exchange import respond
from abkit.server.problems import Problem, problem_of

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator

    from starlette.requests import Request

    from abkit.server.exchange import Route

__all__ = ["Settings", "make_app"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a server guards itself.

    Args:
        tokens: who may do what; without any, everybody who reaches the server may read.
        has_open_reads: let reading pass without a token, the snapshot excepted.
        trusts_loopback: let callers of this machine act without a token.
        logs_exposures: count an OFREP evaluation of one flag as an exposure.
        rate: requests a second that one client may send, after a burst; infinity for no limit.
        read_seconds: for a request's head, and again for its body.
    """

    tokens: Tokens = field(default_factory=Tokens)
    has_open_reads: bool = False
    trusts_loopback: bool = False
    logs_exposures: bool = False
    rate: float = RATE
    read_seconds: float = READ_SECONDS


def make_app(workspace: str | os.PathLike[str], settings: Settings | None = None) -> Guard:
    """An ASGI application that answers for a workspace.

    Args:
        workspace: the workspace folder.
        settings: how it guards itself; by default reading only, without a token.

    Raises:
        MissingExtraError: FastAPI is not installed.
        ConfigError: the rate is not usable.
    """
    chosen = settings or Settings()
    client = Client(workspace)
    board = Board(Workspace(workspace), client)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await board.refresh()  # what it has to import, nobody's request waits for
        yield
        client.close()  # exposures, where they are logged

    app = FastAPI(title="abkit", openapi_url=None, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.router.redirect_slashes = False
    table: list[Route] = [
        *decisions.routes(board),
        *actions.routes(
            board, has_tokens=bool(chosen.tokens), trusts_loopback=chosen.trusts_loopback
        ),
        *flagger.routes(board),
        *prometheus.routes(board),
        *kayenta.routes(board),
        *ofrep.routes(client, logs_exposures=chosen.logs_exposures),
        *snapshots.routes(board),
    ]
    for method, path, endpoint in table:
        methods = ["GET", "HEAD"] if method == "GET" else [method]
        app.add_api_route(path, endpoint, methods=methods, response_model=None)
    app.add_exception_handler(HTTPException, _refused)
    # The last one is told and then raised on, for the guard to log where it came from.
    for kind in (Problem, AbkitError, Exception):
        app.add_exception_handler(kind, _problem)
    return Guard(
        app,
        tokens=chosen.tokens,
        rates=Rates(chosen.rate if chosen.rate > 0 else math.inf),
        has_open_reads=chosen.has_open_reads,
        read_seconds=chosen.read_seconds,
    )


async def _refused(request: Request, error: Exception) -> Response:  # noqa: ARG001 - as Starlette calls it
    status = getattr(error, "status_code", 500)
    words = {404: "there is no such path", 405: "this path takes another method"}
    headers = getattr(error, "headers", None) or {}
    return respond({"error": words.get(status, "refused")}, status=status, headers=headers)


async def _problem(request: Request, error: Exception) -> Response:  # noqa: ARG001
    problem = problem_of(error)
    return Response(problem.body(), problem.status, problem.headers, media_type="application/json")
