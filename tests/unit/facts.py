"""Builds what the pure core works on, out of the JSON that the API server would send.

A `Scene` is the world of one credential. It starts healthy: the token in its target has just been issued. Changes are
small functions; tests name what is different from that, and read like the rule that they are for.
"""

import json
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any, Final

from tests.support.merge import merged
from tuinly_operator.base.clock import Deadline, Moment
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.base.sensitive import Sensitive
from tuinly_operator.domain.acts import (
    Decision,
    Rest,
)
from tuinly_operator.domain.credential import ClientSecretRef, Credential, GrantType, to_json
from tuinly_operator.domain.decision import (
    decide,
    unblocked,
    wanted_target,
    write_inputs,
)
from tuinly_operator.domain.errors import Failure, Reason
from tuinly_operator.domain.facts import (
    Block,
    Facts,
    Permit,
    Policy,
    gather,
)
from tuinly_operator.domain.memory import (
    Attempted,
    Client,
    ClientSecretRead,
    IssuedToken,
    Memory,
    Pending,
    RefreshToken,
    Setback,
    Written,
)
from tuinly_operator.domain.schedule import refresh_offset
from tuinly_operator.domain.target import SecretMeta, TokenState, exchange_inputs, target_manifest
from tuinly_operator.domain.template import layout_of

Json = dict[str, Any]

ISSUED: Final = Moment(wall=1_795_503_600.0, boot=50_000.0)  # 2026-11-24T07:00:00Z
UID: Final = "6b1f0a52-0000-4000-8000-000000000001"
OTHER_UID: Final = "6b1f0a52-0000-4000-8000-000000000002"
TARGET_UID: Final = "6b1f0a52-0000-4000-8000-00000000000a"
MADE_AT: Final = "2026-11-24T06:00:00Z"
TOKEN_URL: Final = "https://oauth.example.com/token"
OTHER_URL: Final = "https://oauth.example.org/token"
POLICY: Final = Policy(
    token_url=TOKEN_URL,
    graphql_url="https://graphql.example.com/graphql",
    allowed_token_urls=frozenset({TOKEN_URL, OTHER_URL}),
    allowed_graphql_urls=frozenset({"https://graphql.example.com/graphql"}),
    min_interval=5.0,
)
EARLIER: Final = Moment(ISSUED.wall - 60, ISSUED.boot - 60)
LIFETIME: Final = 3600
REF: Final = ClientSecretRef("storefront-client")
CLIENT: Final = Client("shop", Sensitive("client-secret"))
OTHER_CLIENT: Final = Client("shop", Sensitive("rotated-client-secret"))


# --- Objects of the API -----------------------------------------------------------------------------------------------


def credential_object(patch: Json | None = None) -> Json:
    """The least TuinlyCredential, changed by a merge patch."""
    least = {
        "apiVersion": "tuinly.com/v1alpha1",
        "kind": "TuinlyCredential",
        "metadata": {"name": "storefront", "namespace": "shop", "uid": UID, "resourceVersion": "10", "generation": 1},
        "spec": {"clientSecretRef": {"name": "storefront-client"}},
    }
    return merged(least, patch or {})


def credential(patch: Json | None = None) -> Credential:
    """The same as the operator sees it."""
    return Credential.from_object(credential_object(patch))


def token_state(seen: Credential | None = None, *, lifetime: int = LIFETIME, **changes: Any) -> TokenState:  # noqa: ANN401 -- a field's
    """The state of a token that was issued for a credential at `ISSUED`."""
    seen = seen or credential()
    at = int(ISSUED.wall)
    known: Json = {
        "credential_uid": seen.uid,
        "issued_at": at,
        "expires_at": at + lifetime,
        "next_refresh": 0,
        "granted_scopes": " ".join(sorted(seen.spec.scopes)),
        "exchange_inputs": exchange_inputs(seen.spec.token_url or TOKEN_URL, seen.spec),
        "template": layout_of(seen.spec.target.template).digest,
        "client_secret_version": "client-uid/20",
        "handled_refresh": seen.refresh_requested,
    }
    state = TokenState(**(known | changes))
    if "next_refresh" in changes:
        return state
    return TokenState(**(known | changes | {"next_refresh": at + int(refresh_offset(seen.spec.refresh, state))}))


