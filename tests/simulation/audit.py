"""What must always be true: judged in the step that sends, where a write is made, and once calm has come.

Whoever looks on knows the truth: the true time, all tokens that were given, what is in the storage. The replicas know
only what reaches them.
"""

import base64
import json
import logging
from collections import defaultdict, deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import httpx

from tests.simulation.apiserver import Answer, Key, Request
from tests.simulation.apiserver.messages import Json
from tests.simulation.apiserver.rules import broken
from tests.simulation.endpoint import CANARY, Client, Reply, Token
from tests.simulation.faults import SETTLED, Faults
from tests.simulation.leads import Leads
from tests.simulation.people import at, decoded
from tests.simulation.replica import GRAPHQL_URL, OTHER_URL, TOKEN_URL, Replica
from tests.support.crd import SCHEMA
from tuinly_operator.base.clock import parse_rfc3339
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.domain.credential import GROUP, PLURAL, parse_spec
from tuinly_operator.domain.schedule import MIN_LEAD, lead
from tuinly_operator.edges.election import ASKING_SECONDS

if TYPE_CHECKING:
    from tests.simulation.history import History, Result

SECRETS: Final = "secrets"
CREDENTIALS: Final = f"{PLURAL}.tuinly.com"
LABEL: Final = "tuinly.com/credential"
WINDOW: Final = 90.0  # seconds of reach within the lead, by which a token must be fresh
MOST_REQUESTS: Final = (
    26  # token requests for one credential in a minute: 12 attempts, of two requests each, and a new leader
)
MOST_WRITES: Final = 60  # of one credential's status, in a minute
SAME_END: Final = 10.0
SKEW: Final = 12.0  # seconds by which a clock here may be off
CLOCKS_APART: Final = 30.0  # seconds by which the promise of freshness lets an operator's clock be off


class BrokenRuleError(Exception):
    """Something was not as it must always be."""


