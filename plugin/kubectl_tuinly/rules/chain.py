"""The chain from a client Secret to a Pod, step by step: what `why` says of each."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from kubectl_tuinly.rules.installation import Installation
from kubectl_tuinly.rules.pods import How, Sees, Use
from kubectl_tuinly.rules.steps import Step, Unseen, Verdict, unchecked
from kubectl_tuinly.rules.view import actor_of, moment
from tuinly_operator.base.clock import parse_rfc3339
from tuinly_operator.base.text import cut, printable
from tuinly_operator.domain.client_secret import not_found
from tuinly_operator.domain.credential import READY, REFRESHED, Credential, GrantType
from tuinly_operator.domain.errors import Actor, Failure, Reason
from tuinly_operator.domain.facts import understand
from tuinly_operator.domain.target import MANAGER, Ownership, SecretMeta, looks_as_asked, ownership
from tuinly_operator.domain.template import layout_of

DEFINITION: Final = "Definition"
OPERATOR: Final = "Operator"
CLIENT: Final = "Client Secret"
URL: Final = "Token URL"
ATTEMPT: Final = "Last attempt"
TARGET: Final = "Target"
PODS: Final = "Pods"

_ASK: Final[Mapping[Actor, str]] = {
    Actor.ADMIN: "Ask the cluster admin. ",
    Actor.ENDPOINT: "Wait, or ask whoever runs the endpoint. ",
}
_MOST_NAMED: Final = 5
_GRANTS: Final = {GrantType.REFRESH_TOKEN: "by refresh token", GrantType.CLIENT_CREDENTIALS: "by client credentials"}


class Served(NamedTuple):
    """An installation that serves the credential, and the replica that leads it; an empty one: nobody does."""

    by: Installation
    leader: str | Unseen


def problem_of(credential: Credential) -> Failure | None:
    """Why the spec cannot be understood, its template included; None if it can. Then nothing else can be looked at."""
    return understand(credential)[1]


def definition_step(credential: Credential) -> Step:
    """Whether the API server knows the resource, as it must to show a credential, and the spec can be understood."""
    problem = problem_of(credential)
    if problem is not None:
        return Step(DEFINITION, Verdict.WRONG, problem.message, f"Mend the spec: {problem.message}")
    return Step(DEFINITION, Verdict.FINE, "the API server knows TuinlyCredentials, and the spec can be understood")


def operator_step(credential: Credential, serving: Sequence[Served] | Unseen) -> Step:
    """Who serves the credential, and whether a replica leads."""
    if isinstance(serving, Unseen):
        return _operator_unseen(credential, serving)
    if not serving:
        where = credential.key.namespace
        todo = f"Ask the cluster admin to have the namespace {where} served (--namespace, --selector)."
        return Step(OPERATOR, Verdict.WRONG, "no operator in this cluster serves it", todo)
    text = "; ".join(_serves(each) for each in serving)
    if len(serving) > 1:
        return Step(OPERATOR, Verdict.WARNING, text, "Ask the cluster admin: two operators serve this credential.")
    [one] = serving
    if not one.by.ready or one.leader == "":
        where = f"kubectl -n {one.by.key.namespace} get pods"
        return Step(OPERATOR, Verdict.WRONG, text, f"Ask the cluster admin why no replica is at work: {where}")
    return Step(OPERATOR, Verdict.FINE, text)


def _operator_unseen(credential: Credential, unseen: Unseen) -> Step:
    """What the status tells of operators to those who may not look for them."""
    looked = credential.status.observed_generation
    if looked is not None and looked >= 0:
        since = "" if looked == credential.generation else ", but not at the present spec"
        return Step(OPERATOR, Verdict.UNCHECKED, f"one has looked at it{since}; not checked: {unseen.why}")
    where = credential.key.namespace
    todo = f"Ask the cluster admin whether an operator serves the namespace {where}, and is ready."
    return Step(OPERATOR, Verdict.WRONG, f"no operator has looked at it; not checked: {unseen.why}", todo)


def _serves(served: Served) -> str:
    by = served.by
    text = f"{by.key} serves it, {by.ready} of {by.wanted} replicas ready"
    if isinstance(served.leader, Unseen):
        return f"{text}; who leads was not checked: {served.leader.why}"
    return f"{text}; {served.leader} leads" if served.leader else f"{text}; none leads"


def client_step(credential: Credential, meta: Mapping[str, Any] | Unseen | None, read: Failure | Unseen | None) -> Step:
    """The client Secret by its metadata; `read` is what its content came to, where that had to be read."""
    ref = credential.spec.client_secret_ref
    if isinstance(meta, Unseen):
        return unchecked(CLIENT, meta)
    if meta is None:
        missing = not_found(ref).message
        return Step(CLIENT, Verdict.WRONG, missing, f"{missing[0].upper()}{missing[1:]}.")
    told = credential.status.condition(READY)
    if told is not None and told.reason == Reason.CLIENT_SECRET_INVALID:
        return Step(CLIENT, Verdict.WRONG, told.message, f"Mend it: {told.message}")
    if isinstance(read, Unseen):
        return unchecked(CLIENT, read)
    if read is not None:
        return Step(CLIENT, Verdict.WRONG, read.message, f"Mend it: {read.message}")
    keys = f"{ref.client_id_key}, {ref.client_secret_key}"
    return Step(CLIENT, Verdict.FINE, f"{ref.name} has the keys {keys}; last written by {_writers(meta)}")


def has_keys(credential: Credential, meta: Mapping[str, Any]) -> bool:
    """Whether the managed fields of the client Secret tell that it has both keys."""
    ref = credential.spec.client_secret_ref
    entries = meta["metadata"].get("managedFields") or ()
    known = {name for entry in entries for name in (entry.get("fieldsV1") or {}).get("f:data") or ()}
    return {f"f:{ref.client_id_key}", f"f:{ref.client_secret_key}"} <= known


def _writers(meta: Mapping[str, Any]) -> str:
    entries = meta["metadata"].get("managedFields") or ()
    names = [cut(printable(str(entry.get("manager"))), 60) for entry in entries if not entry.get("subresource")]
    return ", ".join(dict.fromkeys(names)) or "nobody knows"


def url_step(credential: Credential, by: Installation | None) -> Step:
    """Whether the operator may send the client's secret to where the credential says."""
    told, named = credential.status.condition(READY), credential.spec.token_url
    if told is not None and told.reason == Reason.URL_NOT_ALLOWED:
        return Step(URL, Verdict.WRONG, told.message, f"Omit it, or ask the cluster admin to allow it: {told.message}")
    if by is not None and not by.unknown:
        if named is not None and named not in by.token_urls:
            problem = f"{named} is not among those that the operator's settings allow"
            return Step(URL, Verdict.WRONG, problem, f"Omit spec.tokenURL, or ask the cluster admin to allow {named}.")
        return Step(URL, Verdict.FINE, f"{named or by.default_url} is allowed")
    in_effect = credential.status.token_url
    if in_effect is not None and named in {None, in_effect}:
        return Step(URL, Verdict.FINE, f"{in_effect}, by what the operator last told")
    return Step(URL, Verdict.UNCHECKED, "not checked: you may not read the operator's settings")


