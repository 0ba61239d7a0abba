"""The verdict: what targets held, compared with what the ledger says of those tokens. Pure functions of both."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from tests.support.sandbox.ledger import IssuedToken


@dataclass(frozen=True, order=True)
class Credential:
    """A TuinlyCredential in one of its lives: deleted and created again, it is another."""

    namespace: str
    name: str
    uid: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True)
class Change:
    """From some moment on, a credential and its target were like this.

    Attributes:
        at: When it was seen, in seconds of ``time.time``.
        earliest: When it may have come to be at the earliest; before `at` only where nobody could look meanwhile.
        exists: Whether there is the credential.
        token: What its target holds; None where there is no target, or no key in it.
    """

    at: float
    earliest: float
    exists: bool
    token: str | None = field(repr=False)


class Wrong(Enum):
    """What can be wrong with a target."""

    EXPIRED = "past its expiry"
    NEVER_ISSUED = "never issued"
    REVOKED = "revoked"
    SUPERSEDED = "revoked by the issue of its successor"
    ABSENT = "absent"


@dataclass(frozen=True)
class Finding:
    """A stretch of time in which something was wrong.

    Attributes:
        since: Its beginning, in seconds of ``time.time``.
        token: The ledger's sequence number of the token, where it has one.
    """

    credential: Credential
    wrong: Wrong
    since: float
    seconds: float
    token: int | None = None

    def __str__(self) -> str:
        begin = time.strftime("%H:%M:%S", time.gmtime(self.since)) + f".{int(self.since % 1 * 1000):03}Z"
        what = "no token" if self.wrong is Wrong.ABSENT else "a token" if self.token is None else f"token {self.token}"
        return f"{self.credential}: {what}, {self.wrong.value}, for {_shown(self.seconds)} s from {begin}"


@dataclass(frozen=True)
class Verdict:
    """What the auditor found.

    Attributes:
        credentials: How many it looked at.
        seconds: For how long.
        findings: All that was wrong, for certain.
        doubt_seconds: What may have been wrong besides while the API server was out of reach, at worst.
        gap_bound: How many seconds a token may stay in a target that the server revoked when it issued the next one:
            the time between its answer and the write of the Secret. 0 where the server does no such thing.
    """

    credentials: int
    seconds: float
    findings: tuple[Finding, ...]
    doubt_seconds: float = 0.0
    gap_bound: float = 0.0

    @property
    def expired_token_seconds(self) -> float:
        """For how long targets held a token past its expiry."""
        return self._sum(Wrong.EXPIRED)

    @property
    def bad_token_seconds(self) -> float:
        """For how long targets held a token that was never issued or is revoked (and not expired besides)."""
        return self._sum(Wrong.NEVER_ISSUED, Wrong.REVOKED, Wrong.SUPERSEDED)

    @property
    def absent_seconds(self) -> float:
        """For how long there was no token, after the first one and while the credential existed."""
        return self._sum(Wrong.ABSENT)

    @property
    def longest_gap(self) -> float:
        """The longest time for which a target held a token that its successor's issue had revoked."""
        return max((finding.seconds for finding in self.findings if finding.wrong is Wrong.SUPERSEDED), default=0.0)

    @property
    def is_good(self) -> bool:
        """Whether nothing was wrong nor may have been, but for gaps within the bound."""
        return self.doubt_seconds == 0 and not any(map(self._counts, self.findings))

    def __str__(self) -> str:
        """Tell it to a person; tokens are called by their sequence numbers."""
        gaps = [finding for finding in self.findings if finding.wrong is Wrong.SUPERSEDED]
        told = (
            f" ({len(gaps)} gaps of servers that revoke predecessors, the longest {_shown(self.longest_gap)} s; "
            f"the bound is {_shown(self.gap_bound)} s)"
        )
        lines = [
            f"{'good' if self.is_good else 'NOT GOOD'}: {self.credentials} credentials, {self.seconds:.1f} s",
            f"expired-token-seconds {_shown(self.expired_token_seconds)}",
            f"bad-token-seconds     {_shown(self.bad_token_seconds)}{told if gaps else ''}",
            f"absent-seconds        {_shown(self.absent_seconds)}",
        ]
        if self.doubt_seconds:
            lines.append(f"in doubt              {_shown(self.doubt_seconds)} (the API server was out of reach)")
        return "\n".join([*lines, *(f"  {finding}" for finding in self.findings if self._counts(finding))])

    def _counts(self, finding: Finding) -> bool:
        return finding.wrong is not Wrong.SUPERSEDED or finding.seconds > self.gap_bound

    def _sum(self, *wrongs: Wrong) -> float:
        return sum((finding.seconds for finding in self.findings if finding.wrong in wrongs), 0.0)


def audit(
    histories: Mapping[Credential, Sequence[Change]],
    tokens: Iterable[IssuedToken],
    since: float,
    until: float,
    gap_bound: float = 0.0,
) -> Verdict:
    """Compare what targets held with the ledger.

    Args:
        histories: What was seen of each credential, in order of time.
        tokens: All tokens of the ledger.
        since: When the auditor began to look, in seconds of ``time.time``.
        until: When it ended.
        gap_bound: See Verdict.
    """
    ledger = {token.value: token for token in tokens}
    findings: list[Finding] = []
    doubt = 0.0
    for credential, changes in histories.items():
        auditor = _CredentialAuditor(credential, ledger)
        for change, following in zip(changes, [*changes[1:], None], strict=False):  # no change: no pair
            end = until if following is None else min(until, following.earliest)
            auditor.published |= change.token is not None
            findings += auditor.wrongs(change, change.at, end)
            if following is not None:
                doubt += auditor.doubt(change, following, until)
    return Verdict(
        len(histories),
        until - since,
        tuple(sorted(findings, key=lambda finding: (finding.since, finding.credential))),
        doubt,
        gap_bound,
    )


@dataclass
class _CredentialAuditor:
    """Judges stretches of one credential's history; `published` tells whether there was a token already."""

    credential: Credential
    ledger: Mapping[str, IssuedToken]
    published: bool = False

    def wrongs(self, change: Change, begin: float, end: float) -> Iterator[Finding]:
        """Yield what was wrong between two moments, if all was as the change says."""
        if not change.exists:
            return
        if change.token is None:
            if self.published:
                yield from self._stretch(Wrong.ABSENT, begin, end)
            return
        token = self.ledger.get(change.token)
        if token is None:
            yield from self._stretch(Wrong.NEVER_ISSUED, begin, end)
            return
        if token.revoked_at is not None:
            wrong = Wrong.SUPERSEDED if token.revoked_by == "successor" else Wrong.REVOKED
            yield from self._stretch(wrong, max(begin, token.revoked_at), min(end, token.expires_at), token)
        yield from self._stretch(Wrong.EXPIRED, max(begin, token.expires_at), end, token)

    def doubt(self, change: Change, following: Change, until: float) -> float:
        """Return the seconds that may have been wrong while nobody could tell one from the other, at worst."""
        begin, end = max(change.at, following.earliest), min(following.at, until)
        return max(
            sum(finding.seconds for finding in self.wrongs(either, begin, end)) for either in (change, following)
        )

    def _stretch(self, wrong: Wrong, begin: float, end: float, token: IssuedToken | None = None) -> Iterator[Finding]:
        if end > begin:
            yield Finding(self.credential, wrong, begin, end - begin, token.sequence if token is not None else None)


def _shown(seconds: float) -> str:
    """Return seconds to the millisecond; what is not zero never looks like it."""
    return "0" if seconds == 0 else f"{max(seconds, 0.001):.3f}"