class Audit:
    """Looks on, and remembers."""

    def __init__(self, history: "History") -> None:
        """Nothing has happened yet."""
        self._history = history
        self.faults: Faults
        self._broken: list[str] = []
        self.leads = Leads(history, self.broken)
        self._asking: dict[tuple[Replica, str], int] = {}
        self._asked: dict[str, deque[float]] = defaultdict(deque)
        self._told: dict[str, deque[float]] = defaultdict(deque)
        self._written: dict[NamespacedName, float] = {}  # when a target was last written
        self._quiet_since: float | None = None
        self._moved: list[str] = []
        self._back_at = float("-inf")  # when the storage went back to a backup, by the loop's time
        self._brought_back: frozenset[NamespacedName] = frozenset()  # whose targets hold what the last backup had
        self._let_go: set[tuple[NamespacedName, str]] = set()  # targets, and the uid of the owner that left each
        self._ahead: dict[str, list[float]] = defaultdict(list)  # seconds that a token's asker's clock was, each time
        self.reached: set[str] = set()
        self.refreshes = 0
        self.requests = 0

    # --- What the history asks ----------------------------------------------------------------------------------------

    def raise_broken(self) -> None:
        """Raise the first rule that was broken."""
        if self._broken:
            raise BrokenRuleError(self._broken[0])

    def broken(self, what: str) -> None:
        """Note a broken rule, and end the history: nobody in a step could raise it."""
        self._broken.append(f"{self._history.loop.time():.3f}: {what}")
        self._history.loop.over = True

    def client_of(self, key: NamespacedName) -> Client | None:
        """The client that a credential was made with."""
        return self._history.endpoint.clients.get(f"{key.namespace}.{key.name}")

    def crashed(self, replica: Replica) -> None:
        """A replica asks for nothing any more, as far as itself is concerned."""
        for pair in [pair for pair in self._asking if pair[0] is replica]:
            del self._asking[pair]

    def went_back(self) -> None:
        """The storage went back to a backup."""
        self.leads.went_back()
        self._back_at = self._history.loop.time()
        self._brought_back = frozenset(self._history.keys)
        self._let_go.clear()

    def let_go(self, target: NamespacedName, owner: str) -> None:
        """A deletion leaves a target to itself: nobody may give it that owner again, or it would be collected."""
        self._let_go.add((target, owner))

    def logged(self, process: object, record: logging.LogRecord) -> None:
        """Look at a line of the log."""
        said = record.getMessage()
        extra = getattr(record, "fields", None)
        text = f"{said} {extra or ''}"
        self._history.tell("log", process, record.levelname, text)
        if CANARY in text:
            self.broken(f"a secret is in the log: {text}")
        if record.exc_info and record.exc_info[1] is not None:
            self.broken(f"a defect: {said}: {record.exc_info[1]!r}")

    def sum_up(self, result: "Result") -> None:
        """Put down what there was."""
        result.refreshes = self.refreshes
        if hasattr(self, "faults"):
            result.struck = self.faults.struck
            self.reached |= self.faults.pairs
        result.reached = self.reached

    # --- The API server -----------------------------------------------------------------------------------------------

    def api_sent(self, sender: Replica, request: Request) -> None:
        """Judge what a replica sends, in this very step."""
        if self._history.traced:
            self._history.tell("sends", sender, request.method, request.path, _shown(request))
        self.leads.sends(sender, request.method, request.path)
        if request.method == "GET" or "/leases" in request.path:
            return
        self.leads.acts(sender, f"{request.method} {request.path}", 0.0)
        body = _body(request)
        self._judge_preconditions(request, body)
        text = request.body.decode()
        if CANARY in text or (f"/{SECRETS}" in request.path and self._leaks(body)):
            self.broken(f"a secret is where it does not belong: {request.method} {request.path}")
        if (body.get("metadata") or {}).get("finalizers"):
            self.broken(f"a finalizer is written: {request.path}")
        key = self._key_of(request, body)
        if key is not None and request.method == "PATCH":
            self.faults.phase(sender, key, "tells" if request.path.endswith("/status") else "writes")

    def api_made(self, sender: Replica, request: Request, answer: Answer) -> None:
        """Judge what a write has made of the storage."""
        if self._history.traced:
            self._history.tell("made", sender, request.method, request.path, answer.status)
        if "/leases/" in request.path and request.method == "PUT" and answer.status < 300:
            change = self._history.server.storage.history[-1]
            self.leads.lease_written(sender, request.path, change.before, change.after or {})
        if request.method == "GET" or "/leases" in request.path:
            return
        key = self._key_of(request, _body(request))
        if answer.status < 300 and request.query.get("dryRun") is None:
            self._judge_write(request, key)
        if request.path.endswith("/events"):
            self.reached.add(f"reason {json.loads(request.body)['reason']}")
        if key is not None and request.method == "PATCH":
            self.faults.phase(sender, key, "told" if request.path.endswith("/status") else "written")

    def api_heard(self, sender: Replica, request: Request, answer: Answer) -> None:
        """An answer is back."""
        if self._history.traced:
            self._history.tell("hears", sender, request.method, request.path, answer.status)
        if request.method == "PATCH" and f"/{SECRETS}/" in request.path:
            key = self._key_of(request, _body(request))
            if key is not None:
                self.faults.phase(sender, key, "confirmed")

    def _judge_preconditions(self, request: Request, body: Mapping[str, Any]) -> None:
        """What arrives late must meet its preconditions: each write that could do harm has them."""
        meta = body.get("metadata") or {}
        if request.method == "PATCH" and request.path.endswith("/status"):
            right = bool(meta.get("uid"))
        elif request.method == "PATCH":
            version = meta.get("resourceVersion")
            right = bool(version) and (bool(meta.get("uid")) or version == "1")
        elif request.method == "DELETE":
            right = {"uid", "resourceVersion"} <= set(body.get("preconditions") or {})
        else:
            right = request.method == "POST"
        if not right:
            self.broken(f"a write without preconditions: {request.method} {request.path}")

    def _leaks(self, body: Mapping[str, Any]) -> bool:
        """Whether a Secret's manifest holds more that is secret than the access token, or that outside of its data."""
        rest = json.dumps({name: value for name, value in body.items() if name != "data"})
        values = [base64.b64decode(value).decode(errors="replace") for value in (body.get("data") or {}).values()]
        return CANARY in rest or any(f"{CANARY}-{what}" in value for value in values for what in ("secret", "refresh"))

    def _key_of(self, request: Request, body: Mapping[str, Any]) -> NamespacedName | None:
        """The credential that a write is about."""
        parts = request.path.split("/")
        if f"/{PLURAL}/" in request.path:
            return NamespacedName(parts[5], parts[7])
        name = ((body.get("metadata") or {}).get("labels") or {}).get(LABEL)
        return NamespacedName(parts[4], name) if name and f"/{SECRETS}" in request.path else None

    def _judge_write(self, request: Request, key: NamespacedName | None) -> None:
        history = self._history.server.storage.history
        change = history[-1] if history else None
        if change is None or key is None or change.key.name not in request.path.split("/"):
            return  # it has changed nothing
        if request.path.endswith("/status"):
            self._note_status(key, change.after or {})
        elif request.method == "PATCH" and change.key.resource == SECRETS:
            self._judge_owner(key, change.key, change.before, change.after or {})
            self._note_target(key, change.key, change.before, change.after or {})

    def _note_status(self, key: NamespacedName, raw: Json) -> None:
        for condition in (raw.get("status") or {}).get("conditions") or ():
            self.reached.add(f"reason {condition['reason']}")
        now = self._history.now()
        told = self._told[str(key)]
        told.append(now)
        while told[0] < now - 60.0:
            told.popleft()
        if len(told) > MOST_WRITES:
            self.broken(f"{len(told)} writes of the status of {key} in a minute")
        client = self.client_of(key)
        if client is None or client.repeats:
            return  # the same token again moves the time of the next refresh, which is told when it may be
        if self._quiet_since is not None and now - self._written.get(key, 0.0) > SKEW and self._is_well(key):
            self._moved.append(f"the status of {key} was written at {self._history.loop.time():.1f}")

    def _judge_owner(self, key: NamespacedName, where: Key, before: Json | None, after: Json) -> None:
        """A target of the credential that is there is not written for another one, which has gone."""
        raw = at(self._history.server, CREDENTIALS, key)
        if before is None or raw is None or self._history.loop.time() - self._back_at < WINDOW:
            return
        uid = raw["metadata"]["uid"]
        if _annotation(before, "credential-uid") == uid != _annotation(after, "credential-uid"):
            self.broken(f"{where} is of the credential that there is, and was written for another")

    def _note_target(self, key: NamespacedName, where: Key, before: Json | None, after: Json) -> None:
        history, now = self._history, self._history.now()
        new, old = self._token_in(after), self._token_in(before) if before else None
        target, owners = NamespacedName(where.namespace, where.name), after["metadata"].get("ownerReferences") or ()
        if before is not None and any((target, owner["uid"]) in self._let_go for owner in owners):
            self.broken(f"{where} has an owner again that is being deleted, and will be collected with it")
        self._history.tell("target", where, "now has", new.value.split("-")[-1] if new else "none")
        if new is None:
            self.broken(f"{where} was written without a token that the endpoint gave")
            return
        if before is not None and _made_for(before) == _made_for(after):
            # After a restart, a client Secret that was touched meanwhile may hold another client.
            meanings = ("handled-refresh", "client-secret-version")
            asked = any(_annotation(before, name) != _annotation(after, name) for name in meanings)
            self._judge_exchange_of(key, where, old, new, asked=asked)
        if old is None or old.value != new.value:
            self.refreshes += 1
            self._brought_back -= {key}
            history.network.later(max(0.0, new.expires - now) + 0.01, self._judge_freshness, key, where, new)
            if self._quiet_since is not None and old is not None and history.endpoint.lives(old):
                self._judge_due(key, old, now)
        self._written[key] = now

    def _judge_due(self, key: NamespacedName, old: Token, now: float) -> None:
        """In calm, a token is only replaced when it is due."""
        spec = self._spec(key)
        if spec is None:
            return
        lifetime = old.expires - old.issued
        least = 0.9 * (lifetime - lead(parse_spec(spec).refresh, lifetime))
        if now - old.issued < least - SKEW + min(0.0, *self._ahead[old.value]):
            self._moved.append(f"{key} was refreshed {now - old.issued:.0f} s after its token was issued")

    def _judge_exchange_of(
        self, key: NamespacedName, where: Key, old: Token | None, new: Token, *, asked: bool
    ) -> None:
        """A good token is only replaced by one at least as good, until little of its life is left."""
        history = self._history
        if old is None or old.value == new.value or not history.endpoint.lives(old):
            return
        # By a clock that is ahead, or that was behind as the old one was asked for, it ends so much sooner.
        ahead = max(0.0, *(clock.ahead for clock in history.clocks.values())) - min(0.0, *self._ahead[old.value])
        if old.expires - history.now() - ahead < MIN_LEAD + SKEW:
            return
        spec = self._spec(key)
        if spec is None or (old.client, old.url) != (new.client, new.url):
            return
        wanted = frozenset(spec.get("scopes") or ())
        if old.asked == wanted and new.asked == wanted and not new.scopes >= old.scopes & wanted:
            self.broken(f"{where} lost scopes: {sorted(old.scopes)}, now {sorted(new.scopes)}")
        if asked or old.secret != new.secret:
            return  # then an earlier end is as good
        if old.asked == new.asked == wanted and new.expires < old.expires - SAME_END:
            self.broken(f"{where} has a token that ends {old.expires - new.expires:.0f} s earlier than the one before")

    def _judge_freshness(self, key: NamespacedName, where: Key, token: Token) -> None:
        """A token has expired: it must not be in the target still, if there was time enough."""
        history = self._history
        raw = history.server.storage.objects.get(where)
        if raw is None or decoded(raw, "access_token") != token.value or not self._entitled(key, where):
            return
        self.reached.add("expired")
        lifetime = token.expires - token.issued
        spec = self._spec(key)
        if spec is None or not self._is_promised(token):
            return
        end = history.loop.time()
        begin = max(self._back_at, end - lead(parse_spec(spec).refresh, lifetime))
        if self.faults.calm(begin, end - SKEW, WINDOW):
            self.broken(f"{where} holds a token that has expired, although there was time to refresh it")

    # --- The token endpoint -------------------------------------------------------------------------------------------

    def token_sent(self, sender: Replica, request: httpx.Request) -> None:
        """Judge what a replica sends, in this very step."""
        verifies = request.url.path.endswith("/graphql")
        request.extensions["ahead"] = sender.clock.now().wall - self._history.now()
        self.leads.acts(sender, str(request.url), 0.0 if verifies else ASKING_SECONDS)
        client = self._client(request)
        self._history.tell("asks", sender, request.url, client)
        if str(request.url) not in (TOKEN_URL, OTHER_URL, GRAPHQL_URL):
            self.broken(f"a secret is sent to {request.url}")
        if verifies:
            return
        self.requests += 1
        self.leads.asks(sender, request.content)
        pair = sender, client
        self._asking[pair] = self._asking.get(pair, 0) + 1
        if client and self._asking[pair] > 1:  # not known for a refresh token that the endpoint has forgotten
            self.broken(f"{sender} asks for two tokens for {client} at once")
        now, asked = self._history.now(), self._asked[client]
        asked.append(now)
        while asked[0] < now - 60.0:
            asked.popleft()
        if client and len(asked) > MOST_REQUESTS:
            self.broken(f"{len(asked)} token requests for {client} in a minute")
        if (key := _credential(client)) is not None:
            self.faults.phase(sender, key, "asks")

    def token_made(self, sender: Replica, request: httpx.Request, reply: Reply) -> None:
        """A token request has been answered."""
        self._history.tell("gives", sender, reply.status, reply.token.value.split("-")[-1] if reply.token else "")
        if reply.token is not None:
            self._ahead[reply.token.value].append(request.extensions["ahead"])
            if reply.token.refresh is not None:
                self.leads.given(sender, reply.token.refresh)
        if reply.token is not None and (key := _credential(reply.token.client)) is not None:
            self.faults.phase(sender, key, "given")

    def token_heard(self, sender: Replica, _request: httpx.Request, reply: Reply) -> None:
        """The answer is back."""
        self._history.tell("answered", sender, reply.status)
        if reply.token is not None and (key := _credential(reply.token.client)) is not None:
            self.faults.phase(sender, key, "heard")

    def token_over(self, sender: Replica, request: httpx.Request) -> None:
        """A replica waits for it no more."""
        if request.url.path.endswith("/graphql"):
            return
        pair = sender, str(request.extensions.get("client", "")) or self._client(request)
        if pair in self._asking:
            self._asking[pair] -= 1

    def _client(self, request: httpx.Request) -> str:
        known = request.extensions.get("client")
        if known is None:
            known = request.extensions["client"] = self._history.endpoint.client_of(request.content)
        return str(known)

    # --- Once calm has come -------------------------------------------------------------------------------------------

    def calm_begins(self) -> float:
        """Nothing strikes any more; return after how many seconds all must be well."""
        return max(75.0, self.faults.longest_wait()) + SETTLED

    def all_is_well(self) -> None:
        """Raise where a token is not fresh, or a status is not true."""
        self._quiet_since = self._history.now()
        if (flaw := self._any_flaw()) is not None:
            raise BrokenRuleError(f"once calm had come, {flaw}")

    def look(self) -> None:
        """Judge the same between faults, if nothing has gone on for long enough."""
        if not self._history.loop.over and self.faults.is_over(SETTLED) and (flaw := self._any_flaw()) is not None:
            self.broken(f"between faults, {flaw}")

    def _any_flaw(self) -> str | None:
        """What is wrong with any, None for nothing."""
        leaders = [replica for replica in self._history.live if replica.leads]
        for shard in self._history.shards:
            if sum(1 for replica in leaders if replica.shard is shard) != 1:
                return f"{shard.name} has not one leader: {leaders}"
        flaws = ((key, self._flaw(key)) for key in self._history.keys)
        return next((f"{key}: {flaw}" for key, flaw in flaws if flaw is not None), None)

    def nothing_moved(self) -> None:
        """Raise where more than due refreshes took place in calm."""
        if self._moved:
            raise BrokenRuleError(f"in calm, {self._moved[0]}")

    def _flaw(self, key: NamespacedName) -> str | None:
        """What is wrong with a credential, None for nothing."""
        raw = at(self._history.server, CREDENTIALS, key)
        if raw is None or "deletionTimestamp" in raw["metadata"] or any(broken({**raw, "status": None}, raw, SCHEMA)):
            return None  # it goes, or it is such that the API server takes no status for it
        ready, refreshed = _condition(raw, "Ready"), _condition(raw, "Refreshed")
        told = f"Ready {ready[0]} {ready[1]}, Refreshed {refreshed[0]} {refreshed[1]}"
        if raw.get("status", {}).get("observedGeneration") != raw["metadata"]["generation"]:
            return f"the status is of generation {raw.get('status', {}).get('observedGeneration')}: {told}"
        client = self.client_of(key)
        if client is None or client.fails is not None or not self._whole(key):
            return None if ready[0] != "True" or self._target_lives(key) else f"no token lives, but {told}"
        token = self._present(key)
        if token is None:
            return f"the target holds no token: {told}"
        if self._history.now() - max(self._written.get(key, 0.0), token.revoked_at) < SKEW:
            return None  # the status is told next, or the token is written that was given in its place
        if not self._history.endpoint.lives(token) and self._must_live(key, token):
            return f"the token has ended{' by revocation' if token.revoked_at else ''}: {told}"
        untried = refreshed == ("False", "VerificationInconclusive") and self._may_be_untried(key, token)
        if ready != ("True", "Issued") or not (untried or refreshed == ("True", "Issued")):
            return told
        if token.secret != self._client_secret(key):
            return "the token was issued for another client secret than the present one"
        return self._flaw_of_times(raw, token)

    def _flaw_of_times(self, raw: Json, token: Token) -> str | None:
        """Times are those of the clock by which the token was asked for: as wrong as that was, until the next one."""
        said = parse_rfc3339(raw["status"]["tokenExpirationTime"])
        true = any(abs(said - ahead - token.expires) < SKEW for ahead in self._ahead[token.value])
        return None if true else f"the status says that {token.expires} is {said}"

    def _must_live(self, key: NamespacedName, token: Token) -> bool:
        """Whether a token that does not live is a flaw.

        One that a backup brought back may have been revoked since: while etcd was restored the lead ended, and with it
        whatever was known of the token that followed.
        """
        return key not in self._brought_back if token.revoked_at else self._is_promised(token)

    def _is_promised(self, token: Token) -> bool:
        """Whether the promise of freshness covers a token: the clock by which it was asked for was nearly right.

        After a restart, all that is known of a token's end is what that clock said.
        """
        return max(self._ahead[token.value]) <= CLOCKS_APART

    def _may_be_untried(self, key: NamespacedName, token: Token) -> bool:
        """Whether a token may have been written although nobody could tell whether it works, amid faults.

        That is told for as long as the target holds it (contract, Verification).
        """
        verifies = ((self._spec(key) or {}).get("verification") or {}).get("mode") == "Enabled"
        return verifies and token.issued < self._history.now() + self.faults.longest_wait()

    def _is_well(self, key: NamespacedName) -> bool:
        client = self.client_of(key)
        return client is not None and client.fails is None and self._whole(key)

    def _whole(self, key: NamespacedName) -> bool:
        """Whether nothing that people did, and did not undo, keeps a credential from its token."""
        raw, client = at(self._history.server, CREDENTIALS, key), self.client_of(key)
        if raw is None or "deletionTimestamp" in raw["metadata"] or client is None or client.narrows:
            return False
        spec = raw["spec"]
        if spec.get("suspend") or any(broken(raw, None, SCHEMA)):
            return False
        if (spec.get("delivery") or {}).get("pods") == "Push" or "everything" in (spec.get("scopes") or ()):
            return False
        if spec.get("tokenURL") not in (None, TOKEN_URL, OTHER_URL):
            return False
        if self._client_secret(key) not in client.secrets:
            return False
        target = at(self._history.server, SECRETS, self.faults.target_of(key))
        return target is None or (self._belongs(target, key) and not target.get("immutable"))

    def _client_secret(self, key: NamespacedName) -> str:
        """What its Secret holds, empty where there is none."""
        raw = at(self._history.server, SECRETS, NamespacedName(key.namespace, f"{key.name}-client"))
        return decoded(raw, "client_secret") if raw else ""

    def _belongs(self, target: Json, key: NamespacedName) -> bool:
        return (target["metadata"].get("labels") or {}).get(LABEL) == key.name

    def _entitled(self, key: NamespacedName, where: Key) -> bool:
        target = self.faults.target_of(key)
        return self._is_well(key) and where == Key(SECRETS, target.namespace, target.name)

    def _spec(self, key: NamespacedName) -> Json | None:
        raw = at(self._history.server, CREDENTIALS, key)
        return raw["spec"] if raw else None

    def _present(self, key: NamespacedName) -> Token | None:
        target = at(self._history.server, SECRETS, self.faults.target_of(key))
        return self._token_in(target) if target else None

    def _target_lives(self, key: NamespacedName) -> bool:
        token = self._present(key)
        return token is not None and self._history.now() < token.expires + SKEW

    def _token_in(self, raw: Json) -> Token | None:
        """The token of a target, under the default key or that of the template; the other one may be anybody's."""
        tokens = self._history.endpoint.tokens
        return tokens.get(decoded(raw, "access_token")) or tokens.get(decoded(raw, "env").removeprefix("TOKEN="))


