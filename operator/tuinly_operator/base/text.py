"""Texts as people are shown them, on one line and not too long; and the characters that scopes and tokens may have."""

import re
from typing import Final

# One or more NQCHAR of RFC 6749 appendix A, as of scopes and tokens: printable ASCII without space, quote, backslash.
NQCHARS: Final = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+")


def printable(text: str) -> str:
    """Escape line ends and whatever else does not print, so that no value can forge a line of its own."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def cut(text: str, most: int) -> str:
    """A text of so many characters at most; … at its end says that more was cut off."""
    return text if len(text) <= most else f"{text[: most - 1]}…"
