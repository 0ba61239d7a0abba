"""A fake edge for the whole reconciler: an API server, a token endpoint and two clocks in memory, and a ledger.

Only what decides is real here: store, queue, timers, limiter, decisions and acts. The API server knows preconditions,
managed fields and resource versions as the real one does; tests/api holds the operator against that one.
"""

import asyncio
import base64
import copy
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast

from tuinly_operator.base.chance import Chance
from tuinly_operator.base.clock import Moment, rfc3339
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.base.sensitive import Sensitive
from tuinly_operator.domain.client_secret import REFUSED_TYPES
from tuinly_operator.domain.credential import Credential, Revision
from tuinly_operator.domain.errors import Reason, TokenRequestFailed
from tuinly_operator.domain.facts import (
    Policy,
)
from tuinly_operator.domain.notices import Notice
from tuinly_operator.domain.push import Delivery, Push
from tuinly_operator.domain.target import MANAGER, SecretMeta
from tuinly_operator.domain.token_response import TokenResponse
from tuinly_operator.edges.events import EventSender
from tuinly_operator.edges.kube import ApiFailure, Kube, NotLeading
from tuinly_operator.edges.metrics import Metrics
from tuinly_operator.edges.oauth import TokenEndpoint
from tuinly_operator.engine.limiter import PROBE_SECONDS, Limiter
from tuinly_operator.engine.pusher import Pusher
from tuinly_operator.engine.store import Store
from tuinly_operator.engine.timers import Timers
from tuinly_operator.engine.workqueue import Order, Urgency, WorkQueue
from tuinly_operator.reconciler.reconcile import Reconciler

Json = dict[str, Any]

TOKEN_URL = "https://oauth.example.com/token"
OTHER_URL = "https://oauth.example.org/token"
FORBIDDEN_URL = "https://evil.example.net/token"
POLICY = Policy(
    token_url=TOKEN_URL,
    graphql_url="https://graphql.example.com/graphql",
    allowed_token_urls=frozenset({TOKEN_URL, OTHER_URL}),
    allowed_graphql_urls=frozenset({"https://graphql.example.com/graphql"}),
    min_interval=5.0,
    push=True,
)
CREDENTIAL = NamespacedName("shop", "storefront")
CLIENT_SECRET = NamespacedName("shop", "storefront-client")


BOOTED = 1_799_999_000.0  # seconds since the epoch


class World:
    """Wall and boot clock, in seconds. Time passes only when it is told to."""

    def __init__(self, chance: Chance | None = None) -> None:
        self.chance = chance or Chance(1)
        self.boot = 1_000.0
        self.wall = BOOTED + self.boot

    def set_right(self) -> None:
        """Set the wall clock to the true time."""
        self.wall = BOOTED + self.boot

    def now(self) -> Moment:
        return Moment(self.wall, self.boot)

    def pass_time(self, seconds: float) -> None:
        self.wall += seconds
        self.boot += seconds


@dataclass
class Write:
    """One write to the API server: what was there before and after, and what the world was like at that moment.

    `spec` is that of the credential it was made for, None where that one is gone; `target` is what it has as target.
    """

    kind: str
    key: NamespacedName
    before: Json | None
    after: Json | None
    at: Moment
    spec: Json | None = None
    target: Json | None = None


