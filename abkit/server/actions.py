"""`POST /v1/rollouts/{r}/{verb}`: a person's word, with who, why and which version they saw.

The body is `{"reason": ..., "actor": ..., "expected_version": ...}`, all three required. Without a
token configured nothing can be done here, unless the server was started to trust this machine.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from typing import TYPE_CHECKING, Any

from starlette.requests import Request  # noqa: TC002 - FastAPI reads it at run time
from starlette.responses import Response  # noqa: TC002

from abkit.server.auth import Role
from abkit.server.decisions import summary
from abkit.server.exchange import caller_of, headers_of, respond, table_of, text_of
from abkit.server.limits import host_name
from abkit.server.problems import Problem
from abkit.snapshot_server import is_loopback

if TYPE_CHECKING:
    from collections.abc import Mapping

    from abkit.server.auth import Caller
    from abkit.server.board import Board
    from abkit.server.exchange import Route
    from abkit.workspace import Verb

VERBS: Mapping[str, tuple[Verb, Role]] = {
    "hold": ("hold", Role.OPERATOR),
    "resume": ("resume", Role.OPERATOR),
    "skip": ("skip", Role.OPERATOR),
    "promote": ("promote", Role.APPROVER),
    "halt": ("halt", Role.OPERATOR),
    "rollback": ("halt", Role.OPERATOR),
}
_ELSEWHERE = frozenset({"origin", "forwarded", "via", "x-forwarded-for", "x-real-ip"})
"""Headers that browsers and proxies send."""
_LOG = logging.getLogger("abkit")


def routes(board: Board, *, has_tokens: bool, trusts_loopback: bool) -> list[Route]:
    """The routes of this contract.

    Args:
        board: what is known.
        has_tokens: whether any token is configured.
        trusts_loopback: whether callers of this machine may act without one.
    """

    async def act(request: Request) -> Response:
        key, word = request.path_params["rollout"], request.path_params["verb"]
        if word not in VERBS:
            raise Problem(404, f"there is no action {word!r}", hint=f"use {', '.join(VERBS)}")
        verb, role = VERBS[word]
        caller = _allowed(request, role, has_tokens=has_tokens, trusts_loopback=trusts_loopback)
        board.rollout(key)  # 404 before anything else is said
        asked = _asked(request, caller)
        moved = await asyncio.to_thread(board.workspace.act, key, verb, **asked)
        _LOG.warning("rollout %s: %s by %s, now %s", key, word, caller.role.name, moved.state)
        return respond(summary(moved))

    return [("POST", "/v1/rollouts/{rollout}/{verb}", act)]


def _allowed(request: Request, role: Role, *, has_tokens: bool, trusts_loopback: bool) -> Caller:
    """Who acts, if they may.

    Raises:
        Problem: they may not.
    """
    caller = caller_of(request)
    if caller.role >= role:
        return caller
    if trusts_loopback and not caller.is_known:
        _check_local(request)
        return caller
    if caller.is_known:
        raise Problem(
            403,
            f"this needs the role {role.name.lower()}, the token has {caller.role.name.lower()}",
        )
    if has_tokens:
        raise Problem(401, "the token is wrong or absent", headers={"WWW-Authenticate": "Bearer"})
    raise Problem(
        403,
        "this server has no tokens, so it is read-only",
        hint="start it with --token-file, or with --allow-actions-from-loopback",
    )


def _check_local(request: Request) -> None:
    """Refuse what did not begin on this machine, such as a page in a browser.

    Raises:
        Problem: it may have come from elsewhere.
    """
    headers = headers_of(request)
    client = request.client.host if request.client else ""
    is_here = is_loopback(host_name(headers.get("host", ""))) and _is_loopback_address(client)
    if not is_here or not _ELSEWHERE.isdisjoint(headers):
        raise Problem(403, "without a token only this machine itself may act, and no browser")


def _is_loopback_address(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).is_loopback
    except ValueError:
        return False


def _asked(request: Request, caller: Caller) -> dict[str, Any]:
    kind = headers_of(request).get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # which no form of a foreign page can send
        raise Problem(415, f"send the body as application/json, got {kind[:60]!r}")
    data = table_of(request)
    version = data.get("expected_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 0:
        raise Problem(
            400,
            f"'expected_version' must be the version that you saw, got {version!r:.60}",
            hint="GET /v1/rollouts/{r} tells it",
        )
    actor = text_of(data, "actor", default=caller.name or None)
    if caller.name and actor != caller.name:
        actor = f"{actor} ({caller.name})"  # a token with a name signs for what it did
    return {
        "reason": text_of(data, "reason"),
        "actor": actor,
        "expected_version": version,
    }
