"""The door to the API server, with a program in kubectl's place: what is asked, and what answers mean."""

import json
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from kubectl_tuinly.__main__ import main
from kubectl_tuinly.commands import status as commands
from kubectl_tuinly.commands.evidence import serving
from kubectl_tuinly.edges.access import METADATA_ONLY, Access, RefusedError
from kubectl_tuinly.edges.cluster import Cluster, selected
from kubectl_tuinly.outcome import Exit, StopError
from tests.unit.plugin.objects import GOOD, deployment, seen, told
from tuinly_operator.base.names import NamespacedName

FAKE = Path(__file__).with_name("fake_kubectl.py")
SECRET = "/api/v1/namespaces/shop/secrets/storefront-client"
CREDENTIALS = "/apis/tuinly.com/v1alpha1/namespaces/shop/tuinlycredentials"
DEFINITION = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/tuinlycredentials.tuinly.com"
LEASE = "/apis/coordination.k8s.io/v1/namespaces/tuinly-system/leases/tuinly-operator"
Json = dict[str, Any]
Answer = list[Any]
Install = Callable[..., Path]


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return how to put one on PATH that gives these answers."""

    def install(answers: Json | None = None, **more: object) -> Path:
        file = tmp_path / "answers.json"
        file.write_text(json.dumps({"answers": answers or {}, **more}))
        program = tmp_path / "kubectl"
        program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\nexec {sys.executable} {FAKE} {file} "$@"\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        return tmp_path

    return install


def status(code: int, message: str) -> list[Any]:
    return [code, {"kind": "Status", "message": message}]


def asked(folder: Path) -> list[Any]:
    return [json.loads(line) for line in (folder / "answers.asked").read_text().splitlines()]


@pytest.mark.rule("PLUGIN-8")
def test_of_a_secret_metadata_alone_is_asked_for(kubectl: Install) -> None:
    folder = kubectl({SECRET: [[200, {"metadata": {}}]]})
    with Access([]) as access:
        assert Cluster(access).secret_metadata(NamespacedName("shop", "storefront-client")) == {"metadata": {}}
    assert asked(folder) == [[SECRET, METADATA_ONLY]]


@pytest.mark.rule("PLUGIN-1")
def test_the_logins_flags_go_to_kubectl_and_the_socket_is_ours_alone(kubectl: Install) -> None:
    folder = kubectl({SECRET: [[200, {}]]})
    with Access(["--context", "mine", "--as", "vera"]) as access:
        access.get(SECRET)
        [call] = (folder / "calls").read_text().splitlines()
        place = Path(call.split("--unix-socket=")[1].split()[0])
        assert call.endswith("--context mine --as vera")
        assert place.parent.stat().st_mode & 0o777 == 0o700
    assert not place.parent.exists()


def test_without_a_request_no_kubectl_is_started(kubectl: Install) -> None:
    folder = kubectl()
    with Access([]):
        pass
    assert not (folder / "calls").exists()


def test_a_kubectl_that_has_ended_is_started_again(kubectl: Install) -> None:
    folder = kubectl({SECRET: [[200, {}]]})
    with Access([]) as access:
        access.get(SECRET)
        proxy = cast("subprocess.Popen[bytes]", access._proxy)  # noqa: SLF001 -- to end it
        proxy.kill()
        proxy.wait()
        assert access.get(SECRET) == {}
    assert len((folder / "calls").read_text().splitlines()) == 2


def test_once_it_is_over_no_kubectl_is_started(kubectl: Install) -> None:
    """By the thread that watches, which nobody waits for."""
    folder = kubectl({SECRET: [[200, {}]]})
    with Access([]) as access:
        access.get(SECRET)
    with pytest.raises(StopError, match="has ended"):
        access.get(SECRET)
    assert len((folder / "calls").read_text().splitlines()) == 1


def test_a_long_list_is_read_page_by_page(kubectl: Install) -> None:
    pages = [
        [200, {"metadata": {"continue": "next"}, "items": [{"n": 1}, {"n": 2}]}],
        [200, {"metadata": {}, "items": [{"n": 3}]}],
    ]
    folder = kubectl({CREDENTIALS: pages})
    with Access([]) as access:
        assert [each["n"] for each in access.list(CREDENTIALS)] == [1, 2, 3]
    assert [path.partition("?")[2] for path, _ in asked(folder)] == ["limit=500", "limit=500&continue=next"]


def test_a_watch_gives_events_until_it_ends(kubectl: Install) -> None:
    kubectl({CREDENTIALS: [[200, '{"type": "ADDED"}\n{"type": "DELETED"}\n']]})
    with Access([]) as access:
        assert [event["type"] for event in access.watch(CREDENTIALS)] == ["ADDED", "DELETED"]


class EnoughError(Exception):
    """The test has seen what it waits for."""


LISTED: Answer = [200, {"metadata": {}, "items": [{"metadata": {"namespace": "shop", "name": "storefront"}}]}]
WATCHED: Answer = [200, '{"type": "BOOKMARK"}\n']
AWAY: Answer = [502, "dial tcp 127.0.0.1:1: connect: connection refused"]


def follow(most: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Follow until something was put so often; return the names that were put, and that it stood still."""
    done: list[str] = []

    class Latest(commands._Latest):  # noqa: SLF001 -- has no end by itself
        def put(self, there: dict[str, Json]) -> None:
            done.append(" ".join(there))
            if sum(each != "stands still" for each in done) >= most:
                raise EnoughError

        def stand_still(self) -> None:
            done.append("stands still")

    monkeypatch.setattr(commands, "_AGAIN", 0.0)
    with Access([]) as access, pytest.raises(EnoughError):
        commands._follow(Namespace(names=[], selector=""), Cluster(access), "shop", Latest())  # noqa: SLF001 -- the same
    return done


