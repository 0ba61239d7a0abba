"""The auditor: looks at target Secrets and the sandbox's ledger from outside, and says how good the tokens were.

It reports three figures, all of which should be 0:

- *expired-token-seconds*: a target held a token past its expiry;
- *bad-token-seconds*: a target held a token that was never issued or is revoked. A server that revokes a token when it
  issues the next one leaves a gap until that is written; such gaps are reported, and good within a stated bound;
- *absent-seconds*: there was no target, or no key in it, after the first publication and while the credential existed.

It depends on nothing of the operator's, and knows only what is public: the resource, the label on targets, the key.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.auditor.timeline import Session, histories
from tests.support.auditor.verdict import Change, Credential, Finding, Verdict, Wrong, audit
from tests.support.auditor.watch import Observer, TokenOf, token_of_default_key
from tests.support.sandbox import SandboxAdmin

__all__ = ["Auditor", "Change", "Credential", "Finding", "Verdict", "Wrong", "audit"]

START_TIMEOUT = 60.0  # seconds until the first lists are complete
SETTLE_SECONDS = 0.5  # what happened before a verdict may arrive for so long after it was asked for


class Auditor:
    """Audits a cluster for as long as the context lasts.

    Args:
        kubeconfig: A login that may list and watch namespaces, credentials and Secrets in all of the cluster.
        sandbox: Whose ledger counts.
        namespaces: What to look at; None for all.
        token_of: Reads the token from a target's data; by default its key ``access_token``.
    """

    def __init__(
        self,
        kubeconfig: Path,
        sandbox: SandboxAdmin,
        namespaces: Collection[str] | None = None,
        token_of: TokenOf = token_of_default_key,
    ) -> None:
        self._sandbox = sandbox
        self._observer = Observer(kubeconfig, token_of, namespaces)
        self._listed = threading.Event()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="auditor")
        self._observing: Future[None] = Future()
        self._cancel: Callable[[], object] = lambda: None
        self._ended_at: float | None = None

    def __enter__(self) -> Self:
        """Begin to look, and wait until all there is has been seen.

        Raises:
            TimeoutError: If the API server does not show it; the message says why.
            ValueError: If the kubeconfig is none.
        """
        self._observing = self._thread.submit(asyncio.run, self._observe())
        self._observing.add_done_callback(lambda _: self._listed.set())
        listed = self._listed.wait(START_TIMEOUT)
        if not listed or self._observing.done():
            self._stop()
            raise TimeoutError(f"the auditor sees nothing of the cluster: {self._observer.trouble}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Look no more; `verdict` is about the time until now."""
        self._ended_at = time.time()
        time.sleep(SETTLE_SECONDS)
        self._stop()

    def verdict(self, gap_bound: float = 0.0) -> Verdict:
        """Return what was found until now, or until the context ended.

        Args:
            gap_bound: How many seconds a target may hold a token that the server revoked by issuing the next one.

        Raises:
            Exception: What ended the auditor early, if anything did.
        """
        seen, since, until = self.histories()
        return audit(seen, self._sandbox.tokens(), since, until, gap_bound)

    def histories(self) -> tuple[dict[Credential, list[Change]], float, float]:
        """Return what was seen of each credential, since when, and until when, likewise.

        Raises:
            Exception: What ended the auditor early, if anything did.
        """
        until = self._ended_at
        if until is None:
            if self._observing.done():
                self._observing.result()  # it ended by an error, which this raises
            until = time.time()
            time.sleep(SETTLE_SECONDS)
        # Copies, as events go on arriving in the other thread.
        sessions = [
            Session(session.listed_at, session.objects, list(session.events), session.ended_at)
            for session in list(self._observer.sessions)
        ]
        return histories(sessions, until), sessions[0].listed_at, until

    async def _observe(self) -> None:
        """Observe, in a loop of the thread's own."""
        observing = asyncio.ensure_future(self._observer.run(self._listed.set))
        self._cancel = partial(asyncio.get_running_loop().call_soon_threadsafe, observing.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await observing

    def _stop(self) -> None:
        """End the thread.

        Raises:
            Exception: What ended it before, if anything did.
        """
        if not self._observing.done():
            self._cancel()
        self._thread.shutdown()
        self._observing.result()
