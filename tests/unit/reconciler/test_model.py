"""A model of a credential's life: random worlds, with the five promises as what must always be true.

Hypothesis drives spec changes, answers, edits, outages, restarts and clock jumps through the real decisions and acts
over a fake edge (world.py). What it finds becomes a test of its own in test_decision.py or beside it.
"""

import asyncio
import base64
import json
import logging
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.unit.world import (
    ACCEPTED,
    BOOTED,
    CLIENT_SECRET,
    CREDENTIAL,
    FORBIDDEN_URL,
    INCONCLUSIVE,
    NOT_FOUND,
    OTHER_URL,
    POLICY,
    REJECTED,
    THROTTLED,
    TOKEN_URL,
    FakeApi,
    FakeEndpoint,
    FakeEvents,
    Issued,
    Json,
    LogKeeper,
    Process,
    World,
    Write,
    part_of,
)
from tuinly_operator.base.clock import parse_rfc3339
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.domain.credential import REFRESH_REQUESTED
from tuinly_operator.domain.errors import TokenRequestFailed
from tuinly_operator.domain.schedule import MIN_LEAD
from tuinly_operator.domain.target import MANAGER
from tuinly_operator.domain.template import layout_of
from tuinly_operator.edges.kube import ApiFailure

MOODS = ["good", "good", "down", "throttles", "garbage", "refuses refreshes", "narrows", "repeats", "renews"]
SPECS: list[Json] = [
    {"scopes": ["orders:read"]},
    {"scopes": ["orders:read", "orders:write"]},
    {"tokenURL": OTHER_URL},
    {"tokenURL": FORBIDDEN_URL},
    {"target": {"name": "other-token"}},
    {"target": {"deletionPolicy": "Retain"}},
    {"target": {"template": {"data": {"header": "Bearer ${access_token}"}}}},
    {"target": {"template": {"metadata": {"labels": {"team": "shop"}}}}},
    {"refresh": {"grant": "ClientCredentials"}},
    {"refresh": {"before": "20m"}},
    {"verification": {"mode": "Enabled"}},
    {"suspend": True},
    {"delivery": {"pods": "Push"}},
]
COPIES: dict[str, Json] = {"copy": {}, "immutable copy": {"immutable": True}, "other type": {"type": "another"}}
# Two wishes at once; of two about the same field the second counts.
WISHES = st.builds(lambda one, other: {**one, **other}, st.sampled_from(SPECS), st.sampled_from(SPECS))
MEDDLING = [
    *("edit", "remove a key", "add a key", "delete", "foreign"),
    *("immutable", "copy", "immutable copy", "other type", "copy beside it", "hold", "let go"),
]
SECRETS = ["canary-secret-1", "canary-secret-2"]


VERDICTS = [ACCEPTED, REJECTED, INCONCLUSIVE, NOT_FOUND, THROTTLED]


