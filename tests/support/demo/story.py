"""The story: what a shop's team sees of the operator, from its first token to its last."""

import signal
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final

from tests.support.demo import facts
from tests.support.demo.checker import require
from tests.support.demo.facts import EXCHANGE, Mark
from tests.support.demo.stage import HERE, NAMESPACE, ROOT, Stage
from tests.support.sandbox import Fault

SHORT: Final = 10.0
"""Seconds that tokens live while we wait for refreshes, which come after half of it at the latest."""
OUTAGE: Final = 30.0
"""Seconds that the token lives whose refresh fails: the retries then have 15 s, and need 4 s, rarely 8 s."""
HOUR: Final = 3600.0
"""Seconds that tokens live at Tuinly."""
SOON: Final = 20.0
"""Seconds within which that must happen which takes a blink: the machine may be busy."""
STAY: Final = 60.0
"""Seconds that tokens live while somebody looks around."""
COLLECTION: Final = 60.0
"""Seconds within which garbage is collected: Kubernetes notices a new kind of owners every 30 s."""

DELIVERY: Final = 180.0
"""Seconds within which the kubelet shows a Pod what has changed: about a minute, unless the machine is busy."""

_IN_SHOP: Final = ("-n", NAMESPACE)


def first_token(stage: Stage) -> None:
    """A client Secret and a credential are applied; the target appears."""
    shop = stage.shop
    shop.register(lifetime=SHORT, scopes=("orders:read", "orders:write"))
    stage.narrator.say(
        "A shop has a client at Tuinly. Its team applies a Secret with the client's id and secret, and a credential "
        f"that names this Secret. To keep the story short, tokens live {_told(SHORT)} for now."
    )
    stage.kubectl("create", "namespace", NAMESPACE)
    stage.apply_client_secret()
    mark = Mark(shop)
    stage.apply_credential("storefront.yaml")
    stage.check(
        f"the token is in the Secret {shop.target_name}",
        lambda: f"{stage.since_command()}, {facts.told(facts.published(shop))}",
        within=SOON,
    )
    stage.check("it took one token request, an exchange", lambda: facts.one_exchange(mark.requests()))
    stage.exchanges += 1
    stage.check("the credential says so", lambda: facts.conditions(shop, Ready="True", Refreshed="True"), within=SOON)
    stage.kubectl("get", "tc", *_IN_SHOP)


def query(stage: Stage) -> None:
    """The token is good for what it is for."""
    stage.narrator.say("A program of the shop reads the token from that Secret and sends Tuinly a GraphQL query.")
    stage.check("GraphQL accepts the token", lambda: facts.graphql_accepts(stage.shop))


def two_refreshes(stage: Stage) -> None:
    """Refreshes come in time, by refresh token."""
    shop = stage.shop
    stage.narrator.say(
        "A token is replaced well before it expires, of such a short life after half of it. This takes the refresh "
        "token, which only the operator's memory holds, and no client secret."
    )
    for number, ordinal in enumerate(("first", "second"), start=1):
        look = partial(facts.refreshed, shop, number)
        stage.check(f"the {ordinal} refresh is in the Secret", look, within=SOON, expected=SHORT / 2)
    stage.check("no refresh carried the client's id or secret", lambda: facts.without_client(shop))
    stage.check("GraphQL accepts the newest token", lambda: facts.graphql_accepts(shop))


def rotated_secret(stage: Stage) -> None:
    """The client's secret changes, at the endpoint and in its Secret."""
    shop = stage.shop
    stage.narrator.say(
        "Tuinly gives the client a new secret and refuses the old one; the team applies it. The operator tries it at "
        "once rather than at the next refresh. From here on tokens live an hour, so that nothing else asks for any."
    )
    shop.register(lifetime=HOUR)
    shop.rotate_secret()
    mark = Mark(shop)
    stage.apply_client_secret()
    stage.check(
        "one exchange with the new secret", lambda: facts.one_exchange(mark.requests(grant=EXCHANGE)), within=SOON
    )
    stage.exchanges += 1
    stage.check(
        "its token is in the Secret",
        lambda: f"{stage.since_command()}, {facts.told(facts.published(shop))}",
        within=SOON,
    )
    stage.check("Ready was True all along", lambda: facts.ready_all_along(shop))


