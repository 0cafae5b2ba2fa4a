"""`python -m dalle.native`: compile the decode step, where there is a compiler; `make setup` does.

Everything works without it, so a failure is a line on stderr and no more.
"""

from __future__ import annotations

import logging

from dalle.console import configure_log
from dalle.native.build import BuildError, compile_library


def main() -> int:
    """Compile; always 0."""
    configure_log(quiet=False)
    try:
        compile_library()
    except (BuildError, OSError) as err:
        logging.getLogger(__name__).warning("pictures will be drawn more slowly: %s", err)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
