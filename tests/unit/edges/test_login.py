"""Logins to the API server and their renewal: in virtual time, and with plugins that are real processes."""

import asyncio
import json
import logging
import shlex
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import trustme
from aiohttp import test_utils, web
from kubernetes.aio import client, config
from kubernetes.aio.config import incluster_config

from tests.support.exec_plugin import VERSION, Plugin, kubeconfig
from tests.support.pki import Authority
from tests.support.process_identity import identity
from tests.unit.virtual import VirtualClock, live
from tuinly_operator.base.clock import Moment, rfc3339
from tuinly_operator.edges.kube import ApiFailure, Kube, KubeconfigError, connect, login
from tuinly_operator.edges.kube.login import Renewal

NOW = 1_800_000_000.0


# --- When -------------------------------------------------------------------------------------------------------------


class Loads:
    """What loads a login: when it did, and what it does."""

    def __init__(self) -> None:
        self.at: list[float] = []
        self.refused: list[bool] = []
        self.token = "one"
        self.hangs = False

    async def __call__(self, configuration: client.Configuration, refused: bool) -> None:  # noqa: FBT001 -- as it is called
        self.at.append(round(asyncio.get_running_loop().time(), 3))
        self.refused.append(refused)
        if self.hangs:
            await asyncio.Event().wait()
        configuration.api_key["BearerToken"] = self.token


@pytest.mark.rule("LOGIN-1")
def test_a_login_is_renewed_once_a_minute_by_a_clock_that_nothing_sets() -> None:
    async def story() -> None:
        loads = Loads()
        task = asyncio.create_task(Renewal(loads, "it").run())
        await asyncio.sleep(200)
        task.cancel()
        assert loads.at == [60, 120, 180]

    live(story())