def in_a_pod(stage: Stage) -> None:
    """A program in a Pod sees the next token in its file."""
    shop = stage.shop
    stage.narrator.say(
        "A program of the shop runs in a Pod that mounts the Secret. It says when the file changes, as it does with "
        "each token, without a restart."
    )
    stage.kubectl("apply", "-f", f"{HERE.relative_to(ROOT)}/storefront-pod.yaml")
    shows = partial(facts.shows, stage.pod_log, shop)
    stage.check("the file in the Pod has the token", lambda: shows() and None, within=DELIVERY, expected=5)
    stage.narrator.say("Now somebody wants a new token.")
    _force(stage)
    stage.narrator.say(
        "The kubelet looks at mounted Secrets from time to time only, so that the file follows within about a minute, "
        "at times later. It is why a token is replaced 2 minutes before its end at the latest."
    )
    stage.check("the file in the Pod has changed", shows, within=DELIVERY, expected=60)
    stage.narrator.say(
        "Where that is too late, a credential asks for Push: the operator then touches the Pods that mount its Secret, "
        "and the kubelet looks at once."
    )
    push = '{"spec": {"delivery": {"pods": "Push"}}}'
    stage.kubectl("patch", "tc", shop.name, *_IN_SHOP, "--type=merge", "-p", push)
    _force(stage)
    stage.check("the file in the Pod has changed", shows, within=DELIVERY, expected=1)
    delivered = partial(facts.conditions, shop, Delivered="True")
    stage.check("the credential says so", delivered, within=SOON)


def damaged_target(stage: Stage) -> None:
    """The target is edited, then deleted, and restored."""
    shop = stage.shop
    stage.narrator.say(
        "Somebody edits the Secret with the token, then deletes it. The operator sees both, and writes the token that "
        "it has in memory again."
    )
    secret = ("secret", shop.target_name)
    mark = Mark(shop)
    _damage(stage, "edited", "patch", *secret, "--type=merge", "-p", '{"stringData": {"access_token": "edited"}}')
    _damage(stage, "deleted", "delete", *secret)
    stage.check("neither took a token request", lambda: facts.no_request(mark))


def _damage(stage: Stage, how: str, verb: str, *args: str) -> None:
    shop, before = stage.shop, facts.target(stage.shop).version
    mark = Mark(shop)
    stage.kubectl(verb, *_IN_SHOP, *args)

    def restored() -> str:
        token = facts.published(shop)
        require(facts.target(shop).version != before, "the Secret is as it was: nothing was done to it")
        return f"{stage.since_command()}, with token number {token.sequence} again"

    stage.check(f"{how}, the Secret is restored", restored, within=SOON)
    stage.damage.append((mark.at, time.time()))


def template(stage: Stage) -> None:
    """The credential asks for another layout of the target."""
    shop = stage.shop
    stage.narrator.say("A program wants the whole Authorization header from its file. A template says so.")
    mark = Mark(shop)
    stage.apply_credential("storefront-header.yaml")

    def follows() -> str:
        token, data = facts.published(shop), facts.target(shop).data
        header = data.get("authorization", "")
        require(header == f"Bearer {token.value}", f"the Secret has the keys {', '.join(sorted(data))}")
        return f"{stage.since_command()}, its key authorization has {len(header)} characters"

    stage.check("the Secret follows", follows, within=SOON)
    stage.check("this took no token request", lambda: facts.no_request(mark))


def forced(stage: Stage) -> None:
    """A person wants a new token now."""
    shop = stage.shop
    stage.narrator.say(
        "Somebody wants a new token now, whatever the age of the present one. It will live "
        f"{_told(OUTAGE)}, as the next scene needs it."
    )
    shop.register(lifetime=OUTAGE)
    _force(stage)


def _force(stage: Stage) -> None:
    shop, mark = stage.shop, Mark(stage.shop)
    now = f"tuinly.com/refresh-requested={datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    stage.kubectl("annotate", "tc", shop.name, *_IN_SHOP, "--overwrite", now)
    stage.check("one exchange", lambda: facts.one_exchange(mark.requests()), within=SOON)
    stage.exchanges += 1
    stage.check("its token is in the Secret", lambda: facts.told(facts.published(shop)), within=SOON)


def outage(stage: Stage) -> None:
    """The token endpoint fails for a while."""
    shop = stage.shop
    stage.narrator.say(
        "The token endpoint now answers each request with 503. When the refresh is due it fails; the token in the "
        "Secret is still good."
    )
    fault = stage.admin.fault(Fault(kind="fail", status=503))
    stage.check(
        "the failure is told, and the credential stays ready",
        lambda: facts.conditions(shop, Ready="True", Refreshed="False"),
        within=OUTAGE,
        expected=OUTAGE / 2,
    )
    stage.kubectl("get", "tc", *_IN_SHOP)
    message = '{.status.conditions[?(@.type=="Refreshed")].message}'
    stage.kubectl("get", "tc", shop.name, *_IN_SHOP, "-o", f"jsonpath={message}")
    stage.check("GraphQL accepts the token all the same", lambda: facts.graphql_accepts(shop))
    stage.narrator.say("The endpoint recovers, and gives tokens of an hour again.")
    shop.register(lifetime=HOUR)
    mended = Mark(shop)
    stage.admin.clear_faults(fault)
    stage.check(
        "the credential is refreshed again",
        lambda: facts.conditions(shop, Ready="True", Refreshed="True"),
        within=OUTAGE,
        expected=4,
    )
    stage.check("it took one exchange", lambda: facts.one_exchange(mended.requests(processed=True)))
    stage.exchanges += 1
    stage.check("its token is in the Secret", lambda: facts.told(facts.published(shop)))
    stage.narrator.say("What happened so far is told by Events, which come when something changes.")
    stage.kubectl("events", *_IN_SHOP)


