"""What a replica does whose watch of credentials is late: at a takeover, and while it leads."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.unit.shop import HOUR, TARGET, Shop
from tests.unit.world import CLIENT_SECRET, CREDENTIAL, Json, Process
from tuinly_operator.base.names import NamespacedName
from tuinly_operator.domain.credential import REFRESH_REQUESTED, Revision
from tuinly_operator.domain.target import SecretMeta

DUE = HOUR * 2 // 3 + 20  # seconds after the issue, jitter and lead included
RENAMED = NamespacedName(CREDENTIAL.namespace, "renamed")
SPEC: Json = {"clientSecretRef": {"name": CLIENT_SECRET.name}}


class Pair(Shop):
    """A leader, and a standby whose watch of credentials is late."""

    standby: Process

    async def begin(self) -> None:
        """Issue the first token, and have the standby see it."""
        await self.process.work()
        self.standby = self.start()
        self.standby.late = True
        self.use(self.process)

    def use(self, process: Process) -> None:
        """Go on with one of the two; it sees at once what changes of the Secrets."""
        self.process = process
        self.api.changed = process.secret_changed

    async def take_over(self, *, sees_secrets: bool = True) -> None:
        """Have the standby lead, and do all there is to do."""
        self.use(self.standby)
        if sees_secrets:
            for key in {*self.api.secrets, TARGET}:
                self.standby.secret_changed(key)
        self.standby.store.start_afresh()
        await self.standby.work()

    def edit(self, annotations: Json | None = None, **more: Any) -> None:  # noqa: ANN401 -- JSON
        """Change the credential; only a watch in time shows it."""
        self.api.put_credential(CREDENTIAL, SPEC | more, annotations)
        self.process.credentials_changed()

    async def make_again(self) -> None:
        """Delete the credential, make it again, and have the leader issue a token for the new one."""
        del self.api.credentials[CREDENTIAL]
        self.process.credentials_changed()
        await self.process.work()
        self.edit()
        await self.process.work()
        assert self.annotation("credential-uid") == self.uid()

    def uid(self) -> str:
        return str(self.api.credentials[CREDENTIAL]["metadata"]["uid"])


@pytest.fixture
async def pair() -> Pair:
    pair = Pair()
    await pair.begin()
    return pair


# --- Which credential owns the target ---------------------------------------------------------------------------------


@pytest.mark.rule("OWN-16")
@pytest.mark.parametrize("sees_secrets", [True, False])
async def test_a_former_credential_does_not_take_the_target_of_its_successor(pair: Pair, *, sees_secrets: bool) -> None:
    await pair.make_again()
    raw, requests = pair.api.secrets[TARGET], len(pair.endpoint.requests)
    await pair.take_over(sees_secrets=sees_secrets)
    assert pair.api.secrets[TARGET] == raw
    assert len(pair.endpoint.requests) == requests


async def test_a_target_that_the_successor_has_got_meanwhile_costs_no_other_token(pair: Pair) -> None:
    """The watch of credentials is in time, that of Secrets is late."""
    await pair.make_again()
    raw, requests = pair.api.secrets[TARGET], len(pair.endpoint.requests)
    pair.standby.late = False
    pair.standby.credentials_changed()
    await pair.take_over(sees_secrets=False)
    assert pair.api.secrets[TARGET] == raw
    assert len(pair.endpoint.requests) == requests


async def test_a_token_that_was_refreshed_meanwhile_is_not_refreshed_again(pair: Pair) -> None:
    await pair.pass_time(DUE)
    raw, requests = pair.api.secrets[TARGET], len(pair.endpoint.requests)
    await pair.take_over(sees_secrets=False)
    assert pair.api.secrets[TARGET] == raw
    assert len(pair.endpoint.requests) == requests == 2


@pytest.mark.rule("OWN-16")
async def test_the_successor_is_served_before_the_watch_shows_it(pair: Pair) -> None:
    await pair.make_again()
    await pair.take_over()
    assert pair.record().credential.uid == pair.uid()
    await pair.pass_time(DUE)
    assert pair.token() == pair.endpoint.ledger[2].value


@pytest.mark.rule("OWN-16")
async def test_a_leader_does_not_take_the_target_of_a_successor_either(pair: Pair) -> None:
    """It remembers a token, and takes the other owner for damage."""
    mine, other = pair.process, pair.start()
    pair.use(other)
    await pair.make_again()
    raw, mine.late = pair.api.secrets[TARGET], True
    pair.use(mine)
    mine.secret_changed(TARGET)
    await mine.work()
    assert pair.api.secrets[TARGET] == raw
    assert pair.record().credential.uid == pair.uid()


def delete(pair: Pair) -> None:
    pair.api.credentials[CREDENTIAL]["metadata"] |= {"deletionTimestamp": "2026-11-24T07:00:00Z", "finalizers": ["a"]}


def deselect(pair: Pair) -> None:
    del pair.api.credentials[CREDENTIAL]


@pytest.mark.rule("OWN-16")
@pytest.mark.parametrize("ends", [delete, deselect])
async def test_a_successor_that_is_deleted_or_not_selected_is_not_served(
    pair: Pair, ends: Callable[[Pair], None]
) -> None:
    await pair.make_again()
    ends(pair)
    raw, writes = pair.api.secrets[TARGET], len(pair.api.writes)
    await pair.take_over()
    await pair.pass_time(DUE)
    assert pair.api.secrets[TARGET] == raw
    assert len(pair.api.writes) == writes


# --- Which spec counts ------------------------------------------------------------------------------------------------


@pytest.mark.rule("REPL-13")
async def test_a_former_spec_does_not_bring_back_a_former_target(pair: Pair) -> None:
    pair.edit(target={"name": RENAMED.name})
    await pair.process.work()
    raw, requests, writes = pair.api.secrets[RENAMED], len(pair.endpoint.requests), len(pair.api.writes)
    await pair.take_over()
    assert pair.api.secrets.get(RENAMED) == raw
    assert TARGET not in pair.api.secrets
    assert len(pair.endpoint.requests) == requests
    assert len(pair.api.writes) == writes


@pytest.mark.rule("REPL-13")
async def test_a_former_spec_with_other_scopes_makes_no_token_request(pair: Pair) -> None:
    pair.edit(scopes=["a"])
    await pair.process.work()
    assert len(pair.endpoint.requests) == 2
    await pair.take_over()
    assert len(pair.endpoint.requests) == 2
    assert pair.record().credential.spec.scopes == {"a"}


@pytest.mark.rule("REPL-13")
async def test_no_status_is_written_from_a_former_spec(pair: Pair) -> None:
    """Its target shows a token of which the status, as the standby knows it, does not tell."""
    pair.edit(scopes=["a"])
    await pair.process.work()
    pair.edit(scopes=["a"], suspend=True)
    await pair.process.work()
    status, writes = pair.status(), len(pair.api.writes)
    await pair.take_over()
    assert pair.status() == status
    assert len(pair.api.writes) == writes


@pytest.mark.rule("REPL-14")
async def test_a_status_that_was_written_meanwhile_is_not_overwritten(pair: Pair) -> None:
    """The list shows the same spec; what the status says of the last grant, only the leader before knew."""
    await pair.pass_time(DUE)
    status, writes = pair.status(), len(pair.api.writes)
    meta = pair.api.credentials[CREDENTIAL]["metadata"]
    pair.standby.store.start_afresh()
    pair.use(pair.standby)
    pair.standby.secret_changed(TARGET)
    pair.standby.store.credential_shown(CREDENTIAL, Revision.of(meta), meta["resourceVersion"])
    await pair.standby.work()
    assert pair.status() == status
    assert len(pair.api.writes) == writes


@pytest.mark.rule("REPL-13")
async def test_an_exchange_that_was_forced_meanwhile_is_not_forced_twice(pair: Pair) -> None:
    await pair.pass_time(20)
    pair.edit({REFRESH_REQUESTED: "now"})
    await pair.process.work()
    await pair.pass_time(20)
    await pair.take_over()
    assert len(pair.endpoint.requests) == 2
    assert pair.record().credential.refresh_requested == "now"


@pytest.mark.rule("REPL-13")
async def test_what_rests_at_a_takeover_costs_no_read(pair: Pair) -> None:
    requests = pair.api.requests
    await pair.take_over()
    await pair.pass_time(60)
    assert pair.api.requests == requests


@pytest.mark.rule("REPL-13")
async def test_the_first_act_after_a_takeover_costs_one_read(pair: Pair) -> None:
    finds = pair.api.finds
    await pair.take_over()
    await pair.pass_time(DUE)
    assert pair.api.finds == finds + 1
    await pair.pass_time(DUE)
    assert pair.api.finds == finds + 1
    assert len(pair.endpoint.ledger) == 3


@pytest.mark.rule("OUT-8")
async def test_the_answer_to_a_status_shows_a_change_that_the_watch_has_not_brought(pair: Pair) -> None:
    pair.process.late = True
    pair.edit(scopes=["a"])
    pair.api.edit_secret(TARGET, "access_token", "spoilt")
    pair.api.remove_secret(CLIENT_SECRET)
    await pair.pass_time(1)
    assert pair.record().credential.spec.scopes == {"a"}


@pytest.mark.rule("OWN-17")
async def test_before_an_old_target_is_deleted_the_credential_is_read(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name is taken back while the new target is written, and the watch does not show it."""
    apply, before = pair.api.apply_secret, pair.api.secrets[TARGET]["metadata"]["uid"]

    async def take_back(key: NamespacedName, manifest: Mapping[str, Any]) -> SecretMeta:
        meta = await apply(key, manifest)
        if key == RENAMED:
            pair.process.late = True
            pair.edit()
        return meta

    monkeypatch.setattr(pair.api, "apply_secret", take_back)
    pair.edit(target={"name": RENAMED.name})
    await pair.process.work()
    assert pair.api.secrets[TARGET]["metadata"]["uid"] == before
    assert RENAMED not in pair.api.secrets


# --- Credentials whose targets outlive them ---------------------------------------------------------------------------


@pytest.fixture
async def retained() -> Pair:
    pair = Pair()
    pair.edit(target={"deletionPolicy": "Retain"})
    await pair.begin()
    return pair


@pytest.mark.rule("WRITE-9")
async def test_a_deleted_credential_with_retain_gets_no_refresh_while_the_watch_is_late(retained: Pair) -> None:
    raw, requests = retained.api.secrets[TARGET], len(retained.endpoint.requests)
    retained.process.late = True
    del retained.api.credentials[CREDENTIAL]
    await retained.pass_time(DUE)
    assert len(retained.endpoint.requests) == requests
    assert retained.api.secrets[TARGET] == raw


@pytest.mark.rule("WRITE-9")
async def test_a_refresh_with_retain_costs_one_read_of_the_credential(retained: Pair) -> None:
    finds = retained.api.finds
    await retained.pass_time(DUE)
    assert len(retained.endpoint.ledger) == 2
    assert retained.api.finds == finds + 1
