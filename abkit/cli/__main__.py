"""`python -m abkit.cli`, where the `abkit` command is not on the path."""

from __future__ import annotations

import sys

from abkit.cli import main

if __name__ == "__main__":
    sys.exit(main())