def attempt_step(credential: Credential, events: Sequence[Mapping[str, Any]] | Unseen, now: float) -> Step:
    """What status and Events tell of the last attempt."""
    told = credential.status
    refreshed, ready = told.condition(REFRESHED), told.condition(READY)
    if refreshed is None or ready is None:
        return Step(ATTEMPT, Verdict.WAITING, "none yet, as far as anybody has told")
    if told.observed_generation != credential.generation:
        return Step(
            ATTEMPT, Verdict.WAITING, "the status is about an earlier spec; the operator has yet to look at this one"
        )
    if refreshed.status == "True":
        how = _GRANTS.get(told.last_grant, "") if told.last_grant else ""
        text = f"it worked, {moment(_time(told.last_refresh_time), now)} {how}".rstrip()
        return Step(
            ATTEMPT, Verdict.FINE, f"{text}; the next is due {moment(_time(told.next_refresh_time), now, past='now')}"
        )
    if refreshed.reason == Reason.SUSPENDED:
        todo = f"Resume it: kubectl tuinly resume {credential.key.name} -n {credential.key.namespace}"
        return Step(ATTEMPT, Verdict.WAITING, "suspended: no token is asked for", todo)
    if refreshed.status == "Unknown":
        return Step(ATTEMPT, Verdict.WAITING, refreshed.message)
    text = (
        f"{refreshed.reason}: {refreshed.message}{_failures(credential, now)}{_last_warning(credential, events, now)}"
    )
    todo = f"{_ASK.get(actor_of(refreshed.reason), '')}{refreshed.reason}: {refreshed.message}"
    return Step(ATTEMPT, Verdict.WRONG if ready.status != "True" else Verdict.WARNING, text, todo)


def _failures(credential: Credential, now: float) -> str:
    told = credential.status
    if not told.failed_attempts:
        return ""
    following = moment(_time(told.next_refresh_time), now, past="now")
    last = moment(_time(told.last_failure_time), now)
    return f"; failed attempts: {told.failed_attempts}, the last {last}, the next {following}"


