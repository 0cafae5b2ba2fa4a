"""Errors as the people who use the page see them: a message for them, or an id for the log.

Only a `PageFault` is shown as it is. The text of any other error may name a path of the server or
quote somebody's caption, so it stays here: the person gets an id, and the log gets that id with the
places in the code that the error passed through.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import traceback
from collections.abc import Iterator

from dalle.errors import DalleError

log = logging.getLogger(__name__)


class PageFault(DalleError):  # noqa: N818 - a fault is shown, an error is logged
    """What went wrong, in words that may be shown to whoever uses the page."""


def fault_id() -> str:
    """A new id that a person can quote and the log can be searched for: 8 hexadecimal digits."""
    return secrets.token_hex(4)


@contextlib.contextmanager
def guarded(doing: str) -> Iterator[None]:
    """Turn every error of the block but a `PageFault` into one that tells nothing but an id.

    The log gets the id, the kinds of the error and of its causes, and the lines of code they passed
    through, without their texts; at level DEBUG the texts as well. Interrupts, and the end of a
    generator around whose `yield` this stands, pass through.

    Args:
        doing: What the block does, for the log: "drawing". No caption.

    Raises:
        PageFault: The block raised an exception.
    """
    try:
        yield
    except PageFault:
        raise
    except Exception as err:  # noqa: BLE001 - the last door: whatever it is ends here
        found = fault_id()
        log.error("fault %s while %s:\n%s", found, doing, _trace(err))
        log.debug("fault %s says: %s", found, err)
        # From None, so that whoever logs the fault does not log the error's text with it.
        raise PageFault(
            f"Something went wrong on the server, fault {found}. Try again; if it stays, tell the "
            "person who runs this page that number."
        ) from None


def _trace(err: BaseException) -> str:
    """Kinds and places of an error and its causes, the first cause last; no texts."""
    parts: list[str] = []
    current: BaseException | None = err
    while current is not None:
        parts += [type(current).__name__, "\n"]
        parts += traceback.format_tb(current.__traceback__)
        cause = current.__cause__
        if cause is None and not current.__suppress_context__:
            cause = current.__context__
        current = cause
    return "".join(parts).rstrip()
