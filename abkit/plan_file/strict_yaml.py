"""YAML without its traps: the safe loader, less anchors, aliases, tags and double keys.

Scalars are those of the core schema of YAML 1.2: in 1.1, which PyYAML reads, `no` is false, `1:30`
is 90, `010` is 8 and `1e-3` is a text.
"""

from __future__ import annotations

import re
from typing import Any, Final

import yaml

MAX_DEPTH: Final = 32
_PLAIN: Final = (
    ("tag:yaml.org,2002:null", r"(?:~|null|Null|NULL|)\Z", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", r"(?:true|True|TRUE|false|False|FALSE)\Z", list("tTfF")),
    ("tag:yaml.org,2002:int", r"[-+]?[0-9]+\Z", list("-+0123456789")),
    (
        "tag:yaml.org,2002:float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z",
        list("-+.0123456789"),
    ),
)


class StrictLoader(yaml.SafeLoader):
    """PyYAML's safe loader, narrowed."""

    # Its own table: PyYAML's is that of YAML 1.1.
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - the base class's name and form

    def __init__(self, text: str) -> None:
        """Read `text`."""
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """A node, unless it uses what a plan may not use."""
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            self._refuse("anchors and aliases are not read; write the value out", event)
        if event.tag is not None:
            self._refuse(f"tag {event.tag!r} is not read; write the plain value", event)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            self._refuse(f"it is nested more than {MAX_DEPTH} deep", event)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        """A mapping from texts, each of which stands there once."""
        seen: dict[str, Any] = {}
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                self._refuse(f"key {key!r} is no text; quote it", key_node)
            if key in seen:
                self._refuse(f"key {key!r} stands there twice", key_node)
            seen[key] = None
        for key_node, value_node in node.value:
            seen[self.construct_object(key_node, deep=True)] = self.construct_object(
                value_node, deep=deep
            )
        return seen

    def _refuse(self, problem: str, at: Any) -> None:
        raise yaml.composer.ComposerError(None, None, problem, at.start_mark)


def load(text: str) -> Any:
    """The plain data of a YAML document.

    Raises:
        yaml.YAMLError: it is not one document, or uses what is not read.
    """
    loader = StrictLoader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _whole(loader: StrictLoader, node: Any) -> int:
    return int(loader.construct_scalar(node))


def _real(loader: StrictLoader, node: Any) -> float:
    return float(loader.construct_scalar(node))


for _tag, _pattern, _first in _PLAIN:
    StrictLoader.add_implicit_resolver(_tag, re.compile(_pattern), _first)
StrictLoader.add_constructor("tag:yaml.org,2002:int", _whole)
StrictLoader.add_constructor("tag:yaml.org,2002:float", _real)