@pytest.mark.rule("PLUGIN-6")
def test_who_watches_goes_on_through_a_restart_of_the_api_server(
    kubectl: Install, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kubectl({CREDENTIALS: [LISTED, WATCHED, AWAY, [502, AWAY[1].replace(":1", ":2")], status(403, "not yet"), LISTED]})
    assert follow(2, monkeypatch) == ["shop/storefront", *["stands still"] * 3, "shop/storefront"]
    [away_told, refused] = capsys.readouterr().err.splitlines()
    assert away_told.startswith("the API server cannot be reached: dial tcp")
    assert refused.startswith("the API server refuses: not yet")
    assert refused.endswith("; trying again, and showing what was seen last")


@pytest.mark.rule("PLUGIN-6")
def test_who_may_list_but_not_watch_is_told_once(
    kubectl: Install, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kubectl({CREDENTIALS: [*[LISTED, status(403, "no watch")] * 3, LISTED]})
    follow(4, monkeypatch)
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.rule("PLUGIN-6")
def test_what_was_seen_last_is_judged_as_of_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a token that was refreshed meanwhile would be told to have expired."""
    clock = [1000.0]
    monkeypatch.setattr(commands, "now", lambda: clock[0])
    latest = commands._Latest()  # noqa: SLF001 -- what the screen asks
    latest.put({"shop/storefront": told(GOOD, GOOD)})
    for seconds, stands, as_of in ((10.0, False, 1010.0), (10.0, True, 1020.0), (60.0, True, 1020.0)):
        clock[0] += seconds
        if stands:
            latest.stand_still()
        [row] = latest.rows(0.0)
        assert row.now == as_of
    latest.put({"shop/storefront": told(GOOD, GOOD)})
    [row] = latest.rows(0.0)
    assert row.now == 1080.0


@pytest.mark.rule("PLUGIN-1")
@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (status(401, "Unauthorized"), "the API server does not know you; log in again"),
        ([500, "dial tcp 127.0.0.1:1: connect: connection refused"], "cannot be reached: dial tcp"),
        ([502, "getting credentials: exec: executable gke not found\n\nIt looks like"], "reached: getting credentials"),
    ],
)
def test_what_is_no_word_of_the_api_server_ends_the_command(kubectl: Install, answer: list[Any], told: str) -> None:
    kubectl({SECRET: [answer]})
    with Access([]) as access, pytest.raises(StopError, match=told) as stopped:
        access.get(SECRET)
    assert stopped.value.exit_status is Exit.UNCHECKED
    assert "\n" not in str(stopped.value)


def test_a_refusal_that_comes_before_the_request_is_sent_is_told_all_the_same(kubectl: Install) -> None:
    """Who may not change anything is refused at once; the rest of the request finds the connection closed."""
    kubectl({SECRET: [status(403, "you may not")]})
    with Access([]) as access, pytest.raises(RefusedError, match="you may not"):
        access.merge(SECRET, {"data": "x" * 4_000_000})


def test_a_refusal_is_the_api_servers_own_word(kubectl: Install) -> None:
    kubectl({SECRET: [status(403, "secrets is forbidden"), status(404, "not found"), status(500, "etcd hangs")]})
    with Access([]) as access:
        for word, denied, absent in (("forbidden", True, False), ("not found", False, True), ("etcd", False, False)):
            with pytest.raises(RefusedError, match=word) as refused:
                access.get(SECRET)
            assert (refused.value.denied, refused.value.absent) == (denied, absent)


@pytest.mark.rule("PLUGIN-1")
def test_what_a_login_says_is_passed_on_and_what_fails_later_is_not_said_twice(
    kubectl: Install, capfd: pytest.CaptureFixture[str]
) -> None:
    says = [
        "Enter the code ABCD at https://login.example",
        "E1126 02:32:59.8 1 proxy_server.go:147] failed",
        "more of it",
    ]
    kubectl({SECRET: [[500, "failed"]]}, says=says)
    with Access([]) as access, pytest.raises(StopError):
        access.get(SECRET)
    assert capfd.readouterr().err == f"{says[0]}\n"


def test_a_kubectl_that_does_not_start_is_quoted(kubectl: Install, capfd: pytest.CaptureFixture[str]) -> None:
    kubectl(fails='error: context "x" does not exist')
    with Access([]) as access, pytest.raises(StopError, match='kubectl says: context "x" does not exist'):
        access.get(SECRET)
    assert capfd.readouterr().err == ""


def test_a_cluster_without_the_definition_is_told_what_to_apply(kubectl: Install) -> None:
    kubectl({CREDENTIALS: [status(404, "the server could not find the requested resource")]})
    with Access([]) as access, pytest.raises(StopError, match="this cluster does not know TuinlyCredentials"):
        selected(Cluster(access), [], "shop", "")


@pytest.mark.rule("PLUGIN-3")
@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a b", "a?b", "%2e", "ü", "\x1b[2J", "x" * 254])
def test_what_is_no_name_is_nowhere_and_nobody_is_asked(kubectl: Install, name: str) -> None:
    """Names come from what others write, too, such as a Deployment's flags: none may lead to another path."""
    folder = kubectl()
    with Access([]) as access:
        assert Cluster(access).lease(NamespacedName("shop", name)) is None
        if name:  # an empty namespace stands for all of them
            assert Cluster(access).lease(NamespacedName(name, "leader")) is None
    assert not (folder / "calls").exists()


@pytest.mark.rule("PLUGIN-2")
@pytest.mark.parametrize("answer", [[200, "<html>Welcome</html>"], [301, ""], [200, {}], [200, "[]"]])
def test_what_answers_may_be_no_api_server(kubectl: Install, answer: list[Any]) -> None:
    kubectl({CREDENTIALS: [answer]})
    with Access([]) as access, pytest.raises(StopError, match="is no API server's") as stopped:
        Cluster(access).credentials("shop")
    assert stopped.value.exit_status is Exit.UNCHECKED


@pytest.mark.rule("PLUGIN-3")
@pytest.mark.parametrize(("refusal", "serving_it"), [(status(400, "unable to parse"), 0), (status(403, "no"), 1)])
def test_a_selector_that_means_nothing_selects_nothing(kubectl: Install, refusal: list[Any], serving_it: int) -> None:
    """Anybody may label a Deployment as an operator's. Who may not list takes the credential for one that is served."""
    one = [200, {"metadata": {}, "items": [deployment(["--selector=((("])]}]
    kubectl({"/apis/apps/v1/deployments": [one], CREDENTIALS: [refusal], LEASE: [status(404, "not found")]})
    with Access([]) as access:
        found = serving(Cluster(access), seen(), None)
    assert isinstance(found, list)
    assert len(found) == serving_it


@pytest.mark.rule("PLUGIN-2")
def test_a_refusal_that_no_command_expects_is_one_line(
    kubectl: Install, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kubectl({DEFINITION: [status(403, "no")], "/apis/tuinly.com/v1alpha1": [status(403, "forbidden")]})
    monkeypatch.setattr("sys.argv", ["kubectl-tuinly"])
    assert main(["version"]) == Exit.UNCHECKED
    assert capsys.readouterr().err.startswith("kubectl tuinly: the API server refuses: forbidden; ask for the role")


@pytest.mark.rule("PLUGIN-2")
def test_what_a_login_says_in_other_letters_harms_nothing(kubectl: Install, capfd: pytest.CaptureFixture[str]) -> None:
    folder = kubectl({SECRET: [[200, {"metadata": {}}]]}, says=["Welcome"])
    program = folder / "kubectl"
    program.write_text(program.read_text().replace("exec ", "printf 'caf\\351\\n' >&2\nexec "))
    with Access([]) as access:
        access.get(SECRET)
    assert capfd.readouterr().err == "caf\ufffd\nWelcome\n"


@pytest.mark.rule("PLUGIN-4")
def test_what_is_named_twice_is_meant_once(kubectl: Install) -> None:
    kubectl({f"{CREDENTIALS}/storefront": [[200, {"metadata": {"name": "storefront"}}]]})
    with Access([]) as access:
        assert len(selected(Cluster(access), ["storefront", "storefront"], "shop", "")) == 1


@pytest.mark.rule("PLUGIN-4")
def test_a_selector_that_the_api_server_does_not_understand_is_wrong_use(kubectl: Install) -> None:
    kubectl({CREDENTIALS: [status(400, "unable to parse requirement")]})
    with Access([]) as access, pytest.raises(StopError, match="-l: unable to parse requirement") as stopped:
        selected(Cluster(access), [], "shop", "(((")
    assert stopped.value.exit_status is Exit.WRONG_USE
