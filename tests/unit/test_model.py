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
    CLIENT_SECRET,
    CREDENTIAL,
    FORBIDDEN_URL,
    OTHER_URL,
    FakeApi,
    FakeEndpoint,
    FakeEvents,
    Issued,
    Json,
    LogKeeper,
    Process,
    World,
    Write,
)
from tuinly_operator.answers import Verdict
from tuinly_operator.clock import parse_rfc3339
from tuinly_operator.credential import REFRESH_REQUESTED, Key
from tuinly_operator.kube import ApiFailure
from tuinly_operator.schedule import MIN_LEAD

MOODS = ["good", "good", "down", "throttles", "garbage", "refuses refreshes", "narrows", "repeats"]
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
SECRETS = ["canary-secret-1", "canary-secret-2"]


class Life(RuleBasedStateMachine):
    """The life of one credential."""

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.log = LogKeeper()
        logging.getLogger("tuinly_operator").addHandler(self.log)
        logging.getLogger("tuinly_operator").setLevel(logging.DEBUG)
        self.world, self.events = World(), FakeEvents()
        self.api = FakeApi(self.world)
        self.endpoint = FakeEndpoint(self.world, {"shop": SECRETS[0]})
        self.forced = 0
        self.checked = 0  # writes that have been judged
        self.api.put_secret(CLIENT_SECRET, {"client_id": "shop", "client_secret": SECRETS[0]})
        self.api.put_credential(CREDENTIAL, self.spec({}))
        self.process = Process(self.world, self.api, self.endpoint, self.events)
        self.work()

    def teardown(self) -> None:
        logging.getLogger("tuinly_operator").removeHandler(self.log)
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
        """In small steps, as for a running process: it is woken when something is due."""
        for _ in range(20):
            self.world.pass_time(seconds / 20)
            self.work()

    @rule(hours=st.sampled_from([-1, 1]))
    def the_wall_clock_jumps(self, hours: int) -> None:
        self.world.wall += hours * 3600
        self.work()

    @rule(seconds=st.sampled_from([600, 4000]))
    def the_machine_sleeps(self, seconds: int) -> None:
        self.world.pass_time(seconds)
        self.work()

    @rule(mood=st.sampled_from(MOODS))
    def the_endpoint_changes_its_mood(self, mood: str) -> None:
        self.endpoint.mood = mood

    @rule(lifetime=st.sampled_from([60, 600, 3600, 86_400]), refresh_tokens=st.booleans())
    def the_endpoint_changes_its_ways(self, lifetime: int, refresh_tokens: bool) -> None:  # noqa: FBT001 -- drawn
        self.endpoint.lifetime, self.endpoint.gives_refresh_tokens = lifetime, refresh_tokens

    @rule(verdict=st.sampled_from(Verdict))
    def graphql_changes_its_mind(self, verdict: Verdict) -> None:
        self.endpoint.graphql = verdict

    @precondition(lambda self: CREDENTIAL in self.api.credentials)
    @rule(more=st.sampled_from(SPECS))
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
    @rule(what=st.sampled_from(["edit", "remove a key", "add a key", "delete", "immutable", "foreign"]))
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
            raw["immutable"] = True
            self.api.label_secret(key)
        else:
            self.api.remove_secret(key)
            if what == "foreign":
                self.api.put_secret(key, {"foreign": "untouchable"})
        self.work()

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
        self.api.put_credential(CREDENTIAL, self.spec(more))
        self.work()

    # --- What must be true: the promises ------------------------------------------------------------------------------

    @rule()
    def all_is_well_and_time_passes(self) -> None:
        """Freshness: once everything works for a while, Ready tells of a valid token for what is asked."""
        self.endpoint.mood, self.endpoint.graphql, self.endpoint.lifetime = "good", Verdict.ACCEPTED, 3600
        self.api.reachable = True
        self.api.failures.clear()
        self.endpoint.clients["shop"] = SECRETS[0]
        self.api.put_secret(CLIENT_SECRET, {"client_id": "shop", "client_secret": SECRETS[0]})
        if (raw := self.target()) is not None and "foreign" in raw["data"]:
            self.api.remove_secret(self.target_key())
        self.work()
        for _ in range(200):  # longer than the longest wait of five minutes
            self.world.pass_time(2)
            self.work()
        spec = self.api.credentials.get(CREDENTIAL, {}).get("spec")
        if spec is None or spec.get("suspend") or "delivery" in spec or spec.get("tokenURL") == FORBIDDEN_URL:
            return
        token = self.held()
        assert token is not None
        assert token.expires > self.world.boot
        assert self.condition("Ready") == "True"
        assert token.scopes == frozenset(spec.get("scopes", []))

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
        token = self.held()
        assert token is not None, "Ready without a token"
        assert token.expires >= self.world.boot - 2
        spec = self.api.credentials[CREDENTIAL]["spec"]
        assert token.url == spec.get("tokenURL", token.url)

    @invariant()
    def every_write_is_an_improvement(self) -> None:
        """Never worse: a good token only gives way to one that lives longer and may do as much, unless users ask."""
        writes = self.api.writes[self.checked :] if hasattr(self, "api") else []
        self.checked = len(self.api.writes) if hasattr(self, "api") else 0
        for write in writes:
            assert "finalizers" not in (write.after or {}).get("metadata", {})  # removable
            self.check_target_write(write) if write.kind == "target" else None

    @invariant()
    def secrets_stay_where_they_belong(self) -> None:
        """Closed: nothing that tells of a credential holds a secret."""
        if not hasattr(self, "api"):
            return
        told: list[Any] = [raw["status"] for raw in self.api.credentials.values()]
        told += [raw["metadata"] for raw in self.api.secrets.values()]
        told += [event.message for event in self.events.sent] + self.log.lines
        assert "canary" not in json.dumps(told)
        self.log.lines.clear()

    # --- Looks --------------------------------------------------------------------------------------------------------

    def check_target_write(self, write: Write) -> None:
        assert write.before is None or "foreign" not in write.before["data"], "a foreign Secret was overwritten"
        if write.after is None:
            return
        old, new = self.token_in(write.before), self.token_in(write.after)
        assert new is not None, "something was written that the ledger never issued"
        if old is None or old.value == new.value or old.expires - self.world.boot < MIN_LEAD:
            return
        assert write.before is not None
        before, after = (raw["metadata"]["annotations"] for raw in (write.before, write.after))
        names = ("exchange-inputs", "client-secret-version", "handled-refresh", "credential-uid")
        if any(before.get(f"tuinly.com/{name}") != after.get(f"tuinly.com/{name}") for name in names):
            return
        if write.before["metadata"]["managedFields"][-1]["manager"] != "tuinly-operator":
            return  # it was tampered with
        issued, expires = (parse_rfc3339(before[f"tuinly.com/{name}"]) for name in ("issued-at", "expires-at"))
        if not issued - 60 <= self.world.wall < expires - MIN_LEAD:
            return  # by the wall clock, which had jumped, it was not to be believed, or about to end
        assert new.expires >= old.expires - 1
        assert new.scopes >= old.scopes

    def target_key(self) -> Key:
        raw = self.api.credentials.get(CREDENTIAL)
        name = (raw or {}).get("spec", {}).get("target", {}).get("name") or f"{CREDENTIAL.name}-token"
        return Key(CREDENTIAL.namespace, name)

    def target(self) -> Json | None:
        return self.api.secrets.get(self.target_key())

    def token_in(self, raw: Json | None) -> Issued | None:
        for value in (raw or {}).get("data", {}).values():
            text = base64.b64decode(value).decode().removeprefix("Bearer ")
            if (token := self.endpoint.find(text)) is not None:
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
        """Whether the operator may still be waiting to try again what the API server failed: five seconds at most."""
        return not self.api.reachable or self.world.boot - self.api.failed_at < 6

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
