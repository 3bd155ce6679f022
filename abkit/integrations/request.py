"""What one request knows of its experiments, and the header that forces variants.

The web integrations share this file; it knows none of their frameworks.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from abkit.assignment import DEFAULT_CONTROL
from abkit.errors import ConfigError
from abkit.metrics import NAME_PATTERN

if TYPE_CHECKING:
    from collections.abc import Callable

    from abkit.assignment import Assignment
    from abkit.client import Client, Rejections
    from abkit.client.exposing import Exposing
    from abkit.targeting import Attributes

    UnitOf = Callable[[Any], str | int | None]
    AttributesOf = Callable[[Any], Attributes | None]

MAX_HEADER_CHARACTERS = 1_024
MIN_TOKEN_CHARACTERS = 16
_HEADER = re.compile(r"[a-z0-9][a-z0-9-]{0,63}\Z")


class RequestHandle:
    """The client, bound to the unit of one request.

    The unit and its attributes are looked up when they are first needed, so they may come from
    what inner layers find out, such as a session or a login. Nothing here raises.

    Args:
        client: assigns and logs.
        source: the request, whatever the framework calls it.
        unit_of: the unit_id of that request; None while it is not known.
        attributes_of: what is known of the unit, for targeting; None for nothing.
    """

    __slots__ = ("_attributes", "_attributes_of", "_client", "_source", "_unit", "_unit_of")

    def __init__(
        self,
        client: Client,
        source: object,
        unit_of: UnitOf,
        attributes_of: AttributesOf | None = None,
    ) -> None:
        """Remember all four, and look nothing up."""
        self._client = client
        self._source = source
        self._unit_of = unit_of
        self._attributes_of = attributes_of
        self._unit: str | int | None = None
        self._attributes: Attributes = {}

    @property
    def client(self) -> Client:
        """The client itself, for units other than the request's."""
        return self._client

    @property
    def unit_id(self) -> str | int:
        """The unit of this request; empty, which is no unit, where there is none."""
        if self._unit is None:
            try:
                self._unit = self._unit_of(self._source)
            except Exception:  # noqa: BLE001 - R1: the application's own function
                self._client.rejected.add("unit_error")
                self._unit = ""
        return "" if self._unit is None else self._unit

    def _known(self, attributes: Attributes | None) -> Attributes | None:
        if self._attributes_of is None:
            return attributes
        try:
            own = self._attributes or dict(self._attributes_of(self._source) or {})
            self._attributes = own
            known = {**own, **attributes} if attributes else own
        except Exception:  # noqa: BLE001 - R1: the same
            self._client.rejected.add("attributes_error")
            return attributes
        return known

    def assign(
        self,
        experiment: str,
        attributes: Attributes | None = None,
        *,
        default: str = DEFAULT_CONTROL,
    ) -> Assignment:
        """The variant of this request's unit, and why; see `Client.assign`.

        Args:
            experiment: key of the experiment.
            attributes: for targeting, besides those that the integration was given.
            default: the variant to serve when the experiment is not known here.
        """
        known = self._known(attributes)
        return self._client.assign(experiment, self.unit_id, known, default=default)

    def variant(
        self,
        experiment: str,
        attributes: Attributes | None = None,
        *,
        default: str = DEFAULT_CONTROL,
    ) -> str:
        """The name of the variant alone; takes the same arguments as `assign`."""
        known = self._known(attributes)
        return self._client.variant(experiment, self.unit_id, known, default=default)

    def expose(self, assignment: Assignment) -> bool:
        """Log that the unit met its variant; see `Client.expose`."""
        return self._client.expose(assignment)

    def exposure(
        self,
        experiment: str,
        attributes: Attributes | None = None,
        *,
        default: str = DEFAULT_CONTROL,
        latency: str = "",
        error: str = "",
    ) -> Exposing:
        """The block in which the unit meets its variant; see `Client.exposure`."""
        return self._client.exposure(
            experiment,
            self.unit_id,
            self._known(attributes),
            default=default,
            latency=latency,
            error=error,
        )

    def record(self, metric: str, value: float) -> bool:
        """Log one measured value of this request's unit; see `Client.record`.

        Args:
            metric: key of the metric.
            value: a finite number, in the metric's unit of measure.
        """
        return self._client.record(self.unit_id, metric, value)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForceHeader:
    """A request header that forces variants, for people who test: `ranker=student, banner=on`.

    Whoever can send it sees what the experiments hold back, so it wants a token unless the
    contrary is said. Such units are kept out of the analysis.

    Args:
        header: name of the header, such as "x-abkit-force".
        token: what a second header must hold; at least 16 characters of ASCII.
        token_header: name of that header; empty for the first one's with "-token" behind.
        is_open: take the header from anybody; only for a network that outsiders cannot reach.
    """

    header: str
    token: str = field(default="", repr=False)
    token_header: str = ""
    is_open: bool = False

    def __post_init__(self) -> None:
        """Check that it can work and is not open by accident."""
        if not self.token_header:
            object.__setattr__(self, "token_header", f"{self.header}-token")
        for name in (self.header, self.token_header):
            if not isinstance(name, str) or _HEADER.match(name) is None:
                raise ConfigError(
                    f"a force header must be of lower-case letters, digits and '-', got {name!r}"
                )
        if not isinstance(self.token, str) or not self.token.isascii():
            raise ConfigError("the force token must be a text of ASCII characters")
        if self.is_open and self.token:
            raise ConfigError(
                f"{self.header} has a token and is open to everybody as well: choose one"
            )
        if not self.is_open and len(self.token) < MIN_TOKEN_CHARACTERS:
            raise ConfigError(
                f"{self.header} lets a request choose its variants: give a force token of at "
                f"least {MIN_TOKEN_CHARACTERS} characters, or allow it for everybody explicitly"
            )

    @classmethod
    def named(
        cls, header: str | None, token: str, token_header: str, *, is_open: bool
    ) -> Self | None:
        """The header from an integration's arguments; None where no header is named.

        Raises:
            ConfigError: it cannot work, or would be open by accident.
        """
        if header is None:
            return None
        return cls(header=header, token=token, token_header=token_header, is_open=is_open)

    def read(self, value: str | None, token: str | None, rejected: Rejections) -> dict[str, str]:
        """The variants that a request may force, by key of experiment; empty for none.

        Args:
            value: what the header holds; None if the request has none.
            token: what the token's header holds.
            rejected: counts refusals, as "force_refused" or "invalid_force_header".
        """
        if not value:
            return {}
        try:
            given = (token or "").encode("utf-8", "replace")
            if not self.is_open and not hmac.compare_digest(given, self.token.encode()):
                rejected.add("force_refused")
                return {}
            return _parsed(value)
        except Exception:  # noqa: BLE001 - R1: a header is anybody's text
            rejected.add("invalid_force_header")
            return {}


def _parsed(value: str) -> dict[str, str]:
    if len(value) > MAX_HEADER_CHARACTERS:
        raise ValueError("too long")
    variants: dict[str, str] = {}
    for pair in value.split(","):
        experiment, _, variant = (part.strip() for part in pair.partition("="))
        if NAME_PATTERN.match(experiment) is None or NAME_PATTERN.match(variant) is None:
            raise ValueError("not a pair")
        variants[experiment] = variant
    return variants


def check_unit(unit: object, where: str) -> None:
    """Refuse what cannot be asked for a unit.

    Raises:
        ConfigError: it is not callable.
    """
    if not callable(unit):
        raise ConfigError(f"{where}: unit must be a function of the request, got {unit!r}")
