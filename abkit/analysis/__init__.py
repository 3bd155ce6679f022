"""`analyze`: a table of units -> a report that says what is known and how well.

Statistics come from `stats`, tables are read by `store`; this package joins the two and keeps
no numbers of its own.
"""

from __future__ import annotations

from abkit.analysis.display import HEADINGS, SEGMENT_HEADINGS, segment_rows, table_rows
from abkit.analysis.report import Check, EpochWeight, Report, Result
from abkit.analysis.run import analyze
from abkit.analysis.summaries import analyze_moments
from abkit.analysis.timed import TimedLook

__all__ = [
    "HEADINGS",
    "SEGMENT_HEADINGS",
    "Check",
    "EpochWeight",
    "Report",
    "Result",
    "TimedLook",
    "analyze",
    "analyze_moments",
    "segment_rows",
    "table_rows",
]
