"""Client ids, client secrets and tokens that are known wherever they turn up are sent through every path there is.

Afterwards all that can be read without a right on the Secrets they belong to is searched for them. A client id is one
of them, since it goes nowhere but where a template asks for it.
"""

import base64
import hashlib
import json
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import quote, quote_plus

import pytest

from tests.api.conftest import StartOperator
from tests.support.acts import edit, force, refused_tokens
from tests.support.canary import Canary, new_canary, sightings
from tests.support.cluster import Cluster, KubectlError
from tests.support.objects import Json, Objects, new_namespace
from tests.support.operator import OperatorProcess
from tests.support.proxy import ApiProxy
from tests.support.proxy import Fault as ApiFault
from tests.support.sandbox import Client, Fault, SandboxProcess
from tests.support.tenant import Tenant
from tests.support.waiting import eventually, wait_until

# Searching ------------------------------------------------------------------------------------------------------------


SAMPLE: Final = Canary("sample", "canary-hunter-number-two-in-disguise~+/=%&:")
HIDDEN: Mapping[str, Callable[[str], str]] = {
    "as it is": str,
    "the end of it": lambda value: value[-12:],
    "the beginning of it": lambda value: value[:24],
    "the midst of it": lambda value: value[9:24],
    "in JSON": lambda value: json.dumps({"a": {"b": value}}),
    "URL-encoded": lambda value: quote(value, safe=""),
    "URL-encoded in lower case": lambda value: quote(value, safe="").replace("%2B", "%2b").replace("%3D", "%3d"),
    "in a form": lambda value: quote_plus(f"client_secret={value}"),
    "in hexadecimal": lambda value: f"x{value.encode().hex()}",
    **{
        f"in base64 behind {count} characters": partial(
            lambda value, count: base64.b64encode(f"{'x' * count}{value}yz".encode()).decode(), count=count
        )
        for count in range(6)
    },
    "in URL-safe base64": lambda value: base64.urlsafe_b64encode(f"ÿ{value}".encode()).decode(),
    "as SHA-256": lambda value: hashlib.sha256(value.encode()).hexdigest(),
    "as SHA-256 in base64": lambda value: base64.b64encode(hashlib.sha256(value.encode()).digest()).decode(),
}


@pytest.mark.parametrize("hide", HIDDEN.values(), ids=HIDDEN)
def test_a_canary_is_seen_however_it_hides(hide: Callable[[str], str]) -> None:
    """Else nothing that follows would show anything."""
    assert sightings(f"so {hide(SAMPLE.value)} it is", [SAMPLE])
    assert sightings("so it is", [SAMPLE]) == []


# The paths ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class World:
    """Where the paths lead through; `origins` are more token URLs that are allowed, each of an origin of its own."""

    cluster: Cluster
    sandbox: SandboxProcess
    proxy: ApiProxy
    origins: tuple[str, ...]


