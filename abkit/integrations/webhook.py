"""Webhooks: a signed POST of JSON, to whoever asks for it or to Slack.

Each request carries::

    Abkit-Id: ranker-v7:4:halt          the same for each attempt: drop what you have seen
    Abkit-Event: halt
    Abkit-Timestamp: 1795538492         of this attempt: refuse what is older than five minutes
    Abkit-Signature: v1=<hex>           HMAC-SHA256 of "<timestamp>.<body>" under the secret

Only a status of 200 to 299 counts as delivered. Redirects are followed to the same host alone,
and by 307 and 308, which keep the body.
"""

from __future__ import annotations

import hmac
import http.client
import ipaddress
import json
import os
import ssl
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import SplitResult, urljoin, urlsplit

from abkit.errors import ConfigError
from abkit.integrations.notices import EVENTS, Notice
from abkit.records import check_choice, is_number

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_BODY: Final = 1 << 16
MOST_REDIRECTS: Final = 3
MOST_WAIT_SECONDS: Final = 3600.0
_KEEPING: Final = (307, 308)
_SLACK_CHARACTERS: Final = 2900
_SIGNS: Final = {"halt": ":octagonal_sign:", "rolled_back": ":rewind:", "promote": ":tada:"}


class DeliveryError(Exception):
    """A message did not arrive.

    Args:
        reason: in words, without the address.
        retry_seconds: when the other side would have it again; None if it does not say.
        is_final: whether another attempt is pointless.
    """

    def __init__(
        self, reason: str, *, retry_seconds: float | None = None, is_final: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_seconds = retry_seconds
        self.is_final = is_final


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """Where to send messages.

    Args:
        name: for people, and for files.
        url: https; http for this machine itself alone.
        format: "json" (`abkit.event/v1`) or "slack".
        events: which of `EVENTS`; all by default.
        experiments: of these alone; of all by default.
        secret: signs; none without one.
        timeout_seconds: for the whole attempt.

    Raises:
        ConfigError: an argument is not usable.
    """

    name: str
    url: str
    format: str = "json"
    events: tuple[str, ...] = EVENTS
    experiments: tuple[str, ...] = ()
    secret: bytes = b""
    timeout_seconds: float = 5.0

    def __post_init__(self) -> None:
        """Check what a message cannot be sent with."""
        where = f"webhook {self.name!r}"
        check_choice(where, "format", self.format, ("json", "slack"))
        for event in self.events:
            check_choice(where, "event", event, EVENTS)
        if not is_number(self.timeout_seconds) or not 0 < self.timeout_seconds <= 60:
            raise ConfigError(
                f"{where}: timeout_seconds must lie above 0 and at most at 60, "
                f"got {self.timeout_seconds!r}"
            )
        _check_address(where, self.url)

    @property
    def host(self) -> str:
        """What may be shown of the address: the rest of it may be a secret."""
        return urlsplit(self.url).netloc.rpartition("@")[2]

    def wants(self, notice: Notice) -> bool:
        """Whether this message goes here."""
        return notice.event in self.events and (
            not self.experiments or notice.experiment in self.experiments
        )

    def replaces(self, old: Notice, new: Notice) -> bool:  # noqa: ARG002 - as with targets that keep a state
        """Whether a newer message makes an older one that still waits needless: never here."""
        return False

    def deliver(self, notice: Notice) -> None:
        """Send one message.

        Raises:
            DeliveryError: it was not taken.
        """
        data = slack(notice) if self.format == "slack" else notice.to_dict()
        body = json.dumps(data, allow_nan=False).encode("ascii")
        stamp = str(int(time.time()))
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "abkit",
            "Abkit-Id": notice.id,
            "Abkit-Event": notice.event,
            "Abkit-Timestamp": stamp,
        }
        if self.secret:
            headers["Abkit-Signature"] = f"v1={signature(self.secret, stamp, body)}"
        deadline = time.monotonic() + self.timeout_seconds
        url = self.url
        for _ in range(1 + MOST_REDIRECTS):
            status, answer, wait = _post(url, body, headers, deadline=deadline)
            if 200 <= status < 300:
                return
            if status not in _KEEPING:
                note = ", a redirect: name the final address" if 300 <= status < 400 else ""
                raise DeliveryError(
                    f"status {status}{note}",
                    retry_seconds=wait,
                    is_final=status == http.HTTPStatus.GONE,
                )
            url = _redirected(url, answer)
        raise DeliveryError(f"more than {MOST_REDIRECTS} redirects")


