"""The one door to YAML: files with credentials, and what is written for people."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from kubectl_tuinly.outcome import Exit, StopError


class _Loader(yaml.SafeLoader):
    """Reads a date as kubectl does, as a text; and no text that no UTF-8 has."""

    def text(self, node: yaml.ScalarNode) -> str:
        """Read a text. Raises UnicodeEncodeError."""
        found = str(self.construct_scalar(node))
        found.encode()
        return found


for _tag in ("str", "timestamp"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _Loader.text)


def read_objects(path: str) -> Iterator[dict[str, Any]]:
    """The objects of a file, `-` for standard input; those in a List one by one. Raises StopError."""
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
        documents = list(yaml.load_all(text, _Loader))
    except OSError as error:
        raise StopError(Exit.WRONG_USE, f"{path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # such as no UTF-8, no number, no end of brackets
        where = getattr(error, "problem_mark", None)
        line = f" in line {where.line + 1}" if where is not None else ""
        raise StopError(Exit.WRONG_USE, f"{path} is no YAML{line}") from None
    for document in documents:
        if isinstance(document, dict):
            items = document.get("items")
            yield from (each for each in (items if isinstance(items, list) else [document]) if isinstance(each, dict))


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as such."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def written(value: object) -> str:
    """A value as YAML that moves no cursor."""
    text = _dumped(value, letters=True)
    # Letters that turn the direction, for example, are escaped, with all that are not ASCII.
    return text if all(line.isprintable() for line in text.split("\n")) else _dumped(value, letters=False)


def _dumped(value: object, *, letters: bool) -> str:
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=letters, width=120)
    return text