@pytest.fixture(scope="module")
def world(
    cluster: Cluster,
    sandbox: SandboxProcess,
    other_token_urls: tuple[str, ...],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[World]:
    with ApiProxy(cluster.server, cluster.ca_file, tmp_path_factory.mktemp("proxy")) as proxy:
        yield World(cluster, sandbox, proxy, other_token_urls)


class Life(Tenant):
    """A tenant whose client id and secret are canaries, and who may be given tokens that are.

    Attributes:
        given: tokens that an answer of the test may give, by what they are.
        retired: client secrets that were replaced.
        target_names: all names that the target has had.
    """

    def __init__(self, objects: Objects, world: World, name: str) -> None:
        super().__init__(objects, world.sandbox.admin, name)
        self.world = world
        # A slash in the id is more than the sandbox's own paths take.
        self.client = Client(id=new_canary().replace("/", ""), secret=new_canary())
        self.given = {what: new_canary() for what in ("access", "refresh", "next-access", "next-refresh")}
        self.retired: list[str] = []
        self.target_names = {self.target_name}

    def rotate_secret(self) -> None:
        self.retired.append(self.client.secret)
        super().rotate_secret()

    def grant(self, **members: object) -> str:
        """Return the body of an answer with canaries for tokens."""
        tokens = {"access_token": self.given["access"], "refresh_token": self.given["refresh"]}
        return json.dumps({**tokens, "token_type": "Bearer", "expires_in": 3600, **members})

    def fault(self, fault: Fault) -> None:
        """Have this client's requests meet a fault."""
        self.sandbox.fault(replace(fault, client=self.client.id))

    def canaries(self) -> Iterator[Canary]:
        """Yield all that is secret about it."""
        where = self.objects.namespace
        own, targets = (where, self.client_secret_name), frozenset((where, name) for name in self.target_names)
        yield Canary(f"client id of {self.name}", self.client.id, targets | {own})
        for secret in (*self.retired, self.client.secret):
            yield Canary(f"client secret of {self.name}", secret, frozenset({own}))
        for what, token in self.given.items():
            yield Canary(f"given {what} token of {self.name}", token, targets if "access" in what else frozenset())
        for issued in self.tokens():
            yield Canary(f"access token {issued.sequence} of {self.name}", issued.value, targets)


def answer(body: str, status: int = 200, **headers: str) -> Fault:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Fault(kind="answer", status=status, body=body, headers=named)


TELLTALE: Mapping[str, Callable[[Life], Fault]] = {
    **{
        name.replace("_", "-"): lambda _, name=name: Fault(kind="answer", answer=name)  # type: ignore[misc]
        for name in ("echo_in_error", "echo_in_description", "echo_in_uri", "echo_in_reason")
    },
    "error-code": lambda life: answer(json.dumps({"error": life.client.secret}), 400),
    "error-page": lambda life: answer(f"<html>{life.client.secret}</html>", 403),
    "headers": lambda life: answer("{}", 401, WWW_Authenticate=f'Bearer realm="{life.client.secret}"', Server="x"),
    "throttled": lambda life: answer(life.client.secret, 429, Retry_After=life.client.secret),
    "redirect": lambda life: answer(life.client.secret, 307, Location=f"https://127.0.0.1:1/?{life.client.secret}"),
    "text": lambda life: answer(f"client_secret={life.client.secret}"),
    "other-encoding": lambda life: answer(life.grant(), Content_Encoding=life.client.secret),
    "scope-secret": lambda life: answer(life.grant(scope=f"read client_secret={life.client.secret}")),
    "scope-access": lambda life: answer(life.grant(scope=life.given["access"])),
    "scope-refresh": lambda life: answer(life.grant(scope=f"read {life.given['refresh']}")),
    "type": lambda life: answer(life.grant(token_type=life.client.secret)),
    "lifetime": lambda life: answer(life.grant(expires_in=life.client.secret)),
    "token-with-space": lambda life: answer(life.grant(access_token=" ".join(life.given.values()))),
    "not-json": lambda life: answer(life.grant()[:-1]),
    "too-long": lambda life: answer(life.grant(note="x" * 70_000)),
    "accepted": lambda life: answer(life.grant(), 202),
}
"""What an endpoint gives away in its answer to an exchange, none of which yields a token."""

BROKEN: Mapping[str, Callable[[Life], Fault]] = {
    "unavailable": lambda life: answer(life.client.secret, 503, Retry_After=life.client.secret),
    "reset": lambda _: Fault(kind="reset"),
    "hang": lambda _: Fault(kind="hang"),
    "truncated": lambda _: Fault(kind="answer", answer="truncated_transfer"),
}
"""Failures of an endpoint as such; each has an origin of its own, as the operator would spare a common one."""


def unusable(life: Life, name: str) -> None:
    """Have a client Secret that is refused, with the secret in it."""
    secret = life.client.secret.encode()
    flawed = {
        "binary": {"client_id": secret, "client_secret": secret + b"\xff"},
        "lines": {"client_id": secret, "client_secret": secret + b"\n" + secret},
        "no-key": {"client_id": secret, "client-secret": secret},
        "wrong-type": {"client_id": secret, "client_secret": secret},
        "swapped": {"client_id": secret, "client_secret": life.client.id.encode()},
    }
    life.register()
    life.apply_client_secret(flawed[name], kind="helm.sh/release.v1" if name == "wrong-type" else "Opaque")
    life.apply()
    await_failure(life)


UNUSABLE: Final = ("binary", "lines", "no-key", "wrong-type", "swapped")


def await_failure(life: Life) -> None:
    """Wait until it is told that there is no token, and why."""

    def check() -> None:
        condition = life.condition("Refreshed")
        assert condition is not None
        assert condition.status == "False"

    eventually(check)


def be_given_tokens(life: Life) -> None:
    """Publish and refresh with tokens that are canaries; the sandbox does not know the second refresh token."""
    life.fault(replace(answer(life.grant(expires_in=4)), count=1))
    then = life.grant(access_token=life.given["next-access"], refresh_token=life.given["next-refresh"], expires_in=4)
    # Nobody else refreshes yet; for the sandbox this request is of no client.
    life.sandbox.fault(replace(answer(then), grant="refresh_token", count=1))
    life.start()
    wait_until(life.tokens, what="an exchange after the refused refresh token")
    life.await_ready()


def refresh_often(life: Life) -> None:
    """Refresh by refresh tokens that change each time, until the endpoint echoes one of them."""
    life.start(lifetime=4, rotates_refresh_tokens=True)
    life.await_requests(3)
    life.fault(Fault(kind="answer", answer="echo_in_description", grant="refresh_token", count=1))
    life.fault(Fault(kind="answer", answer="echo_in_reason", grant="refresh_token", count=1))
    life.await_requests(7)


def fill_a_template(life: Life) -> None:
    data = {"who": "${client_id}", "header": "Bearer ${access_token}"}
    life.start({"target": {"template": {"data": data, "metadata": {"labels": {"team": "shop"}}}}})
    assert life.await_ready().data["who"] == life.client.id


def be_verified(life: Life) -> None:
    life.start({"verification": {"mode": "Enabled"}})
    life.await_ready()
    for reason, reply in (
        ("VerificationFailed", Fault(kind="answer", endpoint="graphql", answer="errors_null_data")),
        ("VerificationInconclusive", Fault(kind="fail", endpoint="graphql")),
    ):
        life.fault(replace(reply, count=1))
        force(life, secrets.token_hex(4))
        life.await_event(reason)  # the condition may be over before it is looked at
        life.await_ready(seconds=60)


def be_refused(life: Life) -> None:
    """The secret is another one at the endpoint, and then another one in the Secret."""
    life.start()
    life.await_ready()
    life.rotate_secret()
    force(life, "now")
    await_failure(life)
    life.retired.append(wrong := new_canary())
    life.apply_client_secret({"client_id": life.client.id, "client_secret": wrong})
    life.await_requests(3)
    await_failure(life)


def be_quarrelled_over(life: Life) -> None:
    """Edited, deleted, made immutable, renamed, kept."""
    spec = {"target": {"deletionPolicy": "Retain"}}
    life.start(spec)
    token = life.await_ready().token
    edit(life, {"data": {"access_token": base64.b64encode(b"other").decode()}})
    life.await_event("Restored")
    edit(life, {"immutable": True})
    force(life, "now")
    life.await_condition("Refreshed", "False", "TargetConflict")
    life.objects.delete("Secret", life.target_name)
    life.await_token(other_than=token)
    life.target_name = "renamed"
    life.target_names.add("renamed")
    life.apply({"target": {**spec["target"], "name": "renamed"}})
    life.await_ready()
    life.delete()


def meet_the_api(life: Life, trouble: ApiFault) -> None:
    """Have the API server fail the write of a token."""
    life.world.proxy.fault(replace(trouble, path=rf"/{life.target_name}\?", method="PATCH", times=1))
    life.start()
    wait_until(lambda: life.find_target() is not None or trouble.status == 200, what="a target")


API_TROUBLE: Mapping[str, ApiFault] = {
    "conflict": ApiFault(path="", status=409),
    "error": ApiFault(path="", status=500),
    "lost-answer": ApiFault(path="", lost=True),
    "nonsense": ApiFault(path="", status=200),  # which is a defect to the operator: a traceback in the log
}


def be_rejected(life: Life) -> None:
    """An admission policy quotes the token in its refusal, in base64, and the operator gets to read it."""
    with refused_tokens(life.world.cluster, life.objects.namespace):
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"access_token": "me"}}
        create = ("create", "--namespace", life.objects.namespace, "--dry-run=server", "--filename=-")
        with pytest.raises(KubectlError, match="refused: bWU="):
            life.world.cluster.kubectl(*create, input=json.dumps(secret))
        life.start()
        life.await_condition("Ready", "False", "TargetRejected")
    life.await_ready()