def restart(stage: Stage) -> None:
    """The operator is killed and started again."""
    shop, mark, versions = stage.shop, Mark(stage.shop), facts.versions(stage.shop)
    stage.narrator.say(
        f"The operator is killed, without time to say goodbye, {stage.successor}. All that it needs to know is written "
        "beside the token."
    )
    stage.narrator.command(f"kill -KILL {stage.operator.pid}")
    stage.operator.kill()
    stage.check("GraphQL accepts the token meanwhile", lambda: facts.graphql_accepts(shop))
    stage.start_operator()
    plan = partial(facts.planned, shop, stage.operator)
    stage.check("the new one plans the next refresh as the old one did", plan, within=SOON)
    stage.check("it made no token request", lambda: facts.no_request(mark))
    stage.check("it wrote neither Secret nor credential", lambda: facts.unwritten(shop, versions))


def last_token(stage: Stage) -> None:
    """The credential is deleted; its target goes with it, the client Secret stays."""
    shop = stage.shop
    stage.narrator.say(
        "The shop needs no token any more. The target belongs to the credential, and goes with it. (A "
        "garbage collector that has just met its first TuinlyCredential may need half a minute.)"
    )
    mark = Mark(shop)
    stage.kubectl("delete", "tc", shop.name, *_IN_SHOP)

    def gone() -> str:
        facts.no_target(shop)
        return stage.since_command()

    stage.check(f"the Secret {shop.target_name} is gone", gone, within=COLLECTION)
    stage.check("the client's own Secret is still there", lambda: facts.client_secret_is_there(shop))
    stage.check("no token request came of it", lambda: facts.no_request(mark))
    stage.kubectl("get", "tc,secrets", *_IN_SHOP)


def verdict(stage: Stage) -> None:
    """The auditor's view of all of it."""
    stage.narrator.say(
        "All the time an auditor has watched the target from outside, and now compares what it held, and when, with "
        "the ledger."
    )
    found, damage = facts.damage_apart(stage.auditor.verdict(), stage.damage)
    stage.narrator.show(str(found))
    stage.check("no expired, no bad and no absent token", lambda: facts.is_good(found))
    stage.check("it saw what was damaged by hand, too", lambda: facts.damage_was_seen(damage))
    stage.check("no token was asked for without need", lambda: facts.cost(stage.shop, exchanges=stage.exchanges))


Scene = tuple[str, Callable[[Stage], None]]

STORY: Final[Sequence[Scene]] = (
    ("A credential is applied, and its token appears", first_token),
    ("The token works", query),
    ("Two refreshes go by", two_refreshes),
    ("The client's secret is rotated", rotated_secret),
    ("Somebody damages the Secret with the token", damaged_target),
    ("A program wants another layout", template),
    ("A new token on demand", forced),
    ("The token endpoint has an outage", outage),
    ("The operator is killed and started again", restart),
    ("The credential is deleted", last_token),
    ("The auditor's verdict", verdict),
)
_ON_A_NODE: Final[Scene] = ("A program in a Pod sees a new token", in_a_pod)


def scenes(*, in_pods: bool) -> Sequence[Scene]:
    """Return the scenes: those that need no node, and that which does, while tokens live long."""
    after = [scene for _, scene in STORY].index(rotated_secret) + 1
    return (*STORY[:after], _ON_A_NODE, *STORY[after:]) if in_pods else STORY


def _told(seconds: float) -> str:
    """Tell seconds so that no line break comes between number and unit."""
    return f"{seconds:.0f}\N{NO-BREAK SPACE}s"


def stay(stage: Stage, *, again: bool) -> None:
    """Leave everything running until KeyboardInterrupt, and say how to look at it.

    Args:
        stage: What is left.
        again: Whether to apply the credential anew, so that there is something to look at.
    """
    shop, narrator = stage.shop, stage.narrator
    narrator.scene("The stage is yours")
    if again:
        shop.register(lifetime=STAY)
        stage.cluster.kubectl("apply", "-f", str(HERE / "storefront.yaml"))
        narrator.say(f"The credential is applied once more, with tokens that live {_told(STAY)}.")
    narrator.say("In another terminal:")
    narrator.show(stage.tour())
    narrator.say("Ctrl-C here ends everything.")
    while True:
        signal.pause()
