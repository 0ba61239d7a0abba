"""Canaries: secrets that are known wherever they turn up, as they are, encoded or digested."""

import base64
import hashlib
import re
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from urllib.parse import quote, quote_plus


@dataclass(frozen=True)
class Canary:
    """A secret.

    Attributes:
        what: what it is, for people.
        value: the secret itself; of tokens that begin alike and end nobody knows how, the beginning.
        homes: namespace and name of the Secrets that it belongs to.
    """

    what: str
    value: str = field(repr=False)
    homes: frozenset[tuple[str, str]] = frozenset()


def new_canary() -> str:
    """Make up a value of characters that a token may have, among them those that encodings write otherwise."""
    return f"canary-{secrets.token_urlsafe(24)}~+/=%&:"


def sightings(text: str, canaries: Iterable[Canary]) -> list[str]:
    """Return which canaries are in a text, and how: in words that do not repeat them."""
    return [
        f"{canary.what} {how}"
        for canary in canaries
        for how, patterns in _forms(canary.value).items()
        if any(pattern in text for pattern in patterns)
    ]


def _forms(value: str) -> dict[str, Iterable[str]]:
    """Return all that a secret must not be found as, by how that is."""
    digest = hashlib.sha256(value.encode())
    digested = base64.b64encode(digest.digest()).decode().rstrip("=")
    quoted = (quote(value, safe=""), quote_plus(value))
    return {
        "as it is": (value,),
        "in part": _parts(value),
        "URL-encoded": (*quoted, *(re.sub("%..", lambda code: code[0].lower(), text) for text in quoted)),
        "in hexadecimal": (value.encode().hex(),),
        "in base64": tuple(_in_base64(value.encode())),
        "as SHA-256": (digest.hexdigest(), digested, digested.translate(_URL_SAFE)),
    }


def _parts(value: str) -> set[str]:
    """Return so many parts that any fifteen characters have one in them; what many secrets begin with is none."""
    return {value[end - 12 : end] for end in range(len(value), 19, -4)}


_URL_SAFE = str.maketrans("+/", "-_")  # RFC 4648, section 5


def _in_base64(value: bytes) -> Iterator[str]:
    """Yield what base64 makes of a value in the midst of something, for each of the three places it can begin at.

    What depends on the neighbours is left out: the first characters, and a last one that is shared with the next byte.
    """
    for before, first in enumerate((0, 2, 3)):
        certain = base64.b64encode(bytes(before) + value)[first : (before + len(value)) * 8 // 6].decode()
        yield certain
        yield certain.translate(_URL_SAFE)
