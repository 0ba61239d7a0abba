"""What a target would look like: rendered as the operator does, with a made-up token."""

import base64
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from tuinly_operator.base.names import is_name
from tuinly_operator.domain.credential import API_VERSION, KIND, Credential
from tuinly_operator.domain.errors import Failure, Reason
from tuinly_operator.domain.schedule import refresh_offset
from tuinly_operator.domain.target import TokenState, exchange_inputs, target_manifest, template_values
from tuinly_operator.domain.template import Layout, layout_of, render

MADE_UP_TOKEN: Final = "MADE-UP-ACCESS-TOKEN"  # noqa: S105 -- as it says
MADE_UP_CLIENT: Final = "MADE-UP-CLIENT-ID"
_LIFETIME: Final = 3600  # seconds
_MOST_IN_NAME: Final = 57  # as in crds/
_LATER: Final = {"namespace": "default", "uid": "00000000-0000-0000-0000-000000000000", "resourceVersion": "1"}
_OPERATORS_OWN: Final = "(the operator's default)"


def is_credential(raw: Mapping[str, Any]) -> bool:
    """Whether an object is a TuinlyCredential of the version that is known here."""
    return raw.get("kind") == KIND and raw.get("apiVersion") == API_VERSION


def preview(raw: Mapping[str, Any], now: float) -> dict[str, Any]:
    """The target Secret of a credential as a file has it, with its content to be read.

    Raises:
        Failure: the API server or the operator would refuse it, for the reason that is told.
    """
    credential = _understood(raw)
    layout = layout_of(credential.spec.target.template)
    state = _state(credential, layout, now)
    manifest = target_manifest(
        credential, state, layout, render(layout, template_values(state, MADE_UP_TOKEN, MADE_UP_CLIENT)), None
    )
    data = manifest.pop("data")
    manifest["stringData"] = {key: base64.b64decode(value).decode() for key, value in data.items()}
    for name in ("resourceVersion", "ownerReferences"):
        manifest["metadata"].pop(name, None)
    return manifest


def explained(raw: Mapping[str, Any]) -> Iterator[str]:
    """What each key of the target is made of, and what becomes of the target."""
    credential = _understood(raw)
    for key, text in layout_of(credential.spec.target.template).data.items():
        yield f"{key}: {text!r}"
    yield f"when the credential is deleted: {credential.spec.target.deletion_policy}"


def _understood(raw: Mapping[str, Any]) -> Credential:
    meta = raw.get("metadata")
    given = meta if isinstance(meta, Mapping) else {}
    name = given.get("name")
    if not isinstance(name, str) or not is_name(name):
        raise Failure(Reason.INVALID_SPEC, "metadata.name: small letters, digits, - and . are what a name is made of")
    credential = Credential.from_object({**raw, "metadata": {**_LATER, **given}})
    if credential.problem is not None:
        raise credential.problem
    if len(credential.key.name) > _MOST_IN_NAME:
        raise Failure(Reason.INVALID_SPEC, f"metadata.name: at most {_MOST_IN_NAME} characters; choose a shorter name")
    if credential.target == credential.client_secret:
        problem = "spec.target.name: the target must not be the client Secret; choose another name"
        raise Failure(Reason.INVALID_SPEC, problem)
    return credential


def _state(credential: Credential, layout: Layout, now: float) -> TokenState:
    at = int(now)
    state = TokenState(
        credential_uid=credential.uid,
        issued_at=at,
        expires_at=at + _LIFETIME,
        next_refresh=0,
        granted_scopes=" ".join(sorted(credential.spec.scopes)),
        exchange_inputs=exchange_inputs(credential.spec.token_url or _OPERATORS_OWN, credential.spec),
        template=layout.digest,
        client_secret_version="",
        handled_refresh=credential.refresh_requested,
    )
    return replace(state, next_refresh=int(at + refresh_offset(credential.spec.refresh, state)))
