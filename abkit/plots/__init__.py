"""Figures: one function per question, used by notebook and dashboard alike.

Each takes plain decision records (or rows of traffic) and draws what they say; nothing is
computed here that would change a conclusion. The title states the conclusion, grey is undecided,
colour starts at the decision, zero is solid and limits are dashed, labels stand at the right edge.

Texts from data are shown inert: plotly would read `<a href=...>` in a name as a link.
"""

from abkit.plots.figures import (
    comparison_over_time,
    evidence_over_time,
    harm_sparkline,
    rate_over_time,
    traffic_over_time,
)
from abkit.plots.frame import PALETTES, Palette, Theme
from abkit.plots.words import (
    Scale,
    Standing,
    clock_text,
    e_value_text,
    finding,
    rule_text,
    signed,
    standing,
)

__all__ = [
    "PALETTES",
    "Palette",
    "Scale",
    "Standing",
    "Theme",
    "clock_text",
    "comparison_over_time",
    "e_value_text",
    "evidence_over_time",
    "finding",
    "harm_sparkline",
    "rate_over_time",
    "rule_text",
    "signed",
    "standing",
    "traffic_over_time",
]