def _last_warning(credential: Credential, events: Sequence[Mapping[str, Any]] | Unseen, now: float) -> str:
    if isinstance(events, Unseen):
        return ""
    about = [
        e for e in events if e.get("type") == "Warning" and (e.get("regarding") or {}).get("uid") == credential.uid
    ]
    if not about:
        return ""
    last = max(about, key=lambda event: event.get("eventTime") or "")
    return f"; last Warning {last.get('reason')}, {moment(_time(last.get('eventTime')), now)}"


def target_step(credential: Credential, raw: Mapping[str, Any] | Unseen | None, now: float) -> Step:
    """The target by its metadata: whose it is, until when its token is good, and who else touched it."""
    if isinstance(raw, Unseen):
        return unchecked(TARGET, raw)
    name = credential.target.name
    if raw is None:
        return Step(TARGET, Verdict.WAITING, f"there is no Secret {name} yet")
    secret = SecretMeta.from_object(raw)
    if ownership(secret, credential) is Ownership.FOREIGN:
        problem = f"the Secret {name} is not this credential's; written by {_writers(raw)}"
        return Step(TARGET, Verdict.WRONG, problem, f"Delete the Secret {name}, or choose another spec.target.name.")
    return _held(credential, secret, raw, now)


def _held(credential: Credential, secret: SecretMeta, raw: Mapping[str, Any], now: float) -> Step:
    """What the credential's own target holds."""
    name = credential.target.name
    state = secret.target.state if secret.target is not None else None
    if state is None:
        return Step(TARGET, Verdict.WAITING, f"nothing in {name} tells of a token; touched by {_writers(raw)}")
    touched = _touched(raw)
    if state.expires_at <= now:
        return Step(TARGET, Verdict.WRONG, f"the token in {name} expired {moment(state.expires_at, now)}{touched}")
    text = f"{name} holds a token that expires {moment(state.expires_at, now)}{touched}"
    if not looks_as_asked(secret, credential, layout_of(credential.spec.target.template)):
        return Step(TARGET, Verdict.WAITING, f"{text}; it does not look yet as spec.target asks for")
    return Step(TARGET, Verdict.FINE, text)


def _touched(raw: Mapping[str, Any]) -> str:
    entries = raw["metadata"].get("managedFields") or ()
    others = {cut(printable(str(entry.get("manager"))), 60) for entry in entries if entry.get("manager") != MANAGER}
    return f"; also touched by {', '.join(sorted(others))}" if others else ""


def pods_step(
    credential: Credential, uses: Iterable[Use] | Unseen, target: Mapping[str, Any] | Unseen | None, now: float
) -> Step:
    """Whether the Pods that use the target see its present token."""
    if isinstance(uses, Unseen):
        return unchecked(PODS, uses)
    found = list(uses)
    if not found:
        return Step(PODS, Verdict.FINE, f"no Pod uses the Secret {credential.target.name}")
    meta = None if target is None or isinstance(target, Unseen) else SecretMeta.from_object(target)
    if meta is None or meta.target is None:
        # Who may not see the target goes by what the status tells of the token's issue.
        written, version = _time(credential.status.last_refresh_time) or 0.0, ""
    else:
        written, version = meta.target.written, meta.version
    seen = {use: use.sees(written, version, now) for use in found}
    text = "; ".join(_sees(use, seen[use]) for use in found[:_MOST_NAMED]) + (
        "; and more" if len(found) > _MOST_NAMED else ""
    )
    old = sorted({use.pod for use, what in seen.items() if what is Sees.OLD})
    if old:
        todo = f"Restart {', '.join(old[:_MOST_NAMED])}, and mount the Secret as a directory, without subPath."
        return Step(PODS, Verdict.WRONG, text, todo)
    if Sees.FOR_NOW in seen.values():
        return Step(
            PODS, Verdict.WARNING, text, "Mount the Secret as a directory: else the next token needs a restart."
        )
    waits = Sees.SOON in seen.values()
    return Step(PODS, Verdict.WAITING if waits else Verdict.FINE, text)


def _sees(use: Use, what: Sees) -> str:
    told = {
        Sees.IT: "sees the present token",
        Sees.SOON: "sees the present token within about 90 seconds of its writing",
        Sees.FOR_NOW: "has the present token, and will not see the next one",
        Sees.OLD: "started before the present token was written, and has an older one",
        Sees.UNSTARTED: "does not run yet",
    }[what]
    how = {How.DIRECTORY: "as a directory", How.SUBPATH: "by a subPath", How.VARIABLE: "in an environment variable"}[
        use.how
    ]
    return f"{use.pod}/{use.container} ({how}) {told}"


def _time(text: str | None) -> float | None:
    try:
        return parse_rfc3339(text) if text else None
    except ValueError:
        return None
