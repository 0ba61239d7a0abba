"""Reads a credential past every cache, and has the store go by what is there, whatever the watch says."""

import logging
from http import HTTPStatus

from tuinly_operator.base.logs import fields
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.domain.credential import Credential
from tuinly_operator.domain.errors import Failure, Reason
from tuinly_operator.edges.kube import ApiFailure, Kube
from tuinly_operator.engine.store import Record, Store

_log = logging.getLogger(__name__)


async def read_credential(kube: Kube, store: Store, key: NamespacedName) -> bool:
    """Look for a credential, and have the store take in what is found; return whether it did. Raises ApiFailure."""
    since = store.known(key)
    try:
        raw, version = await kube.find_credential(key)
    except ApiFailure as failure:
        failure.reason = Reason.CREDENTIAL_UNREADABLE
        raise
    try:
        credential = Credential.from_object(raw) if raw is not None else None
    except Failure as failure:
        _log.warning("ignored an object that is no TuinlyCredential", extra=fields(cause=failure))
        return False
    return store.credential_read(key, credential, version, since)


async def is_served(kube: Kube, store: Store, record: Record) -> bool:
    """Whether a live read shows that a record's credential exists, is not being deleted, and is ours to serve.

    Its record has then what was found; if another credential has the name, that one is served from now on.

    Raises:
        ApiFailure: it could not be read; 409 if it changes as fast as it is read.
    """
    if not await read_credential(kube, store, record.credential.key):
        raise ApiFailure(HTTPStatus.CONFLICT, "TooManyChanges", reason=Reason.CREDENTIAL_UNREADABLE)
    return store.get(record.credential.key) is record and not record.credential.deleting
