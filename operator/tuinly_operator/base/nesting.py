"""JSON of others that is nested too deeply for Python's parser: whoever may create a Secret can write such.

The API server takes 10,000 levels. The one place where any number of them is valid is `metadata.managedFields`, which
everybody may write; of those the first three say something. Python takes about 1,000 until its version 3.11, and 10,000
until 3.13, less than a list of such objects has.
"""

import json
import re
from typing import Any, Final

DEEPEST: Final = 200
"""Levels of arrays and objects that are kept; of what is read here nothing has more than 20."""

# A string, which may never end; an opening; or a closing.
_PARTS: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\Z)|([\[{])|[\]}]', re.DOTALL)


def loads(text: bytes | str) -> Any:  # noqa: ANN401 -- JSON
    """Read JSON, with null for what is nested too deeply, whatever that is. Raises ValueError if it is none."""
    try:
        return json.loads(text)
    except RecursionError:
        return json.loads(shallow(text.encode() if isinstance(text, str) else text))


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
