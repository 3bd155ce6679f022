"""`notify.toml`: who is told of what; see docs/notify.md for its keys."""

from __future__ import annotations

import dataclasses
import os
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from abkit.errors import ConfigError
from abkit.integrations.kserve import Service
from abkit.integrations.mlflow import Alias
from abkit.integrations.notices import EVENTS
from abkit.integrations.webhook import Webhook
from abkit.records import hint

if TYPE_CHECKING:
    from collections.abc import Mapping

    from abkit.integrations.notices import Notice

FILE: Final = "notify.toml"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_KEYS: Final = {
    "notify": (
        *("name", "url", "url_env", "format", "events", "experiments", "secret_env"),
        "timeout_seconds",
    ),
    "mlflow": tuple(item.name for item in dataclasses.fields(Alias)),
    "kserve": tuple(item.name for item in dataclasses.fields(Service)),
}


class Target(Protocol):
    """Somebody who is told."""

    @property
    def name(self) -> str:
        """For people, and for files."""

    @property
    def host(self) -> str:
        """What may be shown of where it is."""

    def wants(self, notice: Notice) -> bool:
        """Whether this message goes there."""

    def replaces(self, old: Notice, new: Notice) -> bool:
        """Whether the new message makes the old one needless that still waits."""

    def deliver(self, notice: Notice) -> None:
        """Deliver it.

        Raises:
            DeliveryError: it did not arrive.
        """


def read_targets(workspace: str | os.PathLike[str]) -> list[Target]:
    """The targets that a workspace names; none without the file.

    Raises:
        ConfigError: the file is not usable, or a variable that it names is not set.
    """
    path = Path(workspace) / FILE
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {FILE}: {error}") from None
    found: list[Target] = []
    for kind, tables in data.items():
        if kind not in _KEYS:
            raise ConfigError(f"{FILE}: unknown table {kind!r}{hint(kind, _KEYS)}")
        if not isinstance(tables, list) or not all(isinstance(item, dict) for item in tables):
            raise ConfigError(f"{FILE}: write [[{kind}]], a list of tables")
        for number, table in enumerate(tables, start=1):
            found.append(_target(kind, table, f"{FILE}: {kind} {number}"))
    names = [item.name for item in found]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{FILE}: the name {name!r} is there twice; files are named by it")
    return found


def _target(kind: str, table: Mapping[str, Any], where: str) -> Target:
    for key in table:
        if key not in _KEYS[kind]:
            raise ConfigError(
                f"{where}: unknown key {key!r}{hint(key, dict.fromkeys(_KEYS[kind]))}"
            )
    name = table.get("name")
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise ConfigError(f"{where}: name must be a-z 0-9 _ - and begin with no sign, got {name!r}")
    if kind == "notify":
        return _webhook(table, where)
    for key, value in table.items():
        if key == "versions":
            value = "" if _is_table_of_text(value) else value  # noqa: PLW2901 - checked as the rest
        if not isinstance(value, str):
            raise ConfigError(f"{where}: {key} must be text, got {value!r}")
    cls: type[Any] = Alias if kind == "mlflow" else Service
    try:
        target: Target = cls(**table)
    except TypeError:
        required = ("experiment", "model", "alias") if cls is Alias else ("experiment", "service")
        missing = ", ".join(key for key in required if key not in table)
        raise ConfigError(f"{where}: no {missing}") from None
    return target


def _is_table_of_text(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())


def _webhook(table: Mapping[str, Any], where: str) -> Webhook:
    if ("url" in table) == ("url_env" in table):
        raise ConfigError(f"{where}: give url, or url_env with the name of a variable that has it")
    url = _variable(table, "url_env", where) if "url_env" in table else table["url"]
    rest: dict[str, Any] = {}
    if not isinstance(url, str):
        raise ConfigError(f"{where}: url must be text")
    for key, default in (("events", EVENTS), ("experiments", ())):
        value = table.get(key, default)
        if not isinstance(value, (list, tuple)) or not all(isinstance(v, str) for v in value):
            raise ConfigError(f"{where}: {key} must be a list of text, got {value!r}")
        rest[key] = tuple(value)
    if "secret_env" in table:
        rest["secret"] = _variable(table, "secret_env", where).encode("utf-8", "surrogateescape")
    for key in ("format", "timeout_seconds"):
        if key in table:
            rest[key] = table[key]
    return Webhook(name=table["name"], url=url, **rest)


def _variable(table: Mapping[str, Any], key: str, where: str) -> str:
    """What a variable of the environment holds."""
    name = table[key]
    value = os.environ.get(name, "") if isinstance(name, str) else ""
    if not value:
        raise ConfigError(f"{where}: {key} names {name!r}, which is not set")
    return value
