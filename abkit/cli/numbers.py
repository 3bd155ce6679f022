"""Numbers as people write them on a command line."""

from __future__ import annotations

import argparse


def to_number(text: str) -> float:
    """A number, or a percentage such as 5%.

    Raises:
        argparse.ArgumentTypeError: it is neither.
    """
    try:
        if text.endswith("%"):
            return float(text[:-1]) / 100
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number, such as 0.05 or 5%") from None