class FakeApi:
    """The API server, as far as the operator uses it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.failed_at = float("-inf")  # boot seconds
        self.secrets: dict[NamespacedName, Json] = {}
        self.credentials: dict[NamespacedName, Json] = {}
        self.writes: list[Write] = []
        self.deaf = False  # the answer to the next write of a Secret is lost
        self.failures: list[ApiFailure] = []  # the next writes fail with these
        self.changed: Callable[[NamespacedName], None] = lambda _: None
        self.refuses: Callable[[str, Json], ApiFailure | None] = lambda _operation, _manifest: None  # admission, quota
        self.requests = 0
        self.finds = 0  # live reads of a credential
        self.reachable = True
        self.lead = float("inf")  # seconds for which this replica is sure of its lead
        self._version = 100
        self._uids = 0

    # --- What anybody does ---

    def put_secret(self, key: NamespacedName, data: Mapping[str, str], kind: str = "Opaque") -> None:
        present = self.secrets.get(key)
        fields: Json = {"f:data": {f"f:{name}": {} for name in data}}
        raw = self._object(key, present)
        raw |= {"type": kind, "data": {name: base64.b64encode(text.encode()).decode() for name, text in data.items()}}
        raw["metadata"]["managedFields"] = [{"manager": "kubectl", "operation": "Update", "fieldsV1": fields}]
        self._store_secret(key, raw)

    def edit_secret(self, key: NamespacedName, name: str, value: str | None) -> None:
        """Edit or remove one key by hand: it changes hands, as with kubectl edit. What is immutable takes no edit."""
        raw = copy.deepcopy(self.secrets[key])
        if raw.get("immutable"):
            return
        for entry in raw["metadata"]["managedFields"]:
            part_of(entry["fieldsV1"], "data").pop(f"f:{name}", None)
        if value is None:
            raw["data"].pop(name, None)
        else:
            raw["data"][name] = base64.b64encode(value.encode()).decode()
            fields: Json = {"f:data": {f"f:{name}": {}}}
            raw["metadata"]["managedFields"].append({"manager": "kubectl", "operation": "Update", "fieldsV1": fields})
        self._store_secret(key, raw)

    def label_secret(self, key: NamespacedName) -> None:
        """Change a Secret without changing what it holds."""
        self._store_secret(key, copy.deepcopy(self.secrets[key]))

    def remove_secret(self, key: NamespacedName) -> None:
        """Delete it; where a finalizer holds it, it is only on its way out."""
        raw = self.secrets.get(key)
        if raw is None:
            return
        if not raw["metadata"].get("finalizers"):
            del self.secrets[key]
            self._next_version()
            self.changed(key)
        elif "deletionTimestamp" not in raw["metadata"]:
            raw["metadata"]["deletionTimestamp"] = "2026-11-24T07:00:00Z"
            self._store_secret(key, raw)

    def hold_secret(self, key: NamespacedName, *finalizers: str) -> None:
        """Set its finalizers: none lets one that is on its way out go."""
        raw = copy.deepcopy(self.secrets[key])
        raw["metadata"]["finalizers"] = list(finalizers)
        if finalizers or "deletionTimestamp" not in raw["metadata"]:
            self._store_secret(key, raw)
            return
        del self.secrets[key]
        self.changed(key)

    def freeze_secret(self, key: NamespacedName) -> None:
        """Make it immutable, as with kubectl patch."""
        raw = copy.deepcopy(self.secrets[key])
        raw["immutable"] = True
        entry = {"manager": "kubectl-patch", "operation": "Update", "fieldsV1": {"f:immutable": {}}}
        raw["metadata"]["managedFields"].append(entry)
        self._store_secret(key, raw)

    def copy_secret(self, key: NamespacedName, name: str, **changes: Any) -> NamespacedName:  # noqa: ANN401 -- JSON
        """Make a Secret by what another one looks like. Whoever creates it owns all of its fields."""
        other = NamespacedName(key.namespace, name)
        old, raw = self.secrets[key], self._object(other, None)
        meta = old["metadata"]
        kept = {part: copy.deepcopy(meta[part]) for part in ("labels", "annotations", "ownerReferences")}
        raw["metadata"] |= kept | {
            "managedFields": [{"manager": "kubectl-create", "operation": "Update", "fieldsV1": self._fields(old)}]
        }
        self._store_secret(other, raw | {"type": old["type"], "data": dict(old["data"])} | changes)
        return other

    def back_up(self) -> Json:
        """What etcd holds now."""
        return copy.deepcopy({"secrets": self.secrets, "credentials": self.credentials, "_version": self._version})

    def restore(self, backup: Json) -> None:
        """Go back to what etcd held: resource versions, too, so that no watch tells of it."""
        vars(self).update(copy.deepcopy(backup))

    def collect_garbage(self) -> None:
        """Delete what is owned by a credential that is gone."""
        alive = {raw["metadata"]["uid"] for raw in self.credentials.values()}
        for key, raw in list(self.secrets.items()):
            owners = raw["metadata"].get("ownerReferences") or []
            if owners and all(owner["uid"] not in alive for owner in owners):
                self.remove_secret(key)

    def put_credential(self, key: NamespacedName, spec: Json, annotations: Json | None = None) -> None:
        present = self.credentials.get(key)
        raw = self._object(key, present)
        generation = present["metadata"]["generation"] if present else 0
        raw["metadata"]["generation"] = generation + (present is None or present["spec"] != spec)
        raw["metadata"]["annotations"] = annotations or {}
        raw |= {"spec": spec, "status": present.get("status", {}) if present else {}}
        self.credentials[key] = raw

    def delete_and_orphan(self, key: NamespacedName, target: NamespacedName) -> None:
        """Delete a credential with `--cascade=orphan`: it is held until its target has no owner, and nobody is told."""
        self.credentials[key]["metadata"] |= {"deletionTimestamp": "2026-11-24T07:00:00Z", "finalizers": ["orphan"]}
        raw = copy.deepcopy(self.secrets[target])
        del raw["metadata"]["ownerReferences"]
        self._store_secret(target, raw)

    # --- What the operator asks (the methods of Kube) ---

    def fence(self, seconds: float = 0.0) -> None:
        if self.lead <= seconds:
            raise NotLeading

    async def answers(self) -> bool:
        return self.reachable

    def require_reach(self) -> None:
        if not self.reachable:
            raise ApiFailure(None, "OutOfReach")

    async def read_secret(self, key: NamespacedName) -> Mapping[str, Any]:
        self._reach()
        if key not in self.secrets:
            raise ApiFailure(404, "NotFound")
        return copy.deepcopy(self.secrets[key])

    async def read_secret_meta(self, key: NamespacedName) -> SecretMeta | None:
        self._reach()
        return SecretMeta.from_object(self.secrets[key]) if key in self.secrets else None

    async def apply_secret(self, key: NamespacedName, manifest: Mapping[str, Any]) -> SecretMeta:
        self._fail()
        present, wanted = self.secrets.get(key), manifest["metadata"]
        if present is None and (wanted.get("uid") or wanted["resourceVersion"] != "1"):
            raise ApiFailure(409, "Conflict")
        if present is not None and wanted.get("uid") not in (None, present["metadata"]["uid"]):
            raise ApiFailure(422, "Invalid")
        if present is not None and wanted["resourceVersion"] != present["metadata"]["resourceVersion"]:
            raise ApiFailure(409, "Conflict")
        before, raw = copy.deepcopy(present), self._applied(key, manifest, present)
        self._admit("UPDATE" if present else "CREATE", raw)
        if present is not None and not self._may_become(present, raw):
            raise ApiFailure(422, "Invalid")
        self._store_secret(key, raw)
        self._note_target(key, before, copy.deepcopy(raw), raw)
        if self.deaf:
            self.deaf, self.failed_at = False, self._world.boot
            raise ApiFailure(None, "ServerDisconnectedError")
        return SecretMeta.from_object(self.secrets[key])

    async def delete_secret(self, key: NamespacedName, meta: SecretMeta) -> SecretMeta | None:
        self._fail()
        present = self.secrets.get(key)
        if present is None:
            raise ApiFailure(404, "NotFound")
        if (present["metadata"]["uid"], present["metadata"]["resourceVersion"]) != (meta.uid, meta.version):
            raise ApiFailure(409, "Conflict")
        before = copy.deepcopy(present)
        self.remove_secret(key)
        self._note_target(key, before, None, present)
        return SecretMeta.from_object(self.secrets[key]) if key in self.secrets else None

    async def write_status(self, key: NamespacedName, uid: str, status: Mapping[str, Any]) -> tuple[str, Revision]:
        self._fail()
        raw = self.credentials.get(key)
        if raw is None or raw["metadata"]["uid"] != uid:
            raise ApiFailure(404, "NotFound")
        before = copy.deepcopy(raw)
        sent = json.loads(json.dumps(status))  # plain JSON, as on the wire
        raw["status"] = {name: value for name, value in sent.items() if value is not None}
        raw["metadata"]["resourceVersion"] = self._next_version()
        self.writes.append(Write("status", key, before, copy.deepcopy(raw), self._world.now()))
        return str(raw["metadata"]["resourceVersion"]), Revision.of(raw["metadata"])

    async def find_credential(self, key: NamespacedName) -> tuple[Mapping[str, Any] | None, str]:
        self._reach()
        self.finds += 1
        return self.find(key)

    def find(self, key: NamespacedName) -> tuple[Json | None, str]:
        """A credential as it is now, and as of which version."""
        return copy.deepcopy(self.credentials.get(key)), str(self._version)

    # --- Inside ---

    def _note_target(self, key: NamespacedName, before: Json | None, after: Json | None, written: Json) -> None:
        name = written["metadata"]["labels"]["tuinly.com/credential"]
        spec = copy.deepcopy(self.credentials.get(NamespacedName(key.namespace, name), {}).get("spec"))
        target = NamespacedName(key.namespace, (spec or {}).get("target", {}).get("name") or f"{name}-token")
        now = self._world.now()
        self.writes.append(
            Write("target", key, before, after, now, spec, copy.deepcopy(self.secrets.get(target))),
        )

    def _object(self, key: NamespacedName, present: Json | None) -> Json:
        self._uids += present is None
        uid = present["metadata"]["uid"] if present else f"00000000-0000-4000-8000-{self._uids:012}"
        made = present["metadata"]["creationTimestamp"] if present else rfc3339(self._world.wall)
        meta = {"namespace": key.namespace, "name": key.name, "uid": uid, "resourceVersion": self._next_version()}
        return {"metadata": {**meta, "creationTimestamp": made}}

    def _next_version(self) -> str:
        self._version += 1
        return str(self._version)

    def _store_secret(self, key: NamespacedName, raw: Json) -> None:
        raw["metadata"]["resourceVersion"] = self._next_version()
        self.secrets[key] = raw
        self.changed(key)

    def _reach(self) -> None:
        self.requests += 1
        if not self.reachable:
            self.failed_at = self._world.boot
            raise ApiFailure(None, "ConnectionError")

    def _fail(self) -> None:
        self._reach()
        if self.failures:
            self.failed_at = self._world.boot
            raise self.failures.pop()

    def _admit(self, operation: str, raw: Json) -> None:
        if (refusal := self.refuses(operation, raw)) is not None:
            raise refusal
        if sum(bool(owner.get("controller")) for owner in raw["metadata"].get("ownerReferences") or ()) > 1:
            raise ApiFailure(422, "Invalid")

    @staticmethod
    def _may_become(present: Json, raw: Json) -> bool:
        """Whether an update is valid: a type never changes, nor the data of what is immutable."""
        frozen = present.get("immutable") and (raw["data"] != present["data"] or not raw.get("immutable"))
        return present["type"] == raw["type"] and not frozen

    def _applied(self, key: NamespacedName, manifest: Mapping[str, Any], present: Json | None) -> Json:
        """What a forced server-side apply as our manager makes of a Secret."""
        mine, ours = self._fields(manifest), self._ours(present)
        old = present or {"metadata": {}}
        meta, wanted = old["metadata"], manifest["metadata"]
        raw = {**copy.deepcopy(old), **self._object(key, present), "type": manifest["type"]}

        def merged(part: str, was: Json | None, given: Json | None) -> Json:
            gone = set(part_of(ours, part)) - set(part_of(mine, part))
            return {name: v for name, v in {**(was or {}), **(given or {})}.items() if f"f:{name}" not in gone}

        raw["data"] = merged("data", old.get("data"), manifest["data"])
        theirs = [owner for owner in meta.get("ownerReferences") or () if not self._has_owner(ours, owner)]
        owners = wanted.get("ownerReferences") or []
        uids = {owner["uid"] for owner in owners}
        raw["metadata"] = {
            **{name: copy.deepcopy(meta[name]) for name in ("finalizers", "deletionTimestamp") if name in meta},
            **raw["metadata"],
            "labels": merged("labels", meta.get("labels"), wanted["labels"]),
            "annotations": merged("annotations", meta.get("annotations"), wanted["annotations"]),
            "ownerReferences": [*(owner for owner in theirs if owner["uid"] not in uids), *owners],
            "managedFields": [
                *self._without(present, manifest),
                {
                    "manager": MANAGER,
                    "operation": "Apply",
                    "fieldsV1": mine,
                    "time": rfc3339(BOOTED + self._world.boot),
                },
            ],
        }
        return raw

    @staticmethod
    def _fields(raw: Mapping[str, Any]) -> Json:
        """All the fields of a Secret, as managed fields name them."""
        meta = raw["metadata"]
        parts: Json = {f"f:{part}": {f"f:{n}": {} for n in meta.get(part) or ()} for part in ("labels", "annotations")}
        parts["f:ownerReferences"] = {f'k:{{"uid":"{o["uid"]}"}}': {} for o in meta.get("ownerReferences") or ()}
        return {"f:data": {f"f:{name}": {} for name in raw["data"]}, "f:metadata": parts, "f:type": {}}

    @staticmethod
    def _has_owner(fields: Json, owner: Json) -> bool:
        return f'k:{{"uid":"{owner["uid"]}"}}' in fields.get("f:metadata", {}).get("f:ownerReferences", {})

    @staticmethod
    def _entries(raw: Json | None) -> list[Json]:
        return raw["metadata"].get("managedFields") or [] if raw else []

    def _ours(self, raw: Json | None) -> Json:
        return next((e["fieldsV1"] for e in self._entries(raw) if e["manager"] == MANAGER), {})

    def _without(self, present: Json | None, manifest: Mapping[str, Any]) -> list[Json]:
        """The other managers' entries, less what a forced apply takes from them: whatever it gives another value."""
        entries, was = [], present or {"metadata": {}}
        for entry in copy.deepcopy(self._entries(present)):
            if entry["manager"] == MANAGER:
                continue
            for part in ("data", "labels", "annotations"):
                old, new = ((raw if part == "data" else raw["metadata"]).get(part) or {} for raw in (was, manifest))
                for name in [name for name in new if old.get(name) != new[name]]:
                    part_of(entry["fieldsV1"], part).pop(f"f:{name}", None)
            entries.append(entry)
        return entries