LIVES: Mapping[str, Callable[[Life], None]] = {
    "refreshed": refresh_often,
    "templated": fill_a_template,
    "verified": be_verified,
    "refused": be_refused,
    "quarrelled": be_quarrelled_over,
    **{name: partial(unusable, name=name) for name in UNUSABLE},
    **{name: partial(meet_the_api, trouble=trouble) for name, trouble in API_TROUBLE.items()},
}


def live(world: World, objects: Objects, apart: Objects) -> list[Life]:
    """Send canaries down all paths, one of them in a namespace apart; what is waiting, they do together."""
    failing = {name: Life(objects, world, name) for name in (*TELLTALE, *BROKEN)}
    lives = {name: Life(objects, world, name) for name in LIVES}
    given, rejected = Life(objects, world, "given"), Life(apart, world, "rejected")
    be_given_tokens(given)
    for name, telltale in TELLTALE.items():
        failing[name].fault(telltale(failing[name]))
        failing[name].start()
    for (name, broken), url in zip(BROKEN.items(), world.origins * 2, strict=False):
        failing[name].fault(broken(failing[name]))
        failing[name].start({"tokenURL": url})
    with ThreadPoolExecutor() as pool:
        ways = [pool.submit(be_rejected, rejected), *(pool.submit(way, lives[name]) for name, way in LIVES.items())]
    for way in ways:
        way.result()
    for life in failing.values():
        await_failure(life)
    return [given, rejected, *failing.values(), *lives.values()]


