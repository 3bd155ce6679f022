"""What the tests against vendors' own packages share: units, a network that is not there, abkit."""

from __future__ import annotations

import socket
import threading
import time
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

import abkit
from abkit.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from abkit.compat import Imported

UNITS = 2_400


def unit(n: int) -> str:
    """The n-th unit: each kind of id that people use, and some that they should not."""
    return (
        f"user-{n}",
        str(UUID(int=n * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128)),
        f"用户{n}番",
        f"👩🏽‍🚀 {n} 😀",
        f"  Jane Doe {n} ",
        f"naïve \"quoted\" 'x'\t{n}@example.com",
    )[n % 6]


@pytest.fixture(scope="session")
def units() -> list[str]:
    return [unit(n) for n in range(UNITS)]


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Refuses every connection and name look-up of Python code, and fails if one was tried.

    It also fails where a vendor's thread is still there five seconds after the test.
    """
    tried: list[object] = []

    def refuse(*args: object, **named: object) -> None:
        tried.append(args[-1])
        raise ConnectionRefusedError

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    before = set(threading.enumerate())
    yield
    until = time.monotonic() + 5
    while (left := set(threading.enumerate()) - before) and time.monotonic() < until:
        time.sleep(0.01)
    assert not left
    assert not tried


@pytest.fixture
def serving() -> Callable[[Imported], abkit.Client]:
    """An abkit client for what was imported, by way of a published snapshot's bytes."""

    def client(imported: Imported) -> abkit.Client:
        snapshot = Snapshot.of(
            imported.experiments, layers=imported.layers, version=1, published=0.0
        )
        again = Snapshot.from_bytes(snapshot.to_bytes())
        return abkit.Client.from_experiments(
            again.experiments.values(), layers=again.layers.values()
        )

    return client