class TargetObject:
    """A target Secret as the API server keeps it: with managedFields, which say whose each field is."""

    def __init__(self, seen: Credential | None = None, state: TokenState | None = None, *, version: str = "30") -> None:
        """As the operator has just applied it."""
        seen = seen or credential()
        form = layout_of(seen.spec.target.template)
        data = dict.fromkeys(form.data, b"")
        self.raw: Json = target_manifest(seen, state or token_state(seen), form, data, None)
        self.meta: Json = self.raw["metadata"]
        self.meta |= {"uid": TARGET_UID, "resourceVersion": version, "creationTimestamp": MADE_AT}
        owned = {part: self.meta[part] for part in ("labels", "annotations", "ownerReferences") if part in self.meta}
        self.ours: Json = {
            "f:data": {f"f:{name}": {} for name in data},
            "f:metadata": {
                f"f:{part}": {
                    f"f:{name}" if isinstance(name, str) else f'k:{{"uid":"{name["uid"]}"}}': {} for name in names
                }
                for part, names in owned.items()
            },
            "f:type": {},
        }
        self.meta["managedFields"] = [self._entry("tuinly-operator", "Apply", self.ours)]

    def seen(self) -> SecretMeta:
        """What the watch of metadata makes of it."""
        return SecretMeta.from_object({"metadata": self.meta})

    def touched(self) -> None:
        """Any write gives a new version."""
        self.meta["resourceVersion"] = str(int(self.meta["resourceVersion"]) + 1)

    def taken(self, part: str, name: str, operation: str = "Update") -> None:
        """Somebody else edits a field or applies it by force: it is theirs then, and ours no longer."""
        self.removed(part, name)
        self.shared(part, name, operation)

    def removed(self, part: str, name: str) -> None:
        """Somebody else removes a field: it is nobody's."""
        self.touched()
        del self._fields(self.ours, part)[f"f:{name}"]

    def shared(self, part: str, name: str, operation: str = "Apply") -> None:
        """Somebody else adds a field, or applies ours with the value that it has."""
        self.touched()
        theirs: Json = {}
        self._fields(theirs, part)[f"f:{name}"] = {}
        self.meta["managedFields"].append(self._entry("kubectl", operation, theirs))

    @staticmethod
    def _fields(entry: Json, part: str) -> Json:
        place = entry if part == "data" else entry.setdefault("f:metadata", {})
        found: Json = place.setdefault(f"f:{part}", {})
        return found

    @staticmethod
    def _entry(manager: str, operation: str, fields: Json) -> Json:
        return {
            "manager": manager,
            "operation": operation,
            "apiVersion": "v1",
            "time": "2026-11-24T07:00:00Z",
            "fieldsType": "FieldsV1",
            "fieldsV1": fields,
        }


def foreign_secret(version: str = "40") -> SecretMeta:
    """A Secret that the operator has nothing to do with."""
    return SecretMeta.from_object({"metadata": {"uid": "foreign-uid", "resourceVersion": version}})


# --- The world of one credential --------------------------------------------------------------------------------------


