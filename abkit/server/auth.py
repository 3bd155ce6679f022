"""Who may do what: tokens with a role, compared in constant time."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from abkit.errors import ConfigError
from abkit.fetch import check_token
from abkit.metrics import check_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

VARIABLES = {
    "viewer": "ABKIT_VIEWER_TOKEN",
    "operator": "ABKIT_OPERATOR_TOKEN",
    "approver": "ABKIT_APPROVER_TOKEN",
}
MIN_CHARACTERS = 16


class Role(IntEnum):
    """What a caller may do; each includes the ones before."""

    NOBODY = 0
    VIEWER = 1
    """Reads."""
    OPERATOR = 2
    """Holds, resumes, skips, halts, rolls back."""
    APPROVER = 3
    """Promotes."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Args:
        role: what it may do.
        name: of its token; empty for none.
        is_known: whether it brought a good token.
    """

    role: Role = Role.NOBODY
    name: str = ""
    is_known: bool = False


@dataclass(frozen=True, slots=True)
class _Token:
    digest: bytes
    caller: Caller


class Tokens:
    """The tokens that a server knows; only their hashes are kept."""

    def __init__(self, found: Iterable[tuple[Role, str, str]] = ()) -> None:
        """Take role, name (may be empty) and token of each.

        Raises:
            ConfigError: a token is too short, has spaces, or is there twice.
        """
        self._tokens: list[_Token] = []
        for role, name, token in found:
            check_token(token)
            if len(token) < MIN_CHARACTERS:
                raise ConfigError(
                    f"the {role.name.lower()} token {name!r} has {len(token)} characters; give it "
                    f"at least {MIN_CHARACTERS}, such as `openssl rand -hex 16` makes"
                )
            digest = _digest(token)
            if any(item.digest == digest for item in self._tokens):
                raise ConfigError(f"the {role.name.lower()} token {name!r} is another one's too")
            self._tokens.append(_Token(digest, Caller(role, name, is_known=True)))

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._tokens)

    def caller(self, headers: Mapping[str, str]) -> Caller:
        """Who sent these headers: `Authorization: Bearer`, `Basic` (as password) or `X-API-Key`."""
        digest = _digest(_presented(headers))
        found = Caller()
        for item in self._tokens:  # all of them, whichever matches: the time tells nothing
            if hmac.compare_digest(item.digest, digest):
                found = item.caller
        return found


def read_tokens(path: Path | None, environment: Mapping[str, str] | None = None) -> Tokens:
    """The tokens of a file, and those of the environment.

    Each line of the file is `role token` or `role name token`; `#` begins a comment.

    Args:
        path: the file; None for none.
        environment: by default that of the process.

    Raises:
        ConfigError: the file is not readable or not of this form, or a token is not usable.
    """
    env = os.environ if environment is None else environment
    found = [(Role[role.upper()], "", env[name]) for role, name in VARIABLES.items() if name in env]
    if path is not None:
        try:
            text = path.read_text("utf-8")
        except (OSError, ValueError) as error:
            raise ConfigError(f"the token file {path} is not readable: {error}") from None
        lines = [line.partition("#")[0].split() for line in text.splitlines()]
        named = [_parsed(path, number, words) for number, words in enumerate(lines, 1) if words]
        if not named:
            raise ConfigError(f"the token file {path} is empty")
        found += named
    return Tokens(found)


def _parsed(path: Path, number: int, words: list[str]) -> tuple[Role, str, str]:
    role = words[0]
    if role not in VARIABLES or len(words) not in (2, 3):
        raise ConfigError(  # without the line: it holds a token
            f"{path}, line {number}: write `role token` or `role name token`, with a role of "
            f"{', '.join(VARIABLES)}"
        )
    name = words[1] if len(words) == 3 else ""
    if name:
        check_name(name, f"{path}, line {number}: name")
    return Role[role.upper()], name, words[-1]


def _presented(headers: Mapping[str, str]) -> str:
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        # What Flagger and Prometheus can send: any user, the token as password.
        try:
            text = base64.b64decode(value.strip(), validate=True).decode("utf-8")
        except (binascii.Error, ValueError):
            return ""
        return text.partition(":")[2]
    return headers.get("x-api-key", "").strip()


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()
