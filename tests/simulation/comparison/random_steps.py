"""Random sequences of requests about few names, with right and wrong preconditions, as operators and people send them.

Not drawn is what the model does not have: null among the data that are applied, empty labels of a credential.
"""

from collections.abc import Callable, Mapping
from random import Random
from typing import Any, Final

from tests.simulation.comparison.steps import NOBODYS, Step

Json = dict[str, Any]

SECRETS: Final = "/api/v1/namespaces/NS/secrets"
CREDENTIALS: Final = "/apis/tuinly.com/v1alpha1/namespaces/NS/tuinlycredentials"
LEASES: Final = "/apis/coordination.k8s.io/v1/namespaces/NS/leases"
EVENTS: Final = "/apis/events.k8s.io/v1/namespaces/NS/events"

JSON: Final = {"Content-Type": "application/json"}
JSON_PATCH: Final = {"Content-Type": "application/json-patch+json"}
MERGE: Final = {"Content-Type": "application/merge-patch+json"}
APPLY: Final = {"Content-Type": "application/apply-patch+yaml"}
PARTIAL: Final = {"Accept": "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"}
PARTIAL_LIST: Final = {"Accept": "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"}

_NAMES: Final = ("one", "two")
_MANAGERS: Final = ("tuinly-operator", "kubectl")
_VALUES: Final = ("eA==", "eQ==", "")
_OWNERS: Final = tuple(
    {"apiVersion": "example.com/v1", "kind": "Nothing", "name": f"owner-{n}", "uid": f"{n}" * 8 + NOBODYS[8:]}
    for n in (1, 2)
)
_SPECS: Final[tuple[Json, ...]] = (
    {},
    {"scopes": ["orders:read"]},
    {"scopes": ["orders:write", "orders:read"]},
    {"scopes": ["orders:read", "orders:read"]},
    {"suspend": True},
    {"target": {"name": "other-token"}},
    {"target": {"deletionPolicy": "Retain"}},
    {"target": {"deletionPolicy": "Perhaps"}},
    {"target": {"template": {"data": {"header": "Bearer ${access_token}"}, "metadata": {"labels": {"team": "shop"}}}}},
    {"refresh": {"grant": "ClientCredentials"}},
    {"refresh": None},
    {"tokenURL": 1},
    {"unknown": "field"},
    {"target": {"name": "client"}},
    {"clientSecretRef": {"name": "one-token"}},
    {"clientSecretRef": {"name": "client", "clientIDKey": "client_secret", "clientSecretKey": "..data"}},
    {"scopes": ["orders:read stock:read", "commandé"], "tokenURL": "https://user@example.com:a/#now"},
    {"tokenURL": "https://oauth.example.com/%zz"},
    {"refresh": {"before": "20m", "beforePercentage": 4}},
    {"refresh": {"before": "119s"}, "verification": {"graphqlURL": "ftp://example.com"}},
    {"target": {"template": {"data": {}, "metadata": {"labels": {"team": "-", "k8s.io/a": "b"}}}}},
    {"target": {"template": {"data": {"bad key": "$", "env": "${nonsense}"}}}},
)
_CONDITION: Final = {"lastTransitionTime": "2026-11-24T07:00:00Z", "message": "all is well"}
_STATUSES: Final[tuple[Json, ...]] = (
    {"observedGeneration": 1, "secretName": "one-token"},
    {"conditions": [{"type": "Ready", "status": "True", "reason": "Issued", **_CONDITION}], "failedAttempts": 2},
    {"conditions": [{"type": "Ready", "status": "Perhaps", "reason": "Issued", **_CONDITION}]},
    {"conditions": [{"type": name, "status": "True", "reason": "Issued", **_CONDITION} for name in ("A", "B", "A")]},
    {"conditions": [{"type": "Ready"}]},
    {"tokenExpirationTime": None, "lastGrant": "RefreshToken"},
    {"tokenExpirationTime": "2026-11-24T07:00:00Z", "scopes": ["orders:read"]},
    {"tokenExpirationTime": "tomorrow"},
    {"failedAttempts": -1},
    {"unknown": "field"},
)