@pytest.mark.rule("LOGIN-1")
def test_a_refused_login_is_renewed_at_once_and_then_less_and_less_often(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        loads = Loads()
        renewal = Renewal(loads, "it")
        assert not await renewal.renew()
        task = asyncio.create_task(renewal.run())
        for _ in range(200):
            await asyncio.sleep(0.5)
            renewal.refused("one")
        task.cancel()
        assert loads.at[:2] == [0, 0.5]
        assert all(loads.refused[1:])
        pauses = [later - earlier for earlier, later in zip(loads.at[1:], loads.at[2:], strict=False)]
        assert pauses == sorted(pauses)
        assert 30 <= pauses[-1] < 31

    live(story())
    assert [record.message for record in caplog.records] == [
        "the API server refused the login (401 Unauthorized), renewing it"
    ]


@pytest.mark.rule("LOGIN-1")
def test_the_refusal_of_a_login_that_was_renewed_meanwhile_renews_nothing() -> None:
    async def story() -> None:
        loads = Loads()
        renewal = Renewal(loads, "it")
        await renewal.renew()
        task = asyncio.create_task(renewal.run())
        renewal.refused("zero")
        renewal.refused(None)
        await asyncio.sleep(59)
        task.cancel()
        assert loads.at == [0]

    live(story())


@pytest.mark.rule("LOGIN-4")
def test_a_renewal_that_hangs_is_given_up_reported_once_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def story() -> None:
        loads = Loads()
        renewal = Renewal(loads, "the kubeconfig a")
        task = asyncio.create_task(renewal.run())
        loads.hangs = True
        await asyncio.sleep(200)
        assert renewal.trouble.startswith("the kubeconfig a gave no login within 15 s")
        pauses = [later - earlier - 15 for earlier, later in zip(loads.at, loads.at[1:], strict=False)]
        assert pauses == [1, 2, 4, 8, 16]
        loads.hangs = False
        await asyncio.sleep(60)
        assert renewal.trouble == ""
        task.cancel()

    live(story())
    assert [record.message for record in caplog.records] == [
        "cannot renew the login, going on with the last one",
        "the login is renewed again",
    ]


# --- Exec plugins -----------------------------------------------------------------------------------------------------


class Guarded:
    """An API server that knows one login."""

    def __init__(self) -> None:
        self.token = "one"
        self.app = web.Application()
        self.app.router.add_get("/{path:.*}", self._answer)

    async def _answer(self, request: web.Request) -> web.Response:
        known = request.headers.get("Authorization", "").lower() == f"bearer {self.token}"
        return web.json_response({"reason": "Word"}, status=200 if known else 401)


@pytest.fixture
async def guarded() -> AsyncIterator[tuple[Guarded, str]]:
    server = Guarded()
    async with test_utils.TestServer(server.app) as running:
        yield server, str(running.make_url(""))


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 -- nothing tells of it
            await asyncio.sleep(0.02)


async def until_accepted(api: Kube) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                await api.check_ready()
            except ApiFailure:
                await asyncio.sleep(0.02)
            else:
                return


@pytest.mark.rule("LOGIN-1")
async def test_requests_use_the_last_login_while_a_plugin_hangs_until_it_is_killed(
    guarded: tuple[Guarded, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, address = guarded
    plugin = Plugin(tmp_path, address)
    plugin.prints(token="one", expirationTimestamp="2000-01-01T00:00:00Z")  # so each renewal runs it
    monkeypatch.setattr(login, "_RENEW_SECONDS", 0.1)
    monkeypatch.setattr(login, "_LIMIT", 2.0)
    api = await connect(plugin.kubeconfig)
    renewing = asyncio.create_task(api.renew_login())
    try:
        plugin.hangs()
        await until(plugin.hanging)
        await api.check_ready()
        assert (await api.login()).authorization == "Bearer one"
        await until(lambda: api.login_trouble)
        await until(lambda: not any(map(identity, plugin.hanging())))  # the plugin and its child
        await api.check_ready()
        plugin.goes_on()
        plugin.prints(token="two")
        server.token = "two"
        await until_accepted(api)
        await until(lambda: not api.login_trouble)
    finally:
        renewing.cancel()
        await api.close()


@pytest.mark.rule("LOGIN-3")
async def test_a_refused_login_makes_the_api_server_out_of_reach_until_it_is_renewed(
    guarded: tuple[Guarded, str], tmp_path: Path
) -> None:
    """Without a login nothing can be written, so no token is requested meanwhile, and no credential has failed."""
    server, address = guarded
    plugin = Plugin(tmp_path, address)
    plugin.prints(token="one")
    api = await connect(plugin.kubeconfig)
    try:
        server.token = "two"
        with pytest.raises(ApiFailure, match="no answer from the API server: NotReady"):
            await api.serves_credentials()
        assert not api.reachable
        plugin.prints(token="two")
        renewing = asyncio.create_task(api.renew_login())
        await until_accepted(api)
        renewing.cancel()
        assert api.reachable
    finally:
        await api.close()


@pytest.mark.rule("LOGIN-7")
async def test_a_plugin_that_hangs_at_the_start_ends_it_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(login, "_LIMIT", 0.5)
    plugin = Plugin(tmp_path)
    plugin.hangs()
    with pytest.raises(KubeconfigError, match=r"^the kubeconfig \S+ gave no login within .* check its exec plugin"):
        await connect(plugin.kubeconfig)
    await until(lambda: not any(map(identity, plugin.hanging())))


@pytest.mark.rule("LOGIN-5")
@pytest.mark.parametrize(
    ("does", "says"),
    [
        ("exit 3", "failed with exit status 3"),
        ("kill -9 $$", "failed with exit status -9"),
        ("true", "printed no login of"),
        ("echo canary", "printed no login of"),
        ("echo '[]'", "printed no login of"),
        ("""echo '{"apiVersion": "canary", "status": {"token": "canary"}}'""", "printed no login of"),
        (f"""echo '{{"apiVersion": "{VERSION}", "status": {{}}}}'""", "printed no login of"),
        ("while :; do echo canary-canary-canary-canary-canary-canary; done", "failed with exit status -9"),
    ],
)
async def test_a_plugin_that_gives_no_login_is_named_without_what_it_printed(
    tmp_path: Path, does: str, says: str
) -> None:
    plugin = Plugin(tmp_path)
    plugin.does(does)
    with pytest.raises(KubeconfigError) as failed:
        await connect(plugin.kubeconfig)
    assert f"names the exec plugin {tmp_path}/plugin, which {says}" in str(failed.value)
    assert "canary" not in str(failed.value).replace(str(tmp_path), "")


@pytest.mark.rule("LOGIN-5")
async def test_a_missing_plugin_is_named(tmp_path: Path) -> None:
    plugin = Plugin(tmp_path)
    (tmp_path / "plugin").unlink()
    with pytest.raises(KubeconfigError, match=r"plugin, which cannot be run: No such file or directory$"):
        await connect(plugin.kubeconfig)


@pytest.mark.rule("LOGIN-5")
async def test_a_plugin_gets_the_version_to_print_and_the_variables_of_the_kubeconfig(tmp_path: Path) -> None:
    plugin = Plugin(tmp_path)
    printed = json.dumps({"apiVersion": VERSION, "status": {"token": "%s"}})
    plugin.does(f'echo "$KUBERNETES_EXEC_INFO" > {tmp_path}/info\nprintf {shlex.quote(printed)} "$SEEN"')
    api = await connect(plugin.kubeconfig)
    try:
        assert (await api.login()).authorization == "Bearer canary"
    finally:
        await api.close()
    told = json.loads((tmp_path / "info").read_text())
    assert told == {"apiVersion": VERSION, "kind": "ExecCredential", "spec": {"interactive": False}}


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.moment = Moment(NOW, 1_000.0)

    def now(self) -> Moment:
        return self.moment


@pytest.mark.rule("LOGIN-2", "LOGIN-5")
@pytest.mark.parametrize("moved", ["wall", "boot"])
async def test_a_plugin_is_run_again_before_the_end_of_its_login_by_either_clock(tmp_path: Path, moved: str) -> None:
    """A wall clock that was set back postpones nothing."""
    plugin, clock = Plugin(tmp_path), Clock()
    plugin.prints(token="one", expirationTimestamp=rfc3339(NOW + 900))
    renewal = Renewal(login._Kubeconfig(plugin.kubeconfig, clock).load, "it")  # noqa: SLF001 -- with a clock of ours
    for _ in range(3):
        assert not await renewal.renew()
    assert plugin.runs == 1
    back = -3600.0 if moved == "boot" else 601.0
    clock.moment = Moment(NOW + back, 1_000.0 + (601.0 if moved == "boot" else 0.0))
    assert not await renewal.renew()
    assert plugin.runs == 2


@pytest.mark.rule("LOGIN-5")
@pytest.mark.parametrize(("life", "runs"), [(400, [1, 2, 2, 3]), (None, [1, 1, 1, 1])], ids=["short", "without an end"])
async def test_a_plugin_is_run_no_more_often_than_its_logins_ask_for(
    tmp_path: Path, life: int | None, runs: list[int]
) -> None:
    plugin, clock, seen = Plugin(tmp_path), Clock(), []
    renewal = Renewal(login._Kubeconfig(plugin.kubeconfig, clock).load, "it")  # noqa: SLF001 -- the same
    for minutes in (0, 4, 5, 8):
        wall = NOW + 60 * minutes
        clock.moment = Moment(wall, 1_000.0 + 60 * minutes)
        plugin.prints(token="one", **({"expirationTimestamp": rfc3339(wall + life)} if life else {}))
        assert not await renewal.renew()
        seen.append(plugin.runs)
    assert seen == runs


@pytest.mark.rule("LOGIN-5")
async def test_an_answer_of_a_plugin_replaces_the_last_one_whole_or_not_at_all(tmp_path: Path) -> None:
    plugin = Plugin(tmp_path, "https://127.0.0.1:1")
    renewal = Renewal(login._Kubeconfig(plugin.kubeconfig, VirtualClock()).load, "it")  # noqa: SLF001 -- the same
    certificate, ended = {"clientCertificateData": "certificate", "clientKeyData": "key"}, "2000-01-01T00:00:00Z"
    plugin.prints(token="one", expirationTimestamp=ended, **certificate)
    assert not await renewal.renew()
    assert renewal.configuration.cert_file
    plugin.prints(token="two", expirationTimestamp="never")
    assert await renewal.renew()
    assert renewal.configuration.cert_file
    plugin.prints(token="three", expirationTimestamp=ended)
    assert not await renewal.renew()
    assert renewal.configuration.api_key == {"BearerToken": "Bearer three"}
    assert not renewal.configuration.cert_file


@pytest.mark.rule("LOGIN-5")
async def test_a_plugin_is_run_again_once_its_login_is_refused(tmp_path: Path) -> None:
    plugin = Plugin(tmp_path)
    plugin.prints(token="one", expirationTimestamp="2999-01-01T00:00:00Z")
    renewal = Renewal(login._Kubeconfig(plugin.kubeconfig, VirtualClock()).load, "it")  # noqa: SLF001 -- the same
    await renewal.renew()
    renewal.refused("Bearer one")
    plugin.prints(token="two")
    assert not await renewal.renew()
    assert renewal.configuration.api_key == {"BearerToken": "Bearer two"}


@pytest.mark.rule("LOGIN-6")
async def test_new_connections_use_the_certificate_that_replaces_a_refused_one(tmp_path: Path) -> None:
    """A connection that is kept has the certificate that it began with."""
    authority, known = trustme.CA(), ""

    async def answer(request: web.Request) -> web.Response:
        assert request.transport is not None
        [[(_, name)]] = [
            part for part in request.transport.get_extra_info("peercert")["subject"] if "Unit" in part[0][0]
        ]
        return web.json_response({}, status=200 if name == known else 401)

    def give(name: str) -> None:
        nonlocal known
        known, pair = name, authority.issue_cert("operator", organization_unit_name=name)
        certificate, key = pair.cert_chain_pems[0].bytes().decode(), pair.private_key_pem.bytes().decode()
        plugin.prints(clientCertificateData=certificate, clientKeyData=key)

    app = web.Application()
    app.router.add_get("/readyz", answer)
    running, context = (
        test_utils.TestServer(app, scheme="https"),
        Authority.create(tmp_path).server_context("127.0.0.1"),
    )
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    await running.start_server(ssl=context)
    plugin = Plugin(tmp_path, str(running.make_url("")), **{"certificate-authority": str(tmp_path / "ca.pem")})
    give("one")
    api = await connect(plugin.kubeconfig)
    renewing = asyncio.create_task(api.renew_login())
    try:
        await api.check_ready()
        give("two")
        await until_accepted(api)
    finally:
        renewing.cancel()
        await api.close()
        await running.close()


# --- Files ------------------------------------------------------------------------------------------------------------


@pytest.mark.rule("LOGIN-8")
async def test_a_kubeconfig_may_have_a_colon_in_its_path(tmp_path: Path) -> None:
    """It is one file, as with kubectl; the names in it are relative to its folder."""
    folder = tmp_path / "a:b"
    folder.mkdir()
    (folder / "token").write_text("one")
    path = folder / "config:1"
    path.write_text(json.dumps(kubeconfig("http://127.0.0.1:1", {"tokenFile": "token"})))
    api = await connect(path)
    try:
        assert (await api.login()).authorization == "Bearer one"
    finally:
        await api.close()


@pytest.mark.rule("LOGIN-8")
async def test_the_variable_of_kubectl_may_name_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = kubeconfig("http://127.0.0.1:1", {"token": "one"})
    users, rest = tmp_path / "users", tmp_path / "rest"
    users.write_text(json.dumps({"users": whole.pop("users")}))
    rest.write_text(json.dumps(whole))
    monkeypatch.setattr(config, "KUBE_CONFIG_DEFAULT_LOCATION", f"{users}:{tmp_path}/nowhere:{rest}")
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    api = await connect(None)
    try:
        assert (await api.login()).authorization == "Bearer one"
    finally:
        await api.close()


@pytest.mark.rule("LOGIN-8")
async def test_a_missing_default_kubeconfig_is_an_error_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "nowhere"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(KubeconfigError, match="nowhere cannot be read: No such file or directory"):
        await connect(None)


@pytest.mark.rule("LOGIN-2")
async def test_the_token_of_a_service_account_is_read_again_once_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by the wall clock, which may be set back."""
    authority, token, server = Authority.create(tmp_path), tmp_path / "token", Guarded()
    token.write_text("one")
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(authority.ca_file))
    running = test_utils.TestServer(server.app, scheme="https")
    await running.start_server(ssl=authority.server_context("127.0.0.1"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(running.port))
    api = await connect(None)
    renewing = asyncio.create_task(api.renew_login())
    try:
        await api.check_ready()
        token.write_text("two")
        server.token = "two"
        await until_accepted(api)
        assert getattr(api.configuration, "refresh_api_key_hook") is None  # noqa: B009 -- the library's, declared as None
    finally:
        renewing.cancel()
        await api.close()
        await running.close()


@pytest.mark.rule("LOGIN-4")
async def test_a_login_whose_files_are_gone_stays_as_it_was_and_is_reported(tmp_path: Path) -> None:
    """They may be back in a moment, such as where files are replaced."""
    (tmp_path / "token").write_text("one")
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(kubeconfig("http://127.0.0.1:1", {"tokenFile": "token"})))
    renewal = Renewal(login._Kubeconfig(path, VirtualClock()).load, "it")  # noqa: SLF001 -- without a connection
    assert not await renewal.renew()
    (tmp_path / "token").unlink()
    assert await renewal.renew() == "it cannot be read: No such file or directory"
    assert renewal.configuration.api_key == {"BearerToken": "Bearer one"}
    (tmp_path / "token").write_text("two")
    assert not await renewal.renew()
    assert renewal.configuration.api_key == {"BearerToken": "Bearer two"}