def part_of(fields: Json, part: str) -> Json:
    """The names under data, labels or annotations of managed fields."""
    found: Json = (fields if part == "data" else fields.get("f:metadata", {})).get(f"f:{part}", {})
    return found


@dataclass
class Issued:
    """A token in the ledger. Times are by the boot clock, which never jumps, but for `wall`, that of its issue."""

    value: str
    url: str
    client: str
    secret: str
    asked: frozenset[str]
    scopes: frozenset[str]
    issued: float
    expires: float
    wall: float


ACCEPTED: Final = None
REJECTED: Final = TokenRequestFailed(Reason.VERIFICATION_FAILED, "does not work", status=401)
INCONCLUSIVE: Final = TokenRequestFailed(Reason.VERIFICATION_INCONCLUSIVE, "is down", status=500, transport=True)
NOT_FOUND: Final = TokenRequestFailed(Reason.VERIFICATION_INCONCLUSIVE, "is not there", status=404)
THROTTLED: Final = TokenRequestFailed(Reason.VERIFICATION_INCONCLUSIVE, "slow down", status=429, retry_after=300.0)


@dataclass
class FakeEndpoint:
    """The token endpoint and its ledger. `mood` is how it answers, `graphql` what a verification raises."""

    world: World
    clients: dict[str, str] = field(default_factory=dict)
    mood: str = "good"
    graphql: TokenRequestFailed | None = ACCEPTED
    lifetime: int = 3600
    gives_refresh_tokens: bool = True
    slack: int = 0  # seconds by which the same token again seems to end later
    ledger: list[Issued] = field(default_factory=list)
    requests: list[tuple[str, float]] = field(default_factory=list)
    verifications: list[float] = field(default_factory=list)
    rejected: set[str] = field(default_factory=set)  # tokens that GraphQL did not accept when it was last asked
    meanwhile: Callable[[], None] | None = None  # happens while the next request is on its way
    takes: float = 0.0  # seconds of the loop's time, for each request for a token
    clock_ahead: float | None = None  # seconds by which its clock is ahead, None where its answers tell no time
    urls: list[str] = field(default_factory=list)  # where each request for a token or verification was sent
    _refresh_tokens: dict[str, Issued] = field(default_factory=dict)

    async def exchange(
        self, url: str, client_id: str, client_secret: Sensitive, scopes: frozenset[str]
    ) -> TokenResponse:
        await self._receive("exchange", url)
        if self.clients.get(client_id) != client_secret.reveal():
            raise TokenRequestFailed(Reason.INVALID_CLIENT, "refused", status=401)
        return self._issue(url, client_id, client_secret.reveal(), frozenset(scopes), frozenset(scopes))

    async def refresh(self, url: str, refresh_token: Sensitive) -> TokenResponse:
        await self._receive("refresh", url)
        if self.mood == "refuses refreshes" or refresh_token.reveal() not in self._refresh_tokens:
            raise TokenRequestFailed(Reason.REQUEST_REJECTED, "refused", status=400)
        last = self._refresh_tokens[refresh_token.reveal()]
        return self._issue(url, last.client, last.secret, last.asked, last.scopes)

    async def verify(self, url: str, token: Sensitive) -> None:
        self.urls.append(url)
        self.verifications.append(self.world.boot)
        if self.graphql is None:
            self.rejected.discard(token.reveal())
            return
        if self.graphql.reason is Reason.VERIFICATION_FAILED:
            self.rejected.add(token.reveal())
        raise replace(self.graphql)

    def find(self, value: str) -> Issued | None:
        return next((token for token in reversed(self.ledger) if token.value == value), None)

    async def _receive(self, grant: str, url: str) -> None:
        self.urls.append(url)
        self.requests.append((grant, self.world.boot))
        if self.takes:
            await asyncio.sleep(self.takes)
        happens, self.meanwhile = self.meanwhile, None
        if happens is not None:
            happens()
        if self.mood == "down":
            raise TokenRequestFailed(Reason.ENDPOINT_UNAVAILABLE, "down", status=503, transport=True)
        if self.mood == "throttles":
            raise TokenRequestFailed(Reason.ENDPOINT_THROTTLED, "slow down", status=429, retry_after=20.0)
        if self.mood == "garbage":
            raise TokenRequestFailed(Reason.INVALID_RESPONSE, "garbage", status=200)

    def _issue(
        self, url: str, client: str, secret: str, asked: frozenset[str], scopes: frozenset[str]
    ) -> TokenResponse:
        granted = frozenset(sorted(scopes)[:1]) if self.mood == "narrows" else scopes
        last, boot = self.ledger[-1] if self.ledger else None, self.world.boot
        if self.mood == "renews" and last is not None:
            last.expires, last.wall = boot + self.lifetime, self.world.wall
            last.url, last.client, last.secret, last.asked = url, client, secret, asked  # it says so
            return TokenResponse(Sensitive(last.value), None, self.lifetime, last.scopes, None)
        if self.mood == "repeats" and last is not None and last.expires > boot + 1:
            last.url, last.client, last.secret, last.asked = url, client, secret, asked  # it says so
            return TokenResponse(Sensitive(last.value), None, int(last.expires - boot) + self.slack, last.scopes, None)
        number, expires = len(self.ledger) + 1, boot + self.lifetime
        value = f"canary-access-{number}"
        token = Issued(value, url, client, secret, asked, granted, boot, expires, self.world.wall)
        self.ledger.append(token)
        refresh = None
        if self.gives_refresh_tokens:
            refresh = f"canary-refresh-{number}"
            self._refresh_tokens[refresh] = token
        said = granted if self.mood == "narrows" else None
        told = None if self.clock_ahead is None else self.world.wall + self.clock_ahead
        return TokenResponse(Sensitive(value), Sensitive(refresh) if refresh else None, self.lifetime, said, told)


