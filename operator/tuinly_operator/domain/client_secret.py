"""From an untrusted Secret to a client id and secret, or to a sentence that says what is wrong with it."""

import base64
import re
from collections.abc import Mapping
from typing import Any, Final

from tuinly_operator.base.sensitive import Sensitive
from tuinly_operator.domain.credential import ClientSecretRef
from tuinly_operator.domain.errors import Failure, Reason
from tuinly_operator.domain.memory import Client

# Secrets of these types hold other systems' keys. Whoever may create a TuinlyCredential must not get the operator to
# send or copy them, so they are refused here and kept out of the watch by the server.
REFUSED_TYPES: Final = (
    "bootstrap.kubernetes.io/token",
    "helm.sh/release.v1",
    "kubernetes.io/dockercfg",
    "kubernetes.io/dockerconfigjson",
    "kubernetes.io/service-account-token",
    "kubernetes.io/tls",
)
_LONGEST: Final = 32_768  # characters: both stay in memory
_VSCHAR: Final = re.compile(r"[\x20-\x7E]+")  # RFC 6749 appendix A.1 and A.2


def is_watched(raw: Mapping[str, Any]) -> bool:
    """Whether the watch shows a Secret of this type."""
    return raw.get("type") not in REFUSED_TYPES


def parse_client_secret(raw: Mapping[str, Any], ref: ClientSecretRef) -> Client:
    """Read the client id and secret from a Secret.

    Raises:
        Failure: `ClientSecretInvalid`, naming the key and what is wrong with it, never its value.
    """
    kind = raw.get("type")
    if not is_watched(raw):
        raise _invalid(ref, f"has the type {kind}, which is not used for client secrets; use an Opaque Secret")
    data = raw.get("data") or {}
    client_id = _value(data, ref, ref.client_id_key)
    return Client(client_id, Sensitive(_value(data, ref, ref.client_secret_key)))


def not_found(ref: ClientSecretRef) -> Failure:
    """The failure for a client Secret that is not there."""
    return Failure(Reason.CLIENT_SECRET_NOT_FOUND, f"the Secret {ref.name} does not exist; create it in this namespace")


def not_readable(name: str) -> Failure:
    """The failure for a client Secret that the operator has no right to read."""
    message = f"the operator may not read the Secret {name}; grant it get on Secrets in this namespace"
    return Failure(Reason.CLIENT_SECRET_NOT_FOUND, message)


def _value(data: Mapping[str, str], ref: ClientSecretRef, key: str) -> str:
    if key not in data:
        raise _invalid(ref, f"has no key {key}; add it, or name another key in spec.clientSecretRef")
    try:
        text = base64.b64decode(data[key] or "", validate=True).decode("ascii")
    except (ValueError, TypeError):
        raise _invalid(ref, f"holds binary or non-ASCII data in key {key}; it must be printable ASCII") from None
    # One line end is the usual slip of --from-file.
    text = text.removesuffix("\r\n") if text.endswith("\r\n") else text.removesuffix("\n")
    if not text:
        raise _invalid(ref, f"has an empty key {key}")
    if len(text) > _LONGEST:
        raise _invalid(ref, f"holds more than {_LONGEST} characters in key {key}; is it the right one?")
    if not _VSCHAR.fullmatch(text):
        raise _invalid(
            ref, f"holds control characters or a line end in key {key}; it must be printable ASCII on one line"
        )
    return text


def _invalid(ref: ClientSecretRef, what: str) -> Failure:
    return Failure(Reason.CLIENT_SECRET_INVALID, f"the Secret {ref.name} {what}")