def _condition(raw: Json, kind: str) -> tuple[str, str]:
    found = [each for each in (raw.get("status") or {}).get("conditions") or () if each["type"] == kind]
    return (found[0]["status"], found[0]["reason"]) if found else ("", "")


def _made_for(target: Json) -> str:
    """The uid of the credential that a target was written for."""
    return _annotation(target, "credential-uid")


def _annotation(target: Json, name: str) -> str:
    """One of the operator's annotations."""
    return str((target["metadata"].get("annotations") or {}).get(f"{GROUP}/{name}") or "")


def _credential(client: str) -> NamespacedName | None:
    namespace, _, name = client.partition(".")
    return NamespacedName(namespace, name) if name else None


def _body(request: Request) -> Json:
    """What a request sends; of a JSON patch, what it tests and sets, as an object."""
    body = json.loads(request.body) if request.body else {}
    if isinstance(body, dict):
        return body
    told = {step["path"]: step["value"] for step in body}
    return {"metadata": {"uid": told.get("/metadata/uid")}, "status": told.get("/status") or {}}


def _shown(request: Request) -> str:
    """What a trace shows of a request's body: its length, and of a status its reasons."""
    if not request.path.endswith("/status"):
        return str(len(request.body)) if request.body else ""
    conditions = _body(request)["status"].get("conditions") or ()
    return " ".join(f"{each['type']}={each['status']}:{each['reason']}" for each in conditions)