# What is left ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Aftermath:
    """All that can be read, by place, without what Secrets hold; what the Secrets hold; and the canaries."""

    places: Mapping[str, str]
    data: Mapping[tuple[str, str], str]
    canaries: tuple[Canary, ...]


def everything(cluster: Cluster) -> list[Json]:
    """Return each object in the cluster, with managedFields."""
    kinds = cluster.kubectl("api-resources", "--verbs=list", "--output=name").split()
    listed = cluster.kubectl("get", ",".join(kinds), "--all-namespaces", "--show-managed-fields", "--output=json")
    items: list[Json] = json.loads(listed)["items"]
    return items


def take_data(objects: Iterable[Json]) -> dict[tuple[str, str], str]:
    """Take what they hold out of the Secrets among the objects, and return it, decoded."""
    taken = {}
    for each in objects:
        if each["kind"] == "Secret":
            data = {
                key: base64.b64decode(value).decode(errors="replace") for key, value in each.pop("data", {}).items()
            }
            taken[each["metadata"]["namespace"], each["metadata"]["name"]] = json.dumps(data)
    return taken


def history(lives: Iterable[Life]) -> Iterator[Json]:
    """Yield each version that a credential, and the metadata of its target, ever had."""
    for life in lives:
        if life.objects.find("TuinlyCredential", life.name):
            yield from life.objects.versions("TuinlyCredential", life.name, since=life.begin)
        if life.find_target():
            yield from (
                version["metadata"] for version in life.objects.versions("Secret", life.target_name, since=life.begin)
            )


def seen_from_outside(operator: OperatorProcess) -> dict[str, str]:
    """Return what a process and its endpoints show."""
    process = Path(f"/proc/{operator.pid}")
    return {
        "metrics": operator.get("/metrics")[1],
        "health": operator.get("/healthz")[1] + operator.get("/readyz")[1],
        "command line": (process / "cmdline").read_text(),
        "environment": (process / "environ").read_text(errors="replace"),
    }


