"""A credential that is deleted and made again under its name, while a token request for the old one hangs."""

from dataclasses import replace

import pytest

from tests.api.conftest import StartOperator
from tests.support.sandbox import Fault
from tests.support.tenant import Tenant
from tests.support.waiting import wait_until

PATIENCE = 60
"""Seconds that the operator waits for an answer to a token request."""


@pytest.mark.rule("ABS-14")
def test_the_new_one_has_its_token_while_a_request_for_the_old_one_hangs(
    tenant: Tenant, start_operator: StartOperator
) -> None:
    """Made again several times in a row, each time with the one before in the middle of its attempt."""
    start_operator("--request-timeout", f"{PATIENCE}s").wait_ready()
    spec = {"target": {"deletionPolicy": "Retain"}}
    for number in range(3):
        tenant.client = replace(tenant.client, id=f"{tenant.client.id}.{number}")
        tenant.sandbox.fault(Fault(kind="hang", client=tenant.client.id))
        tenant.start(spec)
        tenant.await_requests(1)
        tenant.delete()
    tenant.client = replace(tenant.client, id=f"{tenant.client.id}.good")
    uid = tenant.start(spec).credential()["metadata"]["uid"]
    assert tenant.await_ready(seconds=PATIENCE / 4).notes["credential-uid"] == uid
    assert {target.notes["credential-uid"] for target in tenant.targets()} == {uid}
    # What hung was given up, rather than left alone.
    wait_until(lambda: tenant.sandbox.concurrency()["token"].now == 0, what="no request hangs", seconds=PATIENCE / 4)
