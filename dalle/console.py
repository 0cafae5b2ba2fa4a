"""What a running command shows on stderr: log lines and progress bars."""

from __future__ import annotations

import logging
import sys
import warnings
from typing import TextIO

_PACKAGES = ("dalle", "vae")
_PICTURE_LIBRARY = r"PIL\."


class _LogBesideBars(logging.StreamHandler[TextIO]):
    """Writes log lines to stderr, above the progress bars if there are any."""

    def emit(self, record: logging.LogRecord) -> None:
        bars = sys.modules.get("tqdm")
        if bars is None:
            super().emit(record)
        else:
            bars.tqdm.write(self.format(record), file=sys.stderr)


class _LogFormat(logging.Formatter):
    """News as it is, anything graver behind its level; nothing that could steer a terminal.

    Names of files and captions, which others may have written, are quoted in many a line.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        text = super().formatMessage(record)
        # Lines end where the message itself says so, and not where a name does.
        kept = "\n" if "\n" in str(record.msg) else ""
        return printable(text, kept=kept)

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if record.levelno <= logging.INFO:
            return text
        return f"{record.levelname.lower()}: {text}"


def printable(text: str, *, kept: str = "") -> str:
    """`text` with a space for each character that could steer a terminal, but for those `kept`."""
    return "".join(char if char.isprintable() or char in kept else " " for char in text)


def configure_log(*, quiet: bool) -> None:
    """Send the log of our packages to stderr; `quiet` leaves warnings and errors, and no bars."""
    # What is wrong with a picture is said by us, in one line and with its name.
    warnings.filterwarnings("ignore", module=_PICTURE_LIBRARY)
    handler = _LogBesideBars(sys.stderr)
    handler.setFormatter(_LogFormat())
    for package in _PACKAGES:
        logger = logging.getLogger(package)
        logger.handlers = [handler]
        logger.setLevel(logging.WARNING if quiet else logging.INFO)
        logger.propagate = False


def bar_disabled() -> bool | None:
    """The value for tqdm's `disable`.

    True, no bar, while the log takes no INFO lines: in a program that uses this package as a
    library, and under `dalle --quiet`. None otherwise, with which tqdm shows bars on terminals.
    """
    return None if logging.getLogger("dalle").isEnabledFor(logging.INFO) else True
