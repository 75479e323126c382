"""`python -m chosen_one_nb`: the kit without a notebook."""

from __future__ import annotations

import sys

from chosen_one_nb.cli import main

if __name__ == "__main__":
    sys.exit(main())