class FakeEvents:
    """Keeps the Events that were sent."""

    def __init__(self) -> None:
        self.sent: list[Notice] = []

    def tell(self, _credential: Credential, notice: Notice) -> None:
        self.sent.append(notice)


class FakePusher:
    """Keeps what Pods were to be told of, and for whom no longer."""

    def __init__(self) -> None:
        self.ordered: list[Push] = []
        self.dropped: list[NamespacedName] = []

    def order(self, push: Push) -> None:
        self.ordered.append(push)

    def drop(self, key: NamespacedName) -> None:
        self.dropped.append(key)

    cut_short = drop


class Process:
    """One run of the operator, from start to end: all that it remembers goes with it."""

    def __init__(self, world: World, api: FakeApi, endpoint: FakeEndpoint, events: FakeEvents) -> None:
        self._world, self._api = world, api
        self.queue = WorkQueue(lambda _: Urgency(Order.LIVING), lambda: world.boot, places=20)
        self.limiter = Limiter(20, self.queue.add)
        self.timers = Timers(world, self.queue.add, burst=20)
        self.metrics = Metrics(world)
        self.pusher = FakePusher()
        self.doubts: list[NamespacedName] = []
        self.late = False  # whether its watch of credentials brings nothing
        self._shown: dict[NamespacedName, str] = {}  # uids, by the watch of Secrets
        self.store = Store(
            changed=self.queue.add,
            gone=self._forget,
            doubtful=self.doubts.append,
            client_secret_changed=lambda key: self.reconciler.client_secret_changed(key),  # noqa: PLW0108 -- made below
        )
        self.reconciler = Reconciler(
            store=self.store,
            kube=cast("Kube", api),
            endpoint=cast("TokenEndpoint", endpoint),
            limiter=self.limiter,
            timers=self.timers,
            events=cast("EventSender", events),
            metrics=self.metrics,
            pusher=cast("Pusher", self.pusher),
            policy=POLICY,
            clock=world,
            chance=world.chance,
            requeue=self.queue.add,
            caught_up=self.queue.caught_up,
        )
        api.changed = self.secret_changed
        for key in api.secrets:
            self.secret_changed(key)
        self._listed = False
        self.credentials_changed()
        self._listed = True

    def secret_changed(self, key: NamespacedName) -> None:
        """The watch of Secrets, which the server keeps free of some types."""
        raw = self._api.secrets.get(key)
        if raw is None and key in self._shown:
            _, version = self._api.find(key)
            self.store.secret_gone(key, self._shown.pop(key), version)
        elif raw is not None and raw["type"] not in REFUSED_TYPES:
            self._shown[key] = raw["metadata"]["uid"]
            self.store.secret_seen(key, SecretMeta.from_object(raw))

    def lose_sight_of(self, key: NamespacedName) -> None:
        """Have the store drop a Secret that is there, as if the watch told of its end."""
        self.store.secret_gone(key, self._api.secrets[key]["metadata"]["uid"], "")

    def credentials_changed(self) -> None:
        """The watch of credentials, and the live reads that settle doubts of it."""
        if not self.late:
            for raw in self._api.credentials.values():
                self.store.credential_seen(Credential.from_object(copy.deepcopy(raw)), created=self._listed)
            self.doubts += [key for record in self.store if (key := record.credential.key) not in self._api.credentials]
        while self.doubts:
            key = self.doubts.pop()
            found, version = self._api.find(key)
            credential = Credential.from_object(found) if found else None
            self.store.credential_read(key, credential, version, self.store.known(key))

    async def work(self) -> None:
        """Do all that is to be done at this moment."""
        self.timers.fire(self._world.now())
        self.limiter.tick(self._world.now())
        for _ in range(200):
            if not len(self.queue) or not self._api.reachable:
                return
            key = await self.queue.get()
            await self.reconciler.reconcile(key)
            self.queue.done(key)
            self.credentials_changed()
        raise AssertionError("the queue never runs dry: a hot loop")

    async def reconcile(self, key: NamespacedName) -> None:
        """Reconcile one, whatever keeps the queue closed."""
        await self.reconciler.reconcile(key)

    def pushed(self, delivery: Delivery) -> None:
        """This came of the last push that was ordered."""
        self.reconciler.pushed(self.pusher.ordered[-1], delivery)

    def idle(self) -> float:
        """Seconds until there is something to do by itself."""
        soonest = self.timers.fire(self._world.now())
        if len(self.queue) and self._api.reachable:
            return 0.0
        seen = self.limiter.seen(self._world.now()).values()
        return min(soonest, PROBE_SECONDS) if any(each.down or each.waiting for each in seen) else soonest

    def is_down(self) -> bool:
        """Whether any endpoint is only probed."""
        return any(seen.down for seen in self.limiter.seen(self._world.now()).values())

    def _forget(self, key: NamespacedName) -> None:
        self.timers.cancel(key)
        self.limiter.forget(key, self._world.now())
        self.reconciler.give_up(key)
        self.pusher.drop(key)


class LogKeeper(logging.Handler):
    """Keeps what the operator logs, as it would be printed."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.getMessage()} {getattr(record, 'fields', '')} {record.exc_info}")
