"""Hypothesis without deadlines: the machines that run these tests are shared and noisy."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("abkit", deadline=None)
settings.load_profile("abkit")
