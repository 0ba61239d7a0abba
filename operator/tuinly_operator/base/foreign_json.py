"""JSON that others wrote, and that Python's parser does not take: nested too deeply, or not in UTF-8.

Whoever may create a Secret can have the API server tell of such. In `metadata.managedFields` it takes 10,000 levels,
and hands on what is not UTF-8 as it came. Of all that the first three levels alone say something, and of their names
those in ASCII. Python takes about 1,000 levels until its version 3.11, and 10,000 until 3.13, less than a list of such
objects has.
"""

import json
import re
from typing import Any, Final

DEEPEST: Final = 200
"""Levels of arrays and objects that are kept; of what is read here nothing has more than 20."""

# A string, which may never end; an opening; or a closing.
_PARTS: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\Z)|([\[{])|[\]}]', re.DOTALL)


def loads(text: bytes | str) -> Any:  # noqa: ANN401 -- JSON
    """Read JSON, with null for what is nested too deeply, and U+FFFD for what is not UTF-8, whatever they are.

    Raises ValueError if it is none.
    """
    if isinstance(text, bytes):
        text = text.decode(errors="replace")
    try:
        return json.loads(text)
    except RecursionError:
        return json.loads(shallow(text.encode(errors="replace")))


def shallow(text: bytes) -> bytes:
    """The text of a JSON value with null for each array or object in DEEPEST others; or as it is."""
    if text.count(b"{") + text.count(b"[") <= DEEPEST:
        return text
    kept: list[bytes] = []
    level = end = 0  # of what has been read, and the end of what is kept or left out
    for part in _PARTS.finditer(text):
        if part[1]:
            level += 1
            if level == DEEPEST + 1:
                kept.append(text[end : part.start()])
        elif part[0] in b"]}":
            if level == DEEPEST + 1:
                kept.append(b"null")
                end = part.end()
            level -= 1
    if level <= DEEPEST:  # else that has no end
        kept.append(text[end:])
    return b"".join(kept)