class Scene:
    """What is observed and remembered of one credential, all of it open to change."""

    def __init__(self, *changes: "Change") -> None:
        """Healthy, but for the changes, which are made one after another."""
        self.object = credential_object()
        self.now = ISSUED
        self.policy = POLICY
        self.client_secret: SecretMeta | None = SecretMeta("client-uid", "20")
        self.target: TargetObject | None = TargetObject()
        self.foreign: SecretMeta | None = None
        self.old_targets: tuple[tuple[NamespacedName, SecretMeta], ...] = ()
        self.absence_proven = False
        self.created = False
        self.served = False
        self.confirmed = True
        self.permit = Permit()
        self.verify_permit = Permit()
        held = IssuedToken(token_state(), ISSUED, Sensitive("token-1"), CLIENT, GrantType.CLIENT_CREDENTIALS)
        self.memory = Memory(
            met=True, written=Written(held), client=ClientSecretRead(REF, "client-uid/20", CLIENT, EARLIER)
        )
        self.wrote()
        for change in changes:
            change(self)

    @property
    def published(self) -> IssuedToken:
        """The token that was last written."""
        assert self.memory.published is not None
        return self.memory.published

    def wrote(self) -> None:
        """Remember how the target was written last: as the spec asks now."""
        facts = self.facts()
        self.written(wanted=wanted_target(facts))

    def remember(self, **changes: Any) -> None:  # noqa: ANN401 -- fields of the memory
        """Change what is remembered."""
        self.memory = replace(self.memory, **changes)

    def written(self, **changes: Any) -> None:  # noqa: ANN401 -- fields of what was written
        """Change what is remembered of the last write."""
        assert self.memory.written is not None
        self.remember(written=replace(self.memory.written, **changes))

    def waiting(self, **changes: Any) -> None:  # noqa: ANN401 -- fields of a pending token
        """Change what is remembered of the token that waits, if there is one."""
        if self.memory.pending is not None:
            self.remember(pending=replace(self.memory.pending, **changes))

    def hold(self, **changes: Any) -> None:  # noqa: ANN401 -- fields of a token
        """Change what is remembered of the newest token, if there is one."""
        if self.memory.pending is not None:
            self.waiting(held=replace(self.memory.pending.held, **changes))
        elif self.memory.written is not None:
            self.written(held=replace(self.memory.written.held, **changes))

    def facts(self) -> Facts:
        """Gather, as the reconciler does."""
        facts = gather(
            Credential.from_object(self.object),
            self.policy,
            self.memory,
            self.now,
            client_secret=self.client_secret,
            target=self.foreign or (self.target.seen() if self.target else None),
            looked=self.absence_proven,
            created=self.created,
            served=self.served,
            confirmed=self.confirmed,
            old_targets=self.old_targets,
        )
        self.memory = facts.memory
        return replace(facts, permit=self._now(self.permit), verify_permit=self._now(self.verify_permit))

    def _now(self, permit: Permit) -> Permit:
        """What the limiter says by now."""
        block = permit.block
        return replace(permit, block=None) if block and block.until and block.until.due(self.now) else permit

    def decide(self) -> Decision:
        """The one next act."""
        return decide(self.facts())

    def at_rest(self) -> Rest:
        """What is reported by: the decision, or while its act is under way that nothing hinders it."""
        decision = self.decide()
        return decision if isinstance(decision, Rest) else unblocked(self.facts())

    def restart(self) -> None:
        """Another process meets what there is: only what the target's annotations say is known."""
        self.memory = Memory()
        self.facts()
        self.remember(met=True)
        if self.memory.written is not None:
            self.wrote()


Change = Callable[[Scene], None]


def named(name: str, change: Change) -> Change:
    """A change that tells what it is when a test fails."""
    change.__name__ = name
    return change


def passed(seconds: float, *, wall: float | None = None) -> Change:
    """So much time after the issue; `wall` is what the wall clock says has passed, if it was set."""

    def change(scene: Scene) -> None:
        scene.now = Moment(ISSUED.wall + (seconds if wall is None else wall), ISSUED.boot + seconds)

    return named(f"passed({seconds}, wall={wall})", change)


DUE: Final = passed(2500)  # past the lead of 33 %
ENDING: Final = passed(LIFETIME - 60)
EXPIRED: Final = passed(LIFETIME)


def spec(patch: Json) -> Change:
    """The team edits the spec."""

    def change(scene: Scene) -> None:
        scene.object = merged(scene.object, {"spec": patch})
        scene.object["metadata"]["generation"] += 1

    return named(f"spec({patch})", change)


SUSPENDED: Final = spec({"suspend": True})
OTHER_SCOPES: Final = spec({"scopes": ["orders:read"]})
OTHER_TOKEN_URL: Final = spec({"tokenURL": OTHER_URL})
REFUSED_URL: Final = spec({"tokenURL": "https://elsewhere.example.com/token"})
VERIFIES: Final = spec({"verification": {"mode": "Enabled"}})
TEMPLATED: Final = spec({"target": {"template": {"data": {"authorization": "Bearer ${access_token}"}}}})


def annotated(value: str | None) -> Change:
    """The team asks for an exchange now, or removes the annotation."""

    def change(scene: Scene) -> None:
        patch = {"metadata": {"annotations": {"tuinly.com/refresh-requested": value}}}
        scene.object = merged(scene.object, patch)

    return named(f"annotated({value!r})", change)


FORCED: Final = annotated("now")


def deleting(scene: Scene) -> None:
    """The credential is being deleted."""
    scene.object = merged(scene.object, {"metadata": {"deletionTimestamp": "2026-11-24T07:00:00Z"}})


def brand_new(scene: Scene) -> None:
    """The credential has just been created: no token, no target, nothing read."""
    scene.memory, scene.target = Memory(met=True), None


def created(scene: Scene) -> None:
    """The same, and this leader saw it created."""
    scene.memory, scene.target, scene.created = Memory(), None, True


