"""The web page: `python app.py [--port N]`, the same as `dalle demo [--port N]`.

Everything is in `dalle.page`; `dalle demo --help` tells all settings.
"""

from __future__ import annotations

import sys

from dalle.cli import main

if __name__ == "__main__":
    sys.exit(main(["demo", *sys.argv[1:]]))