def signature(secret: bytes, stamp: str, body: bytes) -> str:
    """HMAC-SHA256 of "<timestamp>.<body>", in hex."""
    return hmac.digest(secret, stamp.encode("ascii") + b"." + body, "sha256").hex()


def slack(notice: Notice) -> dict[str, Any]:
    """A message for an incoming webhook of Slack."""
    name = {"rolled_back": "rolled back"}.get(notice.event, notice.event)
    name += " (dry run)" if notice.mode == "dry_run" else ""
    title = f"{_SIGNS.get(notice.event, '')} *{_escape(notice.rollout)}*: {_escape(name)}".strip()
    where = (
        f"{_escape(notice.treatment)} has {100 * notice.share:.3g} % of "
        f"{_escape(notice.experiment)}, now {_escape(notice.state)} ({_escape(notice.stage)})"
    )
    reason = _escape(notice.reason)[:_SLACK_CHARACTERS]
    note = f"by {_escape(notice.actor)}, version {notice.version}"
    if notice.decision_id:
        note += f", decision {_escape(notice.decision_id)[:19]}"
    text = "\n".join(line for line in (title, where, reason) if line)
    return {
        "text": _escape(f"{notice.rollout}: {name}. {notice.reason}")[:_SLACK_CHARACTERS],
        "blocks": [
            {"type": "section", "text": {"type": "mrkdwn", "text": text[:3000]}},
            {"type": "context", "elements": [{"type": "mrkdwn", "text": note}]},
        ],
    }


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _check_address(where: str, url: str) -> None:
    """Refuse addresses that would send messages in the clear.

    Raises:
        ConfigError: it is none of https, nor of this machine.
    """
    try:
        found = urlsplit(url)
        _ = found.port
    except ValueError:
        raise ConfigError(f"{where}: the address is no URL") from None
    if not found.hostname or found.scheme not in ("http", "https"):
        raise ConfigError(f"{where}: the address must be an https URL")
    if found.username or found.password:
        raise ConfigError(f"{where}: no user and password in the address; sign with secret_env")
    if found.scheme == "http" and not _is_here(found.hostname):
        raise ConfigError(f"{where}: http to {found.hostname} can be read on its way; use https")
    if any(not 32 < ord(c) < 127 for c in url):
        raise ConfigError(f"{where}: the address holds spaces or letters beyond ASCII")


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _origin(parts: SplitResult) -> tuple[str, str | None, int]:
    return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def _redirected(url: str, location: str) -> str:
    """The address that a redirect names, if it is of the same host.

    Raises:
        DeliveryError: it is not.
    """
    try:
        target = urljoin(url, location)
        same = bool(location) and _origin(urlsplit(target)) == _origin(urlsplit(url))
        _check_address("redirect", target)
    except (ValueError, ConfigError):
        same = False
    if not same:
        raise DeliveryError("it redirects to another host, which is not followed")
    return target


def _post(
    url: str, body: bytes, headers: Mapping[str, str], *, deadline: float
) -> tuple[int, str, float | None]:
    """Status, Location and Retry-After of one request.

    Raises:
        DeliveryError: no answer that could be read, or none in time.
    """
    parts = urlsplit(url)
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise DeliveryError("no answer in time")
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection(parts.netloc, timeout=seconds, context=context)
    else:
        connection = http.client.HTTPConnection(parts.netloc, timeout=seconds)
    # A socket's timeout is per byte: whoever answers a byte a second would hold us for ever.
    is_late = threading.Event()
    watch = threading.Timer(seconds, _cut, (connection, is_late))
    watch.daemon = True
    watch.start()
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", path, body=body, headers=dict(headers))
        answer = connection.getresponse()
        status, location = answer.status, answer.getheader("Location", "")
        wait = _wait_seconds(answer.getheader("Retry-After", ""))
    except (OSError, http.client.HTTPException, ValueError) as error:
        late = is_late.is_set() or isinstance(error, TimeoutError)
        raise DeliveryError("no answer in time" if late else _told(error)) from None
    finally:
        watch.cancel()
        connection.close()
    return status, location, wait


def _cut(connection: http.client.HTTPConnection, is_late: threading.Event) -> None:
    is_late.set()
    sock = connection.sock
    if sock is not None:
        try:
            sock.shutdown(2)
        except OSError:
            return


def _told(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno) if error.errno > 0 else "the name is not known"
    return f"no answer of HTTP ({type(error).__name__})"


def _wait_seconds(text: str) -> float | None:
    return min(float(text), MOST_WAIT_SECONDS) if text.isdecimal() and len(text) < 10 else None