class Sequence:
    """Draws one step after the other."""

    def __init__(self, random: Random) -> None:
        """Nothing is drawn yet."""
        self.steps: list[Step] = []
        self._random = random
        self._about: dict[str, list[int]] = {}  # the steps about an object, by its path
        self._lists: list[tuple[int, Step]] = []

    def draw(self, count: int) -> list[Step]:
        """Draw a sequence."""
        ways: Mapping[Callable[[], Step], int] = {
            self._apply_secret: 30,
            self._post_secret: 8,
            self._put_secret: 10,
            self._patch_secret: 16,
            self._delete: 12,
            self._get: 6,
            self._list: 10,
            self._next_page: 8,
            self._post_credential: 6,
            self._apply_credential: 6,
            self._patch_credential: 8,
            self._put_credential: 4,
            self._status: 12,
            self._lease: 12,
            self._event: 3,
        }
        while len(self.steps) < count:
            [way] = self._random.choices(list(ways), list(ways.values()))
            step = way()
            name = step.body.get("metadata", {}).get("name") if step.method == "POST" else None
            path = step.path.removesuffix("/status") + (f"/{name}" if name else "")
            self._about.setdefault(path, []).append(len(self.steps))
            if step.method == "GET" and "limit" in step.query:
                self._lists.append((len(self.steps), step))
            self.steps.append(step)
        return self.steps

    # --- Small draws ---

    def _one(self, *choices: Any) -> Any:  # noqa: ANN401 - JSON
        return self._random.choice(choices)

    def _chance(self, percent: int) -> bool:
        return self._random.randrange(100) < percent

    def _some(self, values: Mapping[str, Any]) -> Json:
        return {name: value for name, value in values.items() if self._chance(50)}

    def _map(self, *names: str) -> Json:
        return self._some({name: self._one("x", "y") for name in names})

    def _earlier(self, path: str) -> int | None:
        """An earlier step about an object, mostly the last one."""
        steps = self._about.get(path)
        if not steps:
            return None
        return steps[-1] if self._chance(75) else self._one(*steps)

    def _preconditions(self, path: str, *, version: int = 40, uid: int = 30) -> Json:
        """Perhaps a version, perhaps a uid, mostly right ones."""
        found: Json = {}
        step = self._earlier(path)
        if self._chance(version):
            found["resourceVersion"] = {"$version": step} if step is not None and self._chance(80) else "1"
        if self._chance(uid):
            found["uid"] = {"$uid": step} if step is not None and self._chance(80) else NOBODYS
        return found

    def _shape(self) -> Mapping[str, str]:
        return PARTIAL if self._chance(40) else {}

    def _query(self, *, manager: int = 80, dry: int = 8) -> Json:
        query: Json = {"fieldManager": self._one(*_MANAGERS)} if self._chance(manager) else {}
        return {**query, **({"dryRun": "All"} if self._chance(dry) else {})}

    # --- Secrets ---

    def _secret_parts(self) -> tuple[Json, Json]:
        """Metadata, and the rest of a Secret."""
        meta: Json = {}
        if self._chance(50):
            meta["labels"] = self._one(self._map("team", "app"), self._map("team"), {"team": "-"})
        if self._chance(50):
            meta["annotations"] = self._map("example.com/a", "b")
        if self._chance(30):
            meta["ownerReferences"] = [
                {**owner, "controller": True} if self._chance(50) else owner for owner in _OWNERS if self._chance(60)
            ]
        if self._chance(12):
            meta["finalizers"] = self._one(["example.com/hold"], ["example.com/hold", "example.com/more"], [])
        raw: Json = {"data": {name: self._one(*_VALUES) for name in ("a", "b", "c") if self._chance(50)}}
        if self._chance(10):
            raw["data"] = self._one({"bad key": "eA=="}, {"a": "no base64"}, None)
        if self._chance(10):
            raw["type"] = self._one("Opaque", "kubernetes.io/tls", "kubernetes.io/basic-auth", "example.com/mine")
        if self._chance(7):
            raw["immutable"] = self._chance(70)
        if self._chance(5):
            raw["stringData"] = {"d": "text"}
        return meta, raw

    def _secret(self, name: str, more: Json) -> Json:
        meta, raw = self._secret_parts()
        return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, **meta, **more}, **raw}

    def _apply_secret(self) -> Step:
        name = self._one(*_NAMES)
        path = f"{SECRETS}/{name}"
        query = {**self._query(manager=98), **({"force": "true"} if self._chance(70) else {})}
        body = self._secret(name, self._preconditions(path))
        return Step("PATCH", path, query, {**APPLY, **self._shape()}, body)

    def _post_secret(self) -> Step:
        name = self._one(*_NAMES)
        more = self._preconditions(f"{SECRETS}/{name}", version=10, uid=10)
        return Step("POST", SECRETS, self._query(dry=30), {**JSON, **self._shape()}, self._secret(name, more))

    def _put_secret(self) -> Step:
        name = self._one(*_NAMES)
        path = f"{SECRETS}/{name}"
        return Step("PUT", path, self._query(), {**JSON, **self._shape()}, self._changed(path, name, self._secret))

    def _changed(self, path: str, name: str, make: Callable[[str, Json], Json]) -> Json:
        """An object anew, or as it was read with some changes."""
        body = make(name, self._preconditions(path))
        step = self._earlier(path)
        if step is None or self._chance(50):
            return body
        if self._chance(30):
            body["metadata"]["managedFields"] = None
        return {"$answer": step, "merge": body}

    def _patch_secret(self) -> Step:
        name = self._one(*_NAMES)
        path = f"{SECRETS}/{name}"
        meta, raw = self._secret_parts()
        for part in (raw.get("data") or {}), meta.get("labels", {}), meta.get("annotations", {}):
            for each in part:
                if self._chance(40):
                    part[each] = None
        if self._chance(4):
            meta["managedFields"] = self._one([], [{}], None)
        body = {"metadata": {**meta, **self._preconditions(path, version=25, uid=15)}, **raw}
        if self._chance(10):
            body = self._one(
                {}, {"metadata": {}}, {"metadata": {"name": "another"}}, {"data": None}, {"metadata": meta}
            )
        return Step("PATCH", path, self._query(), {**MERGE, **self._shape()}, body)

    # --- Reads and deletions ---

    def _object(self) -> str:
        kind = self._one(SECRETS, SECRETS, CREDENTIALS, LEASES)
        return f"{kind}/{self._one(*_NAMES)}"

    def _delete(self) -> Step:
        path = self._object()
        body: Json = {}
        if preconditions := self._preconditions(path):
            body["preconditions"] = preconditions
        if self._chance(30):
            body["propagationPolicy"] = "Background"
        query = {"dryRun": "All"} if self._chance(8) and not body else {}
        return Step("DELETE", path, query, {**JSON, **self._shape()}, body or None)

    def _get(self) -> Step:
        return Step("GET", self._object(), {}, self._shape())

    def _list(self) -> Step:
        path = self._one(SECRETS, SECRETS, CREDENTIALS, LEASES)
        query: Json = {"limit": self._one("1", "2", "500")} if self._chance(70) else {}
        fields = {SECRETS: ["type!=kubernetes.io/tls", "type=Opaque", "type=Opaque,metadata.name=two"]}
        fields[CREDENTIALS] = ["spec.suspend=true", "spec.clientSecretRef.name=client", "metadata.name=one"]
        if self._chance(30):
            query["fieldSelector"] = self._one(
                *fields.get(path, []), "metadata.name=one", "metadata.name!=one", "no=no"
            )
        if self._chance(20):
            query["labelSelector"] = self._one("team", "!team", "team=x", "team in (x,y)", "team notin (x)", "app!=x")
        return Step("GET", path, query, PARTIAL_LIST if self._chance(60) else {})

    def _next_page(self) -> Step:
        if not self._lists:
            return self._list()
        number, step = self._one(*self._lists[-3:])
        return Step("GET", step.path, {**step.query, "continue": {"$continue": number}}, step.headers)

    # --- Credentials ---

    def _credential(self, name: str, more: Json) -> Json:
        spec = {"clientSecretRef": {"name": "client"}, **self._one(*_SPECS)}
        if self._chance(5):
            del spec["clientSecretRef"]
        meta = {"name": name, **more, **({"labels": {"team": "x", **self._map("app")}} if self._chance(40) else {})}
        raw = {"apiVersion": "tuinly.com/v1alpha1", "kind": "TuinlyCredential", "metadata": meta, "spec": spec}
        return {**raw, **({"status": self._one(*_STATUSES)} if self._chance(20) else {})}

    def _post_credential(self) -> Step:
        body = self._credential(self._one(*_NAMES), {})
        return Step("POST", CREDENTIALS, self._query(), {**JSON, **self._shape()}, body)

    def _apply_credential(self) -> Step:
        name = self._one(*_NAMES)
        path = f"{CREDENTIALS}/{name}"
        query = {**self._query(manager=100), **({"force": "true"} if self._chance(70) else {})}
        body = self._credential(name, self._preconditions(path, version=20, uid=15))
        return Step("PATCH", path, query, {**APPLY, **self._shape()}, body)

    def _put_credential(self) -> Step:
        name = self._one(*_NAMES)
        path = f"{CREDENTIALS}/{name}"
        body = self._changed(path, name, self._credential)
        return Step("PUT", path, self._query(), {**JSON, **self._shape()}, body)

    def _patch_credential(self) -> Step:
        path = f"{CREDENTIALS}/{self._one(*_NAMES)}"
        meta: Json = self._preconditions(path, version=20, uid=15)
        if self._chance(40):
            meta["annotations"] = {"tuinly.com/refresh-requested": self._one("1", "2", None)}
        if self._chance(10):
            meta["finalizers"] = self._one(["example.com/hold"], [], None)
        spec = self._one(*_SPECS)
        body = {"metadata": meta, **({"spec": spec} if self._chance(70) else {})}
        return Step("PATCH", path, self._query(), {**MERGE, **self._shape()}, body)

    def _status(self) -> Step:
        path = f"{CREDENTIALS}/{self._one(*_NAMES)}"
        meta = self._preconditions(path, version=15, uid=70)
        if self._chance(10):
            meta["labels"] = {"team": "mine"}
        if self._chance(50):
            uid = meta.get("uid", NOBODYS)
            operations = [{"op": "test", "path": "/metadata/uid", "value": uid}] if self._chance(80) else []
            status = {"op": self._one("add", "add", "replace"), "path": "/status", "value": self._one(*_STATUSES)}
            return Step(
                "PATCH", f"{path}/status", self._query(), {**JSON_PATCH, **self._shape()}, [*operations, status]
            )
        body: Json = {"metadata": meta, "status": self._one(*_STATUSES, None)}
        if self._chance(10):
            body["spec"] = {"suspend": True}
        return Step("PATCH", f"{path}/status", self._query(), {**MERGE, **self._shape()}, body)

    # --- Leases and Events ---

    def _lease(self) -> Step:
        name = self._one(*_NAMES)
        path = f"{LEASES}/{name}"
        spec: Json = {
            "holderIdentity": self._one("a", "b", None, ""),
            "leaseDurationSeconds": self._one(15, 1, 15, 0),
            "leaseTransitions": self._one(0, 1),
            "renewTime": self._one("2026-11-24T07:00:00.000000Z", "2026-11-24T07:00:02.000001Z"),
        }
        raw = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": spec}
        if self._chance(25):
            return Step("POST", LEASES, {}, JSON, {**raw, "metadata": {"name": name, "namespace": "NS"}})
        meta = {"name": name, "namespace": "NS", **self._preconditions(path, version=85, uid=80)}
        return Step("PUT", path, {}, JSON, {**raw, "metadata": meta})

    def _event(self) -> Step:
        name = f"{self._one(*_NAMES)}.{self._random.randrange(3)}"
        body: Json = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": "NS"},
            "regarding": {"apiVersion": "tuinly.com/v1alpha1", "kind": "TuinlyCredential", "namespace": "NS"},
            "reportingController": self._one("tuinly.com/tuinly-operator", ""),
            "reportingInstance": "here",
            "action": "Refresh",
            "reason": "Issued",
            "note": self._one("a new token", "x" * 1025),
            "type": self._one("Normal", "Warning", "Other"),
            "eventTime": self._one("2026-11-24T07:00:00.000000Z", None),
        }
        return Step("POST", EVENTS, {}, {**JSON, **self._shape()}, body)
