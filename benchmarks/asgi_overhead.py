"""What abkit adds to a FastAPI request, by the way it is called; no network, no disk.

The ASGI callable is awaited with a scope of its own, one way after the other and again, so that a
busy machine slows all of them alike. The clock is the CPU time of the process: the pool in which
FastAPI runs plain functions counts, other processes do not.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import statistics
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import Depends, FastAPI, Request
from starlette.middleware.base import BaseHTTPMiddleware

from abkit.assignment import Assignment  # noqa: TC001 - FastAPI reads it at run time
from abkit.client import Client
from abkit.experiment import Experiment
from abkit.integrations.asgi import AbkitMiddleware
from abkit.integrations.fastapi import assignment

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

RESULT = Path(__file__).parent / "results" / "asgi_overhead.md"
CLIENT = Client.from_experiments(
    [Experiment.create("ranker", {"teacher": 0.5, "student": 0.5}, salt="s")]
)
HEADERS = [
    (b"host", b"example.com"),
    (b"accept", b"application/json"),
    (b"user-agent", b"benchmark"),
    (b"x-user", b"user-1"),
]


def unit_of(scope: Any) -> str | None:
    """The unit of a scope."""
    return next((value.decode() for name, value in scope["headers"] if name == b"x-user"), None)


def unit_of_connection(connection: Any) -> str | None:
    """The unit of a connection."""
    return connection.headers.get("x-user")


def sync_dependency(request: Request) -> Assignment:
    """What FastAPI runs in a thread."""
    return CLIENT.assign("ranker", request.headers["x-user"])


async def dispatch(request: Request, call_next: Callable[[Request], Awaitable[Any]]) -> Any:
    """What BaseHTTPMiddleware calls."""
    request.state.assignment = CLIENT.assign("ranker", request.headers["x-user"])
    return await call_next(request)


def bare() -> FastAPI:
    """No abkit at all."""
    app = FastAPI()

    @app.get("/")
    async def endpoint(request: Request) -> dict[str, str]:
        return {"variant": request.headers["x-user"]}

    return app


def direct() -> FastAPI:
    """`client.assign` in the endpoint."""
    app = FastAPI()

    @app.get("/")
    async def endpoint(request: Request) -> dict[str, str]:
        return {"variant": CLIENT.assign("ranker", request.headers["x-user"]).variant}

    return app


def depending(found: Any) -> FastAPI:
    """A dependency that gives the assignment."""
    app = FastAPI()
    needed = Depends(found)  # as a default: an annotation could not name what is local

    @app.get("/")
    async def endpoint(found: Assignment = needed) -> dict[str, str]:
        return {"variant": found.variant}

    return app


def middleware(app: FastAPI) -> FastAPI:
    """The same with abkit's middleware around it."""
    app.add_middleware(AbkitMiddleware, client=CLIENT, unit=unit_of)
    return app


def handled() -> FastAPI:
    """The middleware, and its handle in the endpoint."""
    app = FastAPI()

    @app.get("/")
    async def endpoint(request: Request) -> dict[str, str]:
        return {"variant": request.scope["abkit"].assign("ranker").variant}

    return middleware(app)


def with_base_middleware() -> FastAPI:
    """Starlette's BaseHTTPMiddleware."""
    app = FastAPI()
    app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)

    @app.get("/")
    async def endpoint(request: Request) -> dict[str, str]:
        return {"variant": request.state.assignment.variant}

    return app


def ways() -> dict[str, FastAPI]:
    """The applications, by what they are called in the table."""
    own = {"client": CLIENT, "unit": unit_of_connection}
    return {
        "bare endpoint": bare(),
        "direct call, `client.assign`": direct(),
        "async dependency with its own client": depending(assignment("ranker", **own)),
        "middleware, handle in the endpoint": handled(),
        "middleware and async dependency": middleware(depending(assignment("ranker"))),
        "middleware and exposing dependency": middleware(
            depending(assignment("ranker", expose=True))
        ),
        "plain `def` dependency": depending(sync_dependency),
        "`BaseHTTPMiddleware`": with_base_middleware(),
    }


async def receive() -> dict[str, Any]:
    """An empty body."""
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(message: Any) -> None:
    """Nobody listens, except for failures, which would be fast."""
    if message.get("status", 200) != 200:
        raise RuntimeError(message)


async def batch(app: FastAPI, requests: int) -> float:
    """CPU microseconds per request."""
    started = time.process_time_ns()
    for _ in range(requests):
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": "/",
            "raw_path": b"/",
            "query_string": b"",
            "root_path": "",
            "headers": HEADERS,
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
            "state": {},
        }
        await app(scope, receive, send)
    return (time.process_time_ns() - started) / requests / 1_000.0


async def measure(rounds: int, requests: int) -> dict[str, list[float]]:
    """Microseconds per request of each round, by way."""
    apps = ways()
    for app in apps.values():
        await batch(app, requests)
    spent: dict[str, list[float]] = {name: [] for name in apps}
    for _ in range(rounds):
        for name, app in apps.items():
            CLIENT.sink.records.clear()
            spent[name].append(await batch(app, requests))
    return spent


def table(spent: dict[str, list[float]]) -> str:
    """Medians, and of each way the median of its differences from the bare endpoint."""
    lines = [
        "| way | µs per request | more than bare, µs | middle half, µs |",
        "|---|--:|--:|--:|",
    ]
    base = next(iter(spent.values()))
    for name, values in spent.items():
        more = [value - bare for value, bare in zip(values, base, strict=True)]
        low, middle, high = statistics.quantiles(more, n=4)
        rest = "" if values is base else f"{middle:+.0f}"
        half = "" if values is base else f"{low:+.0f} to {high:+.0f}"
        lines.append(f"| {name} | {statistics.median(values):.0f} | {rest} | {half} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and write the result beside this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--requests", type=int, default=20, help="in each round, of each way")
    options = parser.parse_args()
    found = table(asyncio.run(measure(options.rounds, options.requests)))
    print(found)
    RESULT.parent.mkdir(exist_ok=True)
    about = (
        f"# What abkit adds to a FastAPI request\n\n"
        f"Printed by `benchmarks/asgi_overhead.py`: {options.rounds} rounds of "
        f"{options.requests} requests, ways interleaved, CPU time of the process. "
        f"Python {platform.python_version()}, FastAPI {version('fastapi')}, "
        f"Starlette {version('starlette')}.\n\n"
    )
    RESULT.write_text(about + found + "\n", "utf-8")


if __name__ == "__main__":
    main()
