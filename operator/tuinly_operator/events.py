"""Tells users of transitions by Kubernetes Events, in the background: an Event that cannot be sent holds nothing up."""

import asyncio
import logging
import os
import socket
from datetime import UTC, datetime
from typing import Final

from tuinly_operator.credential import API_VERSION, KIND, Credential
from tuinly_operator.kube import ApiFailure, Kube, NotLeading, event
from tuinly_operator.logs import fields
from tuinly_operator.report import Transition

_MOST_WAITING: Final = 1000
_MAX_NOTE: Final = 1024  # bytes, events.k8s.io/v1

_log = logging.getLogger(__name__)


class EventSender:
    """Sends Events one after the other; when more wait than fit, new ones are dropped and that is logged."""

    def __init__(self, kube: Kube) -> None:
        """Nothing is sent before `run`."""
        self._kube = kube
        self._waiting: asyncio.Queue[tuple[Credential, Transition]] = asyncio.Queue(_MOST_WAITING)
        self._instance = os.environ.get("HOSTNAME") or socket.gethostname()
        self._sent = 0

    def tell(self, credential: Credential, transition: Transition) -> None:
        """Queue an Event about a credential."""
        try:
            self._waiting.put_nowait((credential, transition))
        except asyncio.QueueFull:
            _log.warning("an Event was dropped", extra=fields(credential=credential.key, reason=transition.reason))

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            credential, transition = await self._waiting.get()
            try:
                await self._kube.post_event(credential.key.namespace, self._event(credential, transition))
            except NotLeading:
                continue  # the leader tells its own
            except ApiFailure as failure:
                if failure.namespace_ends:
                    continue
                extra = fields(credential=credential.key, reason=transition.reason, cause=failure)
                _log.warning("an Event could not be sent", extra=extra)

    def _event(self, credential: Credential, transition: Transition) -> dict[str, object]:
        now = datetime.now(UTC)
        self._sent += 1
        return event(
            credential.key.namespace,
            # Unique without asking the server: the time to the microsecond, and a count for two in the same one.
            f"{credential.key.name}.{int(now.timestamp() * 1e6):x}{self._sent % 4096:03x}",
            {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "namespace": credential.key.namespace,
                "name": credential.key.name,
                "uid": credential.uid,
                "resourceVersion": credential.version,
            },
            eventTime=now.isoformat(timespec="microseconds").replace("+00:00", "Z"),
            reportingInstance=self._instance,
            action="Refresh",
            reason=transition.reason,
            note=transition.message.encode()[:_MAX_NOTE].decode(errors="ignore"),
            type="Warning" if transition.warning else "Normal",
        )
