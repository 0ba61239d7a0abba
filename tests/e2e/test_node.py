"""Tokens in Pods, through all that happens to an operator on a node: no call is ever refused.

The tests are one story, told in this order, while the programs call: each begins with two replicas that are ready, and
leaves them so.
"""

import time

import pytest

from tests.e2e.manifests import SYSTEM
from tests.e2e.stage import Stage
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(900)  # seconds, for hanging; the first test builds the image and starts the node


def test_a_new_token_reaches_the_pods(stage: Stage) -> None:
    """By the kubelet's own means: the file changes while the program runs."""
    before = {name: len(told.tokens) for name, told in stage.told().items()}
    for tenant in stage.tenants:
        tenant.rotate_secret()
        tenant.apply_client_secret()
    wait_until(
        lambda: all(len(told.tokens) > before[name] for name, told in stage.told().items()),
        what="a new token in each Pod",
        seconds=120,
    )


def test_a_leader_that_is_deleted_hands_over(stage: Stage) -> None:
    leader, holder = stage.leader(), stage.leases.holder
    begun = time.time()
    stage.node.kubectl("delete", "pod", leader, "-n", SYSTEM, "--wait=false")
    seconds = stage.leases.await_other(holder, begun)
    stage.figures.add("a leader Pod deleted: the other leads", f"{seconds:.1f} s later")
    stage.await_two_ready()


def test_no_call_was_refused(stage: Stage) -> None:
    """Seen from inside the Pods, over all of the above."""
    told = stage.told()
    assert [each.troubles for each in told.values() if each.troubles] == []
    assert {name: each.refused for name, each in told.items() if each.refused} == {}
    stage.figures.add("calls from Pods", f"{sum(each.calls for each in told.values())}, none refused")