class Life(RuleBasedStateMachine):
    """The life of one credential."""

    @initialize(more=WISHES, graphql=st.sampled_from(VERDICTS))
    def begin(self, more: Json, graphql: TokenRequestFailed | None) -> None:
        self.loop = asyncio.new_event_loop()
        self.log = LogKeeper()
        logging.getLogger("tuinly_operator").addHandler(self.log)
        logging.getLogger("tuinly_operator").setLevel(logging.DEBUG)
        self.world, self.events = World(), FakeEvents()
        self.api = FakeApi(self.world)
        self.endpoint = FakeEndpoint(self.world, {"shop": SECRETS[0]}, graphql=graphql)
        self.forced = 0
        self.checked = 0  # writes that have been judged
        self.counted = 0  # token requests that have been judged
        self.published: set[str] = set()
        self.trouble = self.world.boot  # when something was last wrong with the world
        self.started = self.world.boot  # when the operator was
        self.unheard = False  # the answer to a write has been lost
        self.api.put_secret(CLIENT_SECRET, {"client_id": "shop", "client_secret": SECRETS[0]})
        self.api.put_credential(CREDENTIAL, self.spec(more))
        self.process = Process(self.world, self.api, self.endpoint, self.events)
        self.work()

    def teardown(self) -> None:
        logging.getLogger("tuinly_operator").removeHandler(self.log)
        logging.getLogger("tuinly_operator").setLevel(logging.NOTSET)  # or all tests to come would write so much
        if hasattr(self, "loop"):
            self.loop.close()

    def work(self) -> None:
        self.process.credentials_changed()
        self.loop.run_until_complete(self.process.work())

    @staticmethod
    def spec(more: Json) -> Json:
        return {"clientSecretRef": {"name": CLIENT_SECRET.name}, **more}

    # --- What happens -------------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([1, 4, 30, 300, 900, 1800, 3700]))
    def time_passes(self, seconds: int) -> None:
        """A running process is woken when something is due."""
        end = self.world.boot + seconds
        while self.world.boot < end:
            self.world.pass_time(min(max(self.process.idle(), 0.5), end - self.world.boot))
            self.tokens_are_replaced_in_time()
            self.work()

    @rule(hours=st.sampled_from([-1, 1]))
    def the_wall_clock_jumps(self, hours: int) -> None:
        self.counted = len(self.endpoint.requests)  # whatever is waited for may seem to be over
        self.world.wall += hours * 3600
        self.work()

    @rule(seconds=st.sampled_from([600, 4000]))
    def the_machine_sleeps(self, seconds: int) -> None:
        self.world.pass_time(seconds)
        self.trouble = self.world.boot
        self.work()

    @rule(mood=st.sampled_from(MOODS))
    def the_endpoint_changes_its_mood(self, mood: str) -> None:
        self.endpoint.mood = mood

    @rule(lifetime=st.sampled_from([60, 600, 3600, 86_400]), refresh_tokens=st.booleans())
    def the_endpoint_changes_its_ways(self, lifetime: int, refresh_tokens: bool) -> None:  # noqa: FBT001 -- drawn
        self.endpoint.lifetime, self.endpoint.gives_refresh_tokens = lifetime, refresh_tokens

    @rule(verdict=st.sampled_from(VERDICTS))
    def graphql_changes_its_mind(self, verdict: TokenRequestFailed | None) -> None:
        self.endpoint.graphql = verdict

    @precondition(lambda self: CREDENTIAL in self.api.credentials)
    @rule(more=WISHES)
    def the_spec_changes(self, more: Json) -> None:
        self.api.put_credential(CREDENTIAL, self.spec(more))
        self.work()

    @precondition(lambda self: CREDENTIAL in self.api.credentials)
    @rule()
    def users_force_an_exchange(self) -> None:
        self.forced += 1
        spec = self.api.credentials[CREDENTIAL]["spec"]
        self.api.put_credential(CREDENTIAL, spec, {REFRESH_REQUESTED: str(self.forced)})
        self.work()

    @rule(secret=st.sampled_from([*SECRETS, "", "with\nline"]), at_endpoint=st.booleans())
    def the_client_secret_changes(self, secret: str, at_endpoint: bool) -> None:  # noqa: FBT001 -- drawn
        if at_endpoint and secret in SECRETS:
            self.endpoint.clients["shop"] = secret
        self.api.put_secret(CLIENT_SECRET, {"client_id": "shop", "client_secret": secret})
        self.work()

    @precondition(lambda self: CLIENT_SECRET in self.api.secrets)
    @rule(gone=st.booleans())
    def the_client_secret_is_touched(self, gone: bool) -> None:  # noqa: FBT001 -- drawn
        self.api.remove_secret(CLIENT_SECRET) if gone else self.api.label_secret(CLIENT_SECRET)
        self.work()

    @precondition(lambda self: "foreign" not in ((self.target() or {}).get("data") or {"foreign": ""}))
    @rule(what=st.sampled_from(MEDDLING))
    def somebody_meddles(self, what: str) -> None:
        key, raw = self.target_key(), self.target()
        assert raw is not None
        some = next(iter(raw["data"]))
        if what == "edit":
            self.api.edit_secret(key, some, "tampered")
        elif what == "remove a key":
            self.api.edit_secret(key, some, None)
        elif what == "add a key":
            self.api.edit_secret(key, "theirs", "kept")
        elif what == "immutable":
            self.api.freeze_secret(key)
        elif what == "copy beside it":
            self.api.copy_secret(key, "backup")
        elif what in COPIES:
            self.api.copy_secret(key, key.name, **COPIES[what])
        elif what in {"hold", "let go"}:
            self.api.hold_secret(key, *(["example.com/hold"] if what == "hold" else []))
        else:
            self.api.remove_secret(key)
            if what == "foreign":
                self.api.put_secret(key, {"foreign": "untouchable"})
        self.work()

    @rule(kind=st.sampled_from(["kubernetes.io/tls", "Opaque"]))
    def the_client_secret_is_made_again(self, kind: str) -> None:
        """The watch leaves one of these types out."""
        self.api.remove_secret(CLIENT_SECRET)
        self.api.put_secret(CLIENT_SECRET, {"client_id": "shop", "client_secret": SECRETS[0]}, kind)
        self.work()

    @rule(
        what=st.sampled_from(
            ["other scopes", "suspended", "renamed", "deleted", "other client secret", "target edited", "target gone"]
        )
    )
    def something_happens_during_the_next_request(self, what: str) -> None:
        self.endpoint.meanwhile = lambda: self.happen(what)

    def happen(self, what: str) -> None:
        raw, target = self.api.credentials.get(CREDENTIAL), self.target()
        if what == "deleted":
            self.api.credentials.pop(CREDENTIAL, None)
        elif what == "other scopes" and raw is not None:
            self.api.put_credential(
                CREDENTIAL, {**raw["spec"], "scopes": ["stock:read"]}, raw["metadata"]["annotations"]
            )
        elif what in ("suspended", "renamed") and raw is not None:
            change = {"suspend": True} if what == "suspended" else {"target": {"name": "other-token"}}
            self.api.put_credential(CREDENTIAL, {**raw["spec"], **change}, raw["metadata"]["annotations"])
        elif what == "other client secret":
            self.api.put_secret(CLIENT_SECRET, {"client_id": "shop", "client_secret": SECRETS[1]})
        elif what == "target edited" and target is not None and target["data"]:
            self.api.edit_secret(self.target_key(), next(iter(target["data"])), "tampered")
        elif what == "target gone":
            self.api.remove_secret(self.target_key())
        self.process.credentials_changed()

    @rule()
    def the_answer_to_the_next_write_is_lost(self) -> None:
        """It is made, and nobody hears of it."""
        self.api.deaf = self.unheard = True

    @rule(status=st.sampled_from([None, 409, 403, 422, 500, 429]))
    def the_next_write_fails(self, status: int | None) -> None:
        self.api.failures.append(ApiFailure(status, "Injected"))

    @rule()
    def the_api_server_goes_and_comes(self) -> None:
        self.api.reachable = not self.api.reachable
        self.api.failed_at = self.world.boot
        self.work()

    @rule()
    def the_operator_restarts(self) -> None:
        """By then the wall clock has been set right: a new process has nothing else to go by."""
        self.world.set_right()
        self.started, self.counted = self.world.boot, len(self.endpoint.requests)
        self.endpoint.rejected.clear()  # none but the process that tried them knew what did not work
        self.process = Process(self.world, self.api, self.endpoint, self.events)
        self.work()

    @precondition(lambda self: CREDENTIAL in self.api.credentials)
    @rule()
    def the_credential_is_deleted(self) -> None:
        del self.api.credentials[CREDENTIAL]
        self.process.credentials_changed()
        writes = len(self.api.writes)
        self.api.collect_garbage()
        self.work()
        assert len(self.api.writes) == writes  # inert and silent

    @precondition(lambda self: CREDENTIAL not in self.api.credentials)
    @rule(more=st.sampled_from([{}, {"target": {"deletionPolicy": "Retain"}}]))
    def the_credential_is_made_again(self, more: Json) -> None:
        self.counted = len(self.endpoint.requests)  # it is another one
        self.api.put_credential(CREDENTIAL, self.spec(more))
        self.work()

    # --- What must be true: the promises ------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([400, 4000]), graphql=st.sampled_from([ACCEPTED, INCONCLUSIVE]))
    def all_is_well_and_time_passes(self, seconds: int, graphql: TokenRequestFailed | None) -> None:
        """Freshness: once everything works for a while, Ready tells of a valid token for what is asked."""
        self.endpoint.mood, self.endpoint.graphql, self.endpoint.lifetime = "good", graphql, 3600
        self.api.reachable = True
        self.api.failures.clear()
        self.endpoint.meanwhile = None
        self.endpoint.clients["shop"] = SECRETS[0]
        self.api.put_secret(CLIENT_SECRET, {"client_id": "shop", "client_secret": SECRETS[0]})
        if self.is_in_the_way():
            self.api.hold_secret(self.target_key())
            self.api.remove_secret(self.target_key())
        self.work()
        self.time_passes(seconds)  # longer than the longest wait of five minutes
        spec = self.api.credentials.get(CREDENTIAL, {}).get("spec")
        if spec is None or spec.get("suspend") or "delivery" in spec or spec.get("tokenURL") == FORBIDDEN_URL:
            return
        token = self.held()
        assert token is not None
        assert token.expires > self.world.boot or self.issued_by_a_wrong_clock(token)
        assert self.condition("Ready") == "True"
        self.check_asked_for(token, spec)

    @invariant()
    def tokens_are_replaced_in_time(self) -> None:
        """Freshness: once all has worked for 90 s no token comes near its end, even if GraphQL tells nothing.

        A new token that cannot be verified waits until the present one has 100 s left, or half of the lead.
        """
        if not hasattr(self, "api"):
            return
        if not self.all_works():
            self.trouble = self.world.boot
        token = self.held()
        if token is None or self.world.boot - max(self.trouble, self.api.failed_at) < 90:
            return
        least = min(MIN_LEAD, (token.expires - token.issued) / 2) / 2 - 1
        assert token.expires - self.world.boot > least or self.issued_by_a_wrong_clock(token)

    @precondition(lambda self: self.condition("Ready") == "True" and self.api.reachable)
    @rule()
    def a_restart_is_quiet(self) -> None:
        """Quiet: with a fresh token in place, a restart asks for nothing and writes nothing."""
        self.work()
        record = self.process.store.get(CREDENTIAL)
        fresh = record is not None and record.memory.pending is None and record.memory.attempt is None
        told_version = self.annotation("client-secret-version") == self.client_secret_version()
        issued, due_at = (
            parse_rfc3339(self.annotation(name) or "1970-01-01T00:00:00Z") for name in ("issued-at", "next-refresh")
        )
        self.world.set_right()
        due = not issued - 60 <= self.world.wall < due_at  # by the wall clock, which is all that a new process has
        handled = self.annotation("handled-refresh") == self.requested() or not self.requested()
        refreshed = self.condition("Refreshed") == "True"
        writes, requests = len(self.api.writes), len(self.endpoint.requests)
        self.the_operator_restarts()
        if fresh and told_version and not due and handled and refreshed and not self.api_failed_lately():
            assert len(self.endpoint.requests) == requests
            assert len(self.api.writes) == writes

    @invariant()
    def ready_tells_the_truth(self) -> None:
        """Ready is only True while the target holds a token of the ledger that lives, for the present inputs."""
        if not hasattr(self, "api") or self.condition("Ready") != "True" or not self.up_to_date():
            return
        if self.annotation("template") != self.wanted_template():
            return  # suspended, say: which keys were written is known only for the present template
        token = self.held()
        assert token is not None, "Ready without a token"
        assert token.expires >= self.world.boot - 2 or self.issued_by_a_wrong_clock(token)
        self.check_asked_for(token, self.api.credentials[CREDENTIAL]["spec"])

    def wanted_template(self) -> str:
        """The digest of the template that the spec asks for, as the operator knows it."""
        record = self.process.store.get(CREDENTIAL)
        template = record.credential.spec.target.template if record else None
        return layout_of(template).digest

    @invariant()
    def every_write_is_an_improvement(self) -> None:
        """Never worse: a good token only gives way to one that lives longer and may do as much, unless users ask."""
        writes = self.api.writes[self.checked :] if hasattr(self, "api") else []
        self.checked = len(self.api.writes) if hasattr(self, "api") else 0
        for write in writes:
            before, after = ((raw or {"metadata": {}})["metadata"] for raw in (write.before, write.after))
            assert after.get("finalizers", before.get("finalizers")) == before.get("finalizers")  # removable
            self.check_target_write(write) if write.kind == "target" else None

    @invariant()
    def token_requests_keep_their_distance(self) -> None:
        """Quiet: five seconds between an attempt and the next but one, as a changed Secret or spec may pass that once.

        What makes up for a refused refresh comes at once, and belongs to that attempt.
        """
        if not hasattr(self, "api"):
            return
        requests = self.endpoint.requests[self.counted :]
        attempts = [
            (number, at)
            for number, (grant, at) in enumerate(requests)
            if number == 0 or (requests[number - 1][0], grant) != ("refresh", "exchange")
        ]
        for (_, first), (_, third) in zip(attempts, attempts[2:], strict=False):
            assert third - first >= POLICY.min_interval - 0.01
        if len(attempts) > 2:
            self.counted += attempts[-2][0]

    @invariant()
    def secrets_stay_where_they_belong(self) -> None:
        """Closed: nothing that tells of a credential holds a secret."""
        if not hasattr(self, "api"):
            return
        told: list[Any] = [raw["status"] for raw in self.api.credentials.values()]
        told += [raw["metadata"] for raw in self.api.secrets.values()]
        told += [event.message for event in self.events.sent] + self.log.lines
        told += [repr(record) for record in self.process.store]
        assert "canary" not in json.dumps(told)
        self.log.lines.clear()

    # --- Looks --------------------------------------------------------------------------------------------------------

    def check_target_write(self, write: Write) -> None:
        """Judge a write by what was true when it was made."""
        before, spec = write.before, write.spec
        assert spec is not None, "something was written for a credential that is gone"
        assert before is None or "foreign" not in before["data"], "a foreign Secret was overwritten"
        if write.after is None:
            self.check_deletion(write, spec)
            return
        old, new = self.token_in(before), self.token_in(write.after)
        assert new is not None, "something was written that the ledger never issued"
        if new.value not in self.published:
            self.check_asked_for(new, spec)
            assert "verification" not in spec or new.value not in self.endpoint.rejected
        self.published.add(new.value)
        if old is not None and old.value != new.value:
            assert before is not None
            self.check_replacement(write, old, new)

    def check_deletion(self, write: Write, spec: Json) -> None:
        """An old target goes once the new one is there; the present one is never deleted."""
        assert write.before is not None
        target = spec.get("target", {})
        assert (target.get("name") or f"{CREDENTIAL.name}-token") != write.key.name
        assert target.get("deletionPolicy") != "Retain"
        assert not self.is_anothers(write.before), "what somebody made or wrote to was deleted"
        assert self.token_in(write.target) is not None

    def check_replacement(self, write: Write, old: Issued, new: Issued) -> None:
        """A good token only gives way to one that lives longer and may do as much, or to what people asked for."""
        assert write.before is not None
        assert write.after is not None
        before, after = (raw["metadata"]["annotations"] for raw in (write.before, write.after))

        def same(*names: str) -> bool:
            return all(before.get(f"tuinly.com/{name}") == after.get(f"tuinly.com/{name}") for name in names)

        issued, expires = (parse_rfc3339(before[f"tuinly.com/{name}"]) for name in ("issued-at", "expires-at"))
        # By the wall clock, too, which may have jumped and all that a new process has.
        good = old.expires - new.issued >= MIN_LEAD and all(
            issued - 60 <= wall < expires - MIN_LEAD for wall in (write.at.wall, new.wall)
        )
        if not good or not same("credential-uid", "exchange-inputs"):
            return
        assert new.scopes >= old.scopes
        # A new process does not know whether an edited client Secret still holds what the token was issued for.
        client_changed = old.secret != new.secret or not (same("client-secret-version") or old.issued > self.started)
        if not client_changed and same("handled-refresh"):
            assert new.expires >= old.expires - 1

    def check_asked_for(self, token: Issued, spec: Json) -> None:
        """A token is one for this spec."""
        assert token.url == spec.get("tokenURL", TOKEN_URL)
        assert token.asked == frozenset(spec.get("scopes", []))

    def all_works(self) -> bool:
        """Whether the operator can do what it has promised, and has been asked to."""
        raw, secret = self.api.credentials.get(CREDENTIAL), self.api.secrets.get(CLIENT_SECRET)
        if raw is None or secret is None or self.is_in_the_way():
            return False
        spec, held = raw["spec"], base64.b64decode(secret["data"]["client_secret"]).decode()
        usable = secret["type"] == "Opaque"
        asked = usable and not spec.get("suspend") and "delivery" not in spec and spec.get("tokenURL") != FORBIDDEN_URL
        endpoint = self.endpoint.mood in ("good", "refuses refreshes") and self.endpoint.clients["shop"] == held
        verified = "verification" not in spec or self.endpoint.graphql is not REJECTED
        return asked and endpoint and verified and self.api.reachable

    def issued_by_a_wrong_clock(self, token: Issued) -> bool:
        """Whether the operator goes by times in the target that were written with a wrong clock: no promise is made.

        A new process does, and one that learns of its own write from the target, since the answer to it was lost.
        """
        wrong = abs(token.wall - BOOTED - token.issued) > 30
        return wrong and (token.issued < self.started or self.unheard)

    def target_key(self) -> NamespacedName:
        raw = self.api.credentials.get(CREDENTIAL)
        name = (raw or {}).get("spec", {}).get("target", {}).get("name") or f"{CREDENTIAL.name}-token"
        return NamespacedName(CREDENTIAL.namespace, name)

    def is_in_the_way(self) -> bool:
        """Whether a person has to clear the target away: it is foreign, or takes no write."""
        raw = self.target()
        return raw is not None and ("foreign" in raw["data"] or raw.get("immutable") or raw["type"] != "Opaque")

    @staticmethod
    def is_anothers(raw: Json) -> bool:
        """Whether anybody else has data in it, or a label or annotation that is the operator's."""
        theirs = [entry["fieldsV1"] for entry in raw["metadata"]["managedFields"] if entry["manager"] != MANAGER]
        names = {name for fields in theirs for part in ("labels", "annotations") for name in part_of(fields, part)}
        ours = any(name.startswith(("f:tuinly.com/", "f:app.kubernetes.io/managed-by")) for name in names)
        return ours or any(part_of(fields, "data") for fields in theirs)

    def target(self) -> Json | None:
        return self.api.secrets.get(self.target_key())

    def token_in(self, raw: Json | None) -> Issued | None:
        """The token in what the operator wrote: what others copied stays theirs, whatever becomes of it."""
        entries = (raw or {"metadata": {}})["metadata"].get("managedFields") or []
        ours = next((part_of(entry["fieldsV1"], "data") for entry in entries if entry["manager"] == MANAGER), {})
        for name, value in (raw or {}).get("data", {}).items():
            text = base64.b64decode(value).decode().removeprefix("Bearer ")
            if f"f:{name}" in ours and (token := self.endpoint.find(text)) is not None:
                return token
        return None

    def held(self) -> Issued | None:
        return self.token_in(self.target())

    def condition(self, kind: str) -> str | None:
        status = self.api.credentials.get(CREDENTIAL, {}).get("status", {})
        return next((c["status"] for c in status.get("conditions", []) if c["type"] == kind), None)

    def annotation(self, name: str) -> str | None:
        value: str | None = ((self.target() or {}).get("metadata", {}).get("annotations") or {}).get(
            f"tuinly.com/{name}"
        )
        return value

    def requested(self) -> str:
        return str(self.api.credentials[CREDENTIAL]["metadata"]["annotations"].get(REFRESH_REQUESTED, ""))

    def client_secret_version(self) -> str | None:
        raw = self.api.secrets.get(CLIENT_SECRET)
        return f"{raw['metadata']['uid']}/{raw['metadata']['resourceVersion']}" if raw else None

    def api_failed_lately(self) -> bool:
        """Whether the operator may still be waiting to try again what the API server failed.

        After an outage that is five seconds at most. Where only requests fail it waits longer each time.
        """
        record = self.process.store.get(CREDENTIAL)
        refusal = record.memory.refusal if record else None
        waits = refusal is not None and not refusal.retry.due(self.world.now())
        return waits or not self.api.reachable or self.world.boot - self.api.failed_at < 6

    def up_to_date(self) -> bool:
        """Whether the status can be expected to be: the operator could write it, and has."""
        raw = self.api.credentials[CREDENTIAL]
        return not self.api_failed_lately() and raw["status"].get("observedGeneration") == raw["metadata"]["generation"]


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=100,
    stateful_step_count=50,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
