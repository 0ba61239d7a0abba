"""Faults: what the sandbox is told to do wrong, to which requests and how often."""

import time
from dataclasses import dataclass, field
from typing import Literal

from tests.support.sandbox.answers import catalogue
from tests.support.sandbox.clients import Grant
from tests.support.sandbox.wire import InvalidError

Endpoint = Literal["token", "graphql"]
Kind = Literal["fail", "throttle", "hang", "reset", "slow", "drip", "answer"]

_DEFAULT_STATUS = {"fail": 500, "throttle": 429, "answer": 200}
_DEFAULT_SECONDS = {"hang": 3600.0, "slow": 5.0, "drip": 1.0}


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing to do wrong.

    Attributes:
        kind: ``fail`` answers ``status`` (500) with ``body`` and ``headers``; ``throttle`` answers ``status`` (429)
            with ``Retry-After``; ``hang`` takes the request and answers nothing for ``seconds`` (an hour), then
            resets; ``reset`` resets the connection; ``slow`` answers rightly, but ``seconds`` (5) late; ``drip``
            answers rightly, but a byte every ``seconds`` (1); ``answer`` sends one of the catalogue by the name
            ``answer``, or ``body`` verbatim with ``status`` (200).
        endpoint, client, grant: Which requests it meets: one endpoint's, and of those only one client's or one
            grant's, where given.
        count: After how many requests it is over; None for never.
        every: It meets only every so many of those requests, where given.
        rate: It spares so many of them per second, without bursts, where given.
        retry_after, retry_after_as: Seconds for ``throttle``, and whether they are sent as such or as an HTTP date
            (RFC 9110, section 10.2.3).
        processed: Whether the server does its work (issues, rotates, revokes) before ``fail``, ``throttle``,
            ``hang``, ``reset`` or a verbatim answer hides the result. ``slow``, ``drip`` and answers of the catalogue
            always do.
    """

    kind: Kind
    endpoint: Endpoint = "token"
    client: str | None = None
    grant: Grant | None = None
    count: int | None = None
    every: int | None = None
    rate: float | None = None
    seconds: float | None = None
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = field(default=None, repr=False)
    retry_after: float | None = None
    retry_after_as: Literal["seconds", "date"] = "seconds"
    answer: str | None = None
    processed: bool = False

    def __post_init__(self) -> None:
        """Refuse what could not be done.

        Raises:
            InvalidError: With a sentence that says what is wrong.
        """
        if self.kind == "answer" and (self.answer is None) == (self.body is None):
            raise InvalidError("a fault of kind answer has either an answer of the catalogue or a body")
        if self.kind != "answer" and self.answer is not None:
            raise InvalidError("only a fault of kind answer has an answer of the catalogue")
        if self.answer is not None and self.answer not in catalogue(self.endpoint):
            raise InvalidError(f"the {self.endpoint} endpoint has no answer {self.answer!r}; GET /answers lists them")
        if self.count is not None and self.count < 1:
            raise InvalidError("count is at least 1")
        if self.every is not None and self.every < 1:
            raise InvalidError("every is at least 1")
        if self.rate is not None and self.rate <= 0:
            raise InvalidError("rate is more than 0 per second")
        if self.seconds is not None and self.seconds < 0 and self.answer is None:
            raise InvalidError("seconds are not negative")
        if self.status is not None and self.status not in range(200, 600):
            raise InvalidError("status is an HTTP status from 200 to 599")

    @property
    def label(self) -> str:
        """What the ledger calls it: the kind, with the answer's name where there is one."""
        return self.kind if self.answer is None else f"{self.kind}:{self.answer}"

    @property
    def is_processed(self) -> bool:
        """Whether the server does its work before anything goes wrong."""
        return self.processed or self.answer is not None or self.kind in {"slow", "drip"}

    @property
    def sent_status(self) -> int:
        """The status for the kinds that send one of their own."""
        return self.status if self.status is not None else _DEFAULT_STATUS[self.kind]

    @property
    def wait(self) -> float:
        """The seconds for the kinds that wait."""
        return self.seconds if self.seconds is not None else _DEFAULT_SECONDS[self.kind]

    def meets(self, endpoint: Endpoint, client: str | None, grant: str | None) -> bool:
        """Tell whether a request is one that this is for."""
        return self.endpoint == endpoint and self.client in {None, client} and self.grant in {None, grant}


@dataclass
class _Entry:
    number: int
    fault: Fault
    left: int | None
    met: int = 0
    spared: float = float("-inf")  # when a request was last spared for its rate

    def spares(self, now: float) -> bool:
        """Tell whether a request that it meets, at a time in seconds, is none of its own."""
        self.met += 1
        if self.fault.every is not None and self.met % self.fault.every:
            return True
        if self.fault.rate is not None and now - self.spared >= 1 / self.fault.rate:
            self.spared = now
            return True
        return False


class Faults:
    """The faults in force. Of those that meet a request the newest is done to it, alone."""

    def __init__(self) -> None:
        self._entries: list[_Entry] = []
        self._last_number = 0

    def add(self, fault: Fault) -> int:
        """Put a fault in force; return the number under which it can be cleared."""
        self._last_number += 1
        self._entries.append(_Entry(self._last_number, fault, fault.count))
        return self._last_number

    def clear(self, number: int | None = None) -> None:
        """End one fault, or all of them. One that is over already is no error."""
        self._entries = [entry for entry in self._entries if number not in {None, entry.number}]

    def list(self) -> list[tuple[int, Fault, int | None]]:
        """Return number, fault and remaining count of those in force, oldest first."""
        return [(entry.number, entry.fault, entry.left) for entry in self._entries]

    def take(self, endpoint: Endpoint, client: str | None, grant: str | None = None) -> Fault | None:
        """Return what is to be done to a request, and count it."""
        for entry in reversed(self._entries):
            if entry.fault.meets(endpoint, client, grant) and not entry.spares(time.monotonic()):
                if entry.left is not None:
                    entry.left -= 1
                    if entry.left == 0:
                        self._entries.remove(entry)
                return entry.fault
        return None