@pytest.fixture(scope="module")
def aftermath(world: World, make_operator: StartOperator, operator_login: Path) -> Iterator[Aftermath]:
    """Return what two operators leave behind that went down all paths and logged all they could; one is killed."""
    flags = ("--log-level", "debug", "--request-timeout", "2s", "--graphql-url", world.sandbox.graphql_url)
    start = partial(make_operator, *flags, kubeconfig=world.proxy.kubeconfig(operator_login))
    with new_namespace(world.cluster) as namespace, new_namespace(world.cluster) as apart:
        objects = Objects(world.cluster, namespace)
        slow = Life(objects, world, "slow")
        with start() as first:
            lives = [slow, *live(world, objects, Objects(world.cluster, apart))]
            slow.fault(Fault(kind="slow", seconds=1, count=1))
            slow.start()
            slow.await_requests(1)
            outside = seen_from_outside(first.wait_ready())
            first.kill()
        with start() as second:
            slow.await_ready()
            outside = {place: text + outside[place] for place, text in seen_from_outside(second.wait_ready()).items()}
            slow.fault(Fault(kind="hang"))
            force(slow, "now")
            slow.await_requests(3)
            assert second.terminate() == 0
        logs = first.log_file.read_text() + second.log_file.read_text()
        yield collect(world.cluster, lives, {**outside, "logs": logs})
    world.sandbox.admin.clear_faults()


def collect(cluster: Cluster, lives: Iterable[Life], places: Mapping[str, str]) -> Aftermath:
    """Look at all there is in the cluster, too."""
    objects = everything(cluster)
    data = take_data(objects)
    past = json.dumps(list(history(lives)))
    known = (canary for life in lives for canary in life.canaries())
    canaries = (Canary("a refresh token of the sandbox's", "sandbox-refresh-"), *known)
    return Aftermath({**places, "objects": json.dumps(objects), "history": past}, data, canaries)


PLACES: Final = ("logs", "objects", "history", "metrics", "health", "command line", "environment")


@pytest.mark.rule("CLOSED-1")
@pytest.mark.parametrize("place", PLACES)
def test_no_canary_is_where_anybody_may_look(aftermath: Aftermath, place: str) -> None:
    assert sightings(aftermath.places[place], aftermath.canaries) == []


@pytest.mark.rule("CLOSED-1")
def test_no_canary_is_in_another_secret_than_its_own(aftermath: Aftermath) -> None:
    """The client id may be in the target, if the template says so, and is in no other."""
    asked = {name for (_, name), data in aftermath.data.items() if '"who"' in data}
    assert asked == {"templated-token"}
    for where, data in aftermath.data.items():
        strangers = [
            canary
            for canary in aftermath.canaries
            if where not in canary.homes
            or (canary.what.startswith("client id") and where[1].endswith("-token") and where[1] not in asked)
        ]
        assert sightings(data, strangers) == [], where


@pytest.mark.rule("CLOSED-1")
def test_there_was_something_to_see(aftermath: Aftermath) -> None:
    """Each path was gone down: its reason was told, and secrets of each kind were where they belong."""
    assert set(PLACES) == aftermath.places.keys()
    lines = [json.loads(line) for line in aftermath.places["logs"].splitlines()]
    assert {line["level"] for line in lines} >= {"debug", "info", "warning", "error"}
    assert any("Traceback" in line.get("exc", "") and "from_object" in line["exc"] for line in lines)
    for reason in (
        "Issued",
        "InvalidClient",
        "InvalidResponse",
        "RequestRejected",
        "EndpointThrottled",
        "EndpointUnavailable",
        "ClientSecretInvalid",
        "VerificationFailed",
        "VerificationInconclusive",
        "TargetRejected",
        "Restored",
    ):
        assert f'"{reason}"' in aftermath.places["history"] + aftermath.places["objects"], reason
    held = "".join(aftermath.data.values())
    for what in ("client id", "client secret", "access token"):
        assert [canary for canary in aftermath.canaries if canary.what.startswith(what) and canary.value in held], what