def lives(lifetime: int) -> Change:
    """The token in the target has another lifetime, in seconds."""
    return token(expires_at=int(ISSUED.wall) + lifetime)


def token(**changes: Any) -> Change:  # noqa: ANN401 -- fields of the state
    """The token in the target has another state."""

    def change(scene: Scene) -> None:
        seen = scene.facts().credential
        state = token_state(seen, **changes)
        scene.target = TargetObject(seen, state)
        scene.written(held=replace(scene.published, state=state))

    return named(f"token({changes})", change)


def restarted(scene: Scene) -> None:
    """The operator was restarted."""
    scene.restart()


# The target.


def target_gone(scene: Scene) -> None:
    """The watch says that there is no target."""
    scene.target = None


def absence_proven(scene: Scene) -> None:
    """Live reads say so, too, and that the credential is there."""
    scene.target, scene.absence_proven, scene.served = None, True, True


def target_foreign(scene: Scene) -> None:
    """Somebody else's Secret has the target's name."""
    scene.foreign = foreign_secret()


def served(scene: Scene) -> None:
    """A live read has shown that the credential is there and ours to serve."""
    scene.served = True


def unconfirmed(scene: Scene) -> None:
    """This replica has just begun to lead, and only the watch has shown the credential so far."""
    scene.confirmed = False


def target_of_another(scene: Scene) -> None:
    """It was written for another credential of that name: an earlier one, or a later one."""
    if scene.target is not None:
        other = credential({"metadata": {"uid": OTHER_UID}})
        scene.target = TargetObject(other, version="32")


def target_overtaken(scene: Scene) -> None:
    """Another operator has written a token of its own for this credential, later than this one."""
    if scene.target is not None:
        seen, version = scene.facts().credential, str(int(scene.target.meta["resourceVersion"]) + 1)
        state = token_state(seen, client_secret_version="another/1", issued_at=int(ISSUED.wall) + 1)
        scene.target = TargetObject(seen, state, version=version)


def target_edited(scene: Scene) -> None:
    """Somebody put something else into the token's key."""
    if scene.target is not None:
        scene.target.taken("data", next(iter(scene.target.ours["f:data"]))[2:])


def label_removed(scene: Scene) -> None:
    """Somebody removed a label of the target."""
    if scene.target is not None:
        scene.target.removed("labels", "app.kubernetes.io/managed-by")


def renamed(scene: Scene) -> None:
    """The team wants the target under another name; the old one is still there."""
    if scene.target is not None:
        scene.old_targets = ((NamespacedName("shop", "storefront-token"), scene.target.seen()),)
    spec({"target": {"name": "chosen"}})(scene)
    scene.target = None


def old_left(scene: Scene) -> None:
    """A target that was written under another name is still there."""
    old = TargetObject(scene.facts().credential)
    scene.old_targets = ((NamespacedName("shop", "old-name"), old.seen()),)


# The client Secret.


def client_known(scene: Scene) -> None:
    """The client Secret has been read in this process."""
    has_read(scene, "client-uid/20", CLIENT)


def has_read(scene: Scene, identity: str, client: Client | Failure) -> None:
    """The client Secret has been read, by the name and keys that the spec names now."""
    scene.remember(client=ClientSecretRead(scene.facts().spec.client_secret_ref, identity, client, scene.now))


def client_unread(scene: Scene) -> None:
    """The client Secret has not been read in this process."""
    scene.remember(client=None)


def client_edited(scene: Scene) -> None:
    """The client Secret has changed; how is not known yet."""
    scene.client_secret = SecretMeta("client-uid", "21")


def client_relabelled(scene: Scene) -> None:
    """It has changed, and been read: the id and secret are the same."""
    client_edited(scene)
    has_read(scene, "client-uid/21", CLIENT)


def client_rotated(scene: Scene) -> None:
    """It has changed, and been read: the secret is another."""
    client_edited(scene)
    has_read(scene, "client-uid/21", OTHER_CLIENT)


def client_invalid(scene: Scene) -> None:
    """It has changed, and been read: it is of no use."""
    client_edited(scene)
    failure = Failure(Reason.CLIENT_SECRET_INVALID, "the Secret storefront-client has an empty key client_id")
    has_read(scene, "client-uid/21", failure)


def client_gone(scene: Scene) -> None:
    """It is not there; that has not been confirmed."""
    scene.client_secret = None


