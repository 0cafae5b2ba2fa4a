"""Caption text: how it is cleaned, and what a person may ask to be drawn.

Apart from the tokenizer, so that a wrong command need not wait for heavy imports.
"""

from __future__ import annotations

import unicodedata

MAX_CAPTION_CHARS = 2000
"""Longest caption that is encoded; every character can become four tokens."""


def normalise(text: str) -> str:
    """`text` as the model reads it: NFC, no control characters, single spaces, lower case.

    Control characters (category Cc) that separate, such as newline and tab, become spaces; the
    others, NUL included, vanish. Normalising twice changes nothing more.

    Args:
        text: Any text; may be empty.

    Returns:
        The cleaned text, which is empty if `text` held only spaces and control characters.

    Raises:
        ValueError: `text` holds a lone surrogate, which no encoding can write.

    Source: lower case as Ramesh et al., arXiv:2102.12092, appendix B.2.
    """
    try:
        text.encode()
    except UnicodeEncodeError as err:
        raise ValueError(
            f"a caption must be valid Unicode, got a lone surrogate U+{ord(text[err.start]):04X} "
            f"at character {err.start}; decode the text as UTF-8 before passing it on"
        ) from err
    printable = "".join(
        character if unicodedata.category(character) != "Cc" else " " * character.isspace()
        for character in unicodedata.normalize("NFC", text)
    )
    # Removing characters and lower-casing can each bring composable characters together.
    return unicodedata.normalize("NFC", " ".join(printable.split()).lower())


def check_prompt(prompt: str) -> str:
    """`prompt` normalised, or an error that tells its writer what to change.

    Args:
        prompt: What a person asked to be drawn.

    Returns:
        The normalised prompt, never empty.

    Raises:
        TypeError: `prompt` is not a string.
        ValueError: It is empty, too long, or holds a lone surrogate.
    """
    if not isinstance(prompt, str):
        raise TypeError(f"a caption must be a string, got {type(prompt).__name__}")
    if len(prompt) > MAX_CAPTION_CHARS:
        raise ValueError(
            f"a caption must have at most {MAX_CAPTION_CHARS:,} characters, got {len(prompt):,}; "
            "shorten it"
        )
    text = normalise(prompt)
    if not text:
        raise ValueError(
            f"a caption must not be empty, got {prompt[:40]!r}; write what to draw, such as 'a fox'"
        )
    return text
