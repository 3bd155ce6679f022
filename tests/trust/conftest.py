"""The real data sets, and workspaces that real clients write to."""

from __future__ import annotations

from tests.reference.conftest import shared_data

__all__ = ["shared_data"]
