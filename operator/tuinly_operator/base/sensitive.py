"""A string that holds a secret and never shows it: not in a repr, a log line, an exception or a format."""

import hmac
from typing import Final, NoReturn, SupportsIndex

_MASK: Final = "<sensitive>"


class Sensitive:
    """Wraps a client secret, an access token or a refresh token.

    Only `reveal` gives the value; its few callers are the places where a secret leaves the process: the token
    request, the target Secret and the verification. Everything that prints or serializes by itself sees a mask, or
    fails.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the secret itself (str). Call it only where the secret is sent."""
        return self._value

    def __eq__(self, other: object) -> bool:
        # In constant time: equality of secrets must not be measurable from outside.
        return isinstance(other, Sensitive) and hmac.compare_digest(self._value.encode(), other._value.encode())

    # A hash is a digest of the secret; dictionaries keyed by secrets are not wanted.
    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return _MASK

    def __str__(self) -> str:
        return _MASK

    def __format__(self, spec: str) -> str:
        return _MASK

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        message = "a Sensitive is never pickled or copied"
        raise TypeError(message)
