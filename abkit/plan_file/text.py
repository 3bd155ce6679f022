"""A plan's text -> plain data: TOML, YAML or JSON, each read as strictly as the strictest.

Whatever the format, a plan is at most 64 KiB, says each key once, and its numbers are finite.
YAML is read by PyYAML's safe loader with the scalars of YAML 1.2, so that `no` and `on` are texts
and `1e-3` is a number. Anchors, aliases, merge keys and tags are refused: a plan needs none, and
they hide what a reviewer has to see.
"""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING, Any, Final, NoReturn

from abkit.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MAX_BYTES: Final = 64 * 1024
MAX_DEPTH: Final = 32


def read_text(path: Path) -> str:
    """The text of a plan file.

    Raises:
        ConfigError: it cannot be read, is too large, or is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ConfigError(
                f"cannot read the plan {path}: it is larger than {MAX_BYTES:,} bytes; "
                "a plan is a small file, is this the right one?"
            )
        return data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the plan {path}: {error}") from None


def parse(text: str, path: Path) -> dict[str, Any]:
    """The plain data of a plan; the name of its file says in which format it is.

    Args:
        text: of the plan.
        path: of its file, for its suffix and for messages.

    Raises:
        ConfigError: the text is not what the suffix says, or not a table; syntax errors name the
            line.
        MissingExtraError: YAML, without PyYAML.

    Examples:
        >>> from pathlib import Path
        >>> parse('policy.alpha = 0.02', Path("plan.toml"))
        {'policy': {'alpha': 0.02}}
        >>> parse('{"key": "a", "key": "b"}', Path("plan.json"))
        Traceback (most recent call last):
        abkit.errors.ConfigError: cannot read the plan plan.json: key 'key' stands there twice
    """
    formats: dict[str, Callable[[str, Path], Any]] = {
        ".toml": _toml,
        ".yaml": _yaml,
        ".yml": _yaml,
        ".json": _json,
    }
    reader = formats.get(path.suffix.lower())
    if reader is None:
        raise ConfigError(
            f"cannot read the plan {path}: its suffix {path.suffix!r} names no format; call it "
            ".toml, .yaml, .yml or .json"
        )
    try:
        data = reader(text, path)
    except RecursionError:
        _refuse(path, f"it is nested more than {MAX_DEPTH} deep")
    except ConfigError:
        raise
    except ValueError as error:  # json's, and that of a number with thousands of digits
        _refuse(path, str(error))
    if not isinstance(data, dict):
        _refuse(path, f"a plan is a table of keys, got {data!r:.80}")
    return data


def _refuse(path: Path, why: str) -> NoReturn:
    raise ConfigError(f"cannot read the plan {path}: {why}") from None


def _toml(text: str, path: Path) -> Any:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        end = f"at line {len(text.splitlines())}, the end"
        _refuse(path, str(error).replace("at end of document", end))


def _json(text: str, path: Path) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            _refuse(path, f"key {twice!r} stands there twice")
        return found

    def finite(word: str) -> NoReturn:
        _refuse(path, f"{word} is no number of JSON")

    return json.loads(text, object_pairs_hook=once, parse_constant=finite)


def _yaml(text: str, path: Path) -> Any:
    try:
        import yaml  # noqa: PLC0415 - an extra
    except ModuleNotFoundError:
        raise MissingExtraError(
            f"the plan {path} is YAML, which needs PyYAML: pip install 'abkit-rollouts[yaml]'; "
            "TOML and JSON need nothing"
        ) from None
    from abkit.plan_file.strict_yaml import load  # noqa: PLC0415 - needs the extra

    try:
        return load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = "" if mark is None else f" (at line {mark.line + 1}, column {mark.column + 1})"
        _refuse(path, ", ".join(filter(None, (error.context, error.problem))) + place)
    except yaml.YAMLError as error:  # an unlawful character
        _refuse(path, str(error).replace("\n", " "))
