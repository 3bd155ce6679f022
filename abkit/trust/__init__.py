"""Trust: whether a workspace and its reports can be relied on, and what each check is worth."""

from __future__ import annotations

from abkit.trust.doctor import diagnose

__all__ = ["diagnose"]