def client_missing(scene: Scene) -> None:
    """It is not there, as a live read confirms."""
    scene.client_secret = None
    failure = Failure(Reason.CLIENT_SECRET_NOT_FOUND, "the Secret storefront-client does not exist")
    has_read(scene, "", failure)


# Attempts.


def refreshable(scene: Scene) -> None:
    """A refresh token came with the last answer."""
    scene.hold(refresh=RefreshToken(Sensitive("refresh-1")))


def attempted(scene: Scene) -> None:
    """An attempt was made a second ago, with what is there now."""
    a_second_ago = Moment(scene.now.wall - 1, scene.now.boot - 1)
    scene.remember(last_attempt=Attempted(a_second_ago, scene.facts().attempt_inputs))


def setback(scene: Scene, reason: Reason, inputs: Hashable, *, attempts: int = 3, retry_in: float = 30) -> Setback:
    """Something that failed a second ago and is tried again later."""
    failure = Failure(reason, f"what {reason} means and what to do")
    return Setback(failure, attempts, scene.now.wall - 1, Deadline.after(retry_in, scene.now), inputs)


def failing(reason: Reason = Reason.ENDPOINT_UNAVAILABLE) -> Change:
    """The last attempt, for what is asked for now, failed."""

    def change(scene: Scene) -> None:
        facts = scene.facts()
        failed = setback(scene, reason, facts.attempt_inputs)
        scene.remember(attempt=replace(failed, asked=facts.credential.refresh_requested))

    return named(f"failing({reason!r})", change)


def write_refused(scene: Scene) -> None:
    """The last write of the target was refused."""
    scene.remember(write=setback(scene, Reason.TARGET_REJECTED, write_inputs(scene.facts())))


def pending(scene: Scene) -> None:
    """A new token, for what is asked for now, has been obtained."""
    facts, read = scene.facts(), scene.memory.client
    at = int(scene.now.wall)
    version = read.identity if read else "client-uid/20"
    state = token_state(facts.credential, issued_at=at, expires_at=at + LIFETIME, client_secret_version=version)
    client = read.client if read and isinstance(read.client, Client) else CLIENT
    held = IssuedToken(state, scene.now, Sensitive("token-2"), client, GrantType.CLIENT_CREDENTIALS)
    scene.remember(pending=Pending(held))


def unverifiable(scene: Scene) -> None:
    """Whether the newest token works could not be told: it waits, or was published untried."""
    told = setback(scene, Reason.VERIFICATION_INCONCLUSIVE, scene.facts().inputs)
    if scene.memory.pending is not None:
        scene.waiting(unverified=told)
    elif scene.memory.written is not None:
        scene.written(untried=True)


def blocked(scene: Scene) -> None:
    """The token endpoint is down, and this credential has waited for its turn as the probe for a while."""
    failure = Failure(Reason.ENDPOINT_UNAVAILABLE, "it is tried every few seconds")
    scene.permit = Permit(Block(failure, parks=True, long=True))


def queued(scene: Scene) -> None:
    """Others go first at the token endpoint, which is nothing to tell of yet."""
    scene.permit = Permit(Block(None, Deadline.after(5, scene.now), parks=True))


def queued_long(scene: Scene) -> None:
    """Others have gone first for a while."""
    scene.permit = Permit(Block(Failure(Reason.ISSUING, "it waits for its turn"), parks=True))


def graphql_down(scene: Scene) -> None:
    """The GraphQL endpoint is down."""
    failure = Failure(Reason.ENDPOINT_UNAVAILABLE, "it is tried every few seconds")
    scene.verify_permit = Permit(Block(failure, parks=True, long=True))


def graphql_queued(scene: Scene) -> None:
    """Others go first at the GraphQL endpoint."""
    scene.verify_permit = Permit(Block(None, Deadline.after(5, scene.now), parks=True))


def at_once(scene: Scene) -> None:
    """It is the probe, or the endpoint has been seen to work since the last failure."""
    scene.permit = scene.verify_permit = Permit(at_once=True)


def throttled(scene: Scene) -> None:
    """The token endpoint has asked for a minute."""
    failure = Failure(Reason.ENDPOINT_THROTTLED, "it has asked to be left alone")
    scene.permit = Permit(Block(failure, Deadline.after(60, scene.now), long=True))


def reported(scene: Scene, status: object) -> None:
    """The status that the credential bears."""
    scene.object = {**scene.object, "status": json.loads(json.dumps(to_json(status)))}
