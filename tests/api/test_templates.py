"""Templates on a real API server: what the target becomes, what a change costs, and what is too large."""

from typing import Any

import pytest

from tests.support.acts import await_restored, edit, force
from tests.support.objects import Json
from tests.support.tenant import Target, Tenant
from tests.support.waiting import eventually

pytestmark = pytest.mark.usefixtures("operator")

EVERY_VARIABLE = {
    "authorization": "Bearer ${access_token}",
    "tuinly.env": "TUINLY_TOKEN=${access_token}\nTUINLY_CLIENT=${client_id}\n",
    "all": "${token_type}|${expires_at}|${expires_in}|${scope}|${client_id}",
    "price": "$$5 is no $${access_token} № ☂",
    "empty": "",
}
TOO_LARGE = {f"key{number}": "${access_token}" * 546 for number in range(20)}
"""The token is 58 characters long where ${access_token} is 15."""


def templated(data: Json | None = None, **metadata: Json) -> Json:
    """Return a spec with a template; the metadata is labels and annotations."""
    return {"target": {"template": {"metadata": metadata} | ({} if data is None else {"data": data})}}


def await_data(tenant: Tenant, expected: Json) -> Target:
    """Return the target as soon as it holds this."""

    def check() -> Target:
        target = tenant.target()
        assert target.data == expected
        return target

    return eventually(check)


@pytest.mark.rule("TARGET-3")
def test_each_key_is_rendered_and_there_are_no_others(tenant: Tenant) -> None:
    spec = {"scopes": ["orders:write", "orders:read"], **templated(EVERY_VARIABLE)}
    target = tenant.start(spec, scopes=("orders:read", "orders:write"), lifetime=1800).await_ready()
    [token] = tenant.tokens()
    expires_at = target.notes["expires-at"]
    assert target.data == {
        "authorization": f"Bearer {token.value}",
        "tuinly.env": f"TUINLY_TOKEN={token.value}\nTUINLY_CLIENT={tenant.client.id}\n",
        "all": f"Bearer|{expires_at}|1800|orders:read orders:write|{tenant.client.id}",
        "price": "$5 is no ${access_token} № ☂",
        "empty": "",
    }


@pytest.mark.parametrize(
    ("spec", "ways", "scope"),
    [
        ({}, {"scopes": ("orders:read",)}, "orders:read"),  # the answer tells, where nothing was asked for
        ({"scopes": ["orders:write", "orders:read"]}, {}, "orders:read orders:write"),  # as requested
        ({"scopes": ["orders:write", "orders:read"]}, {"grants_only": ("orders:read",)}, "orders:read"),  # as answered
        ({}, {"scopes": ()}, ""),
    ],
    ids=["answered, none requested", "requested, none answered", "answered", "none"],
)
def test_the_scope_is_as_answered_else_as_requested(
    tenant: Tenant, spec: Json, ways: dict[str, Any], scope: str
) -> None:
    ways = {"scopes": ("orders:read", "orders:write"), **ways}
    tenant.start({**spec, **templated({"scope": "<${scope}>"})}, **ways)
    assert tenant.await_ready().data == {"scope": f"<{scope}>"}


def test_the_next_token_is_rendered_too(tenant: Tenant) -> None:
    tenant.start(templated({"authorization": "Bearer ${access_token}"}))
    tenant.await_ready()
    force(tenant, "now")
    tenant.await_requests(2)
    await_data(tenant, {"authorization": f"Bearer {tenant.tokens()[-1].value}"})


@pytest.mark.rule("TARGET-5")
def test_labels_and_annotations_go_with_our_own(tenant: Tenant) -> None:
    wanted = {"example.com/team": "shop", "app.kubernetes.io/name": "storefront"}
    meta = tenant.start(templated(labels=wanted, annotations=wanted)).await_ready().raw["metadata"]
    assert meta["labels"].keys() == {*wanted, "app.kubernetes.io/managed-by", "tuinly.com/credential"}
    assert wanted.items() <= meta["labels"].items()
    assert wanted.items() <= meta["annotations"].items()
    assert {name for name in meta["annotations"] if not name.startswith("tuinly.com/")} == wanted.keys()


@pytest.mark.rule("TARGET-8")
def test_a_changed_template_changes_the_target_and_nothing_else(tenant: Tenant) -> None:
    """No token request, no word of a repair; Ready stays True, and keys that others added stay as well."""
    tenant.start(templated({"old": "${access_token}", "both": "1"}, labels={"old": "a", "both": "a"}))
    before = tenant.await_ready()
    edit(tenant, {"stringData": {"theirs": "kept"}, "metadata": {"labels": {"theirs": "kept"}}})
    tenant.apply(templated({"new": "${access_token}", "both": "2"}, labels={"new": "a", "both": "b"}))
    [token] = tenant.tokens()
    after = await_data(tenant, {"new": token.value, "both": "2", "theirs": "kept"})
    tenant.await_ready()
    assert after.raw["metadata"]["labels"] == {
        "new": "a",
        "both": "b",
        "theirs": "kept",
        "app.kubernetes.io/managed-by": "tuinly-operator",
        "tuinly.com/credential": tenant.name,
    }
    assert {**after.notes, "template": ""} == {**before.notes, "template": ""}
    assert len(tenant.requests()) == 1
    assert tenant.verdicts("Ready") == [("True", "Issued")]
    assert tenant.verdicts("Refreshed") == [("True", "Issued")]
    assert "Restored" not in tenant.event_reasons()


def test_a_template_can_come_and_go(tenant: Tenant) -> None:
    tenant.start()
    before = tenant.await_ready()
    tenant.apply(templated({"key": "${access_token}"}, labels={"a": "b"}, annotations={"a": "b"}))
    await_data(tenant, {"key": before.token})
    tenant.apply()
    await_restored(tenant, before)
    tenant.await_ready()
    assert len(tenant.requests()) == 1


def test_a_change_of_values_alone_is_made_too(tenant: Tenant) -> None:
    """The names of the keys, which tell of drift, stay the same."""
    tenant.start(templated({"key": "${access_token}"}, labels={"a": "b"}))
    token = tenant.await_ready().data["key"]
    tenant.apply(templated({"key": "<${access_token}>"}, labels={"a": "c"}))
    target = await_data(tenant, {"key": f"<{token}>"})
    assert target.raw["metadata"]["labels"]["a"] == "c"
    assert len(tenant.requests()) == 1


def test_a_key_of_somebody_else_that_a_template_asks_for_is_taken_over(tenant: Tenant) -> None:
    tenant.start()
    token = tenant.await_ready().token
    edit(tenant, {"stringData": {"shared": "theirs"}})
    tenant.apply(templated({"shared": "${access_token}"}))
    await_data(tenant, {"shared": token})


@pytest.mark.rule("TARGET-5")
@pytest.mark.parametrize("part", ["labels", "annotations"])
def test_metadata_of_the_template_that_somebody_edits_is_restored(tenant: Tenant, part: str) -> None:
    tenant.start(templated(**{part: {"example.com/team": "shop"}}))
    before = tenant.await_ready()
    edit(tenant, {"metadata": {part: {"example.com/team": "another"}}})
    await_restored(tenant, before)
    tenant.await_event("Restored")
    assert len(tenant.requests()) == 1


@pytest.mark.rule("TARGET-7")
def test_nearly_512_kib_are_written(tenant: Tenant) -> None:
    """What the operator renders the API server takes."""
    data = {f"key{number:02}": "x" * 8000 for number in range(64)} | {"key63": "${access_token}"}
    target = tenant.start(templated(data)).await_ready()
    assert 500_000 < sum(len(key) + len(value) for key, value in target.data.items()) < 512 * 1024
    force(tenant, "now")
    tenant.await_requests(2)
    await_data(tenant, {**data, "key63": tenant.tokens()[-1].value})


@pytest.mark.rule("TARGET-7")
def test_a_rendering_that_is_too_large_leaves_the_target_as_it_is(tenant: Tenant) -> None:
    tenant.start()
    before = tenant.await_ready()
    tenant.apply(templated(TOO_LARGE))
    condition = tenant.await_condition("Refreshed", "False", "TargetRejected")
    assert "512 KiB" in condition.message
    tenant.await_condition("Ready", "True", "Issued")
    assert tenant.await_event("TargetRejected")["type"] == "Warning"
    assert tenant.target().version == before.version
    tenant.apply(templated({"key": "${access_token}"}))
    await_data(tenant, {"key": before.token})
    tenant.await_ready()
    assert len(tenant.requests()) == 1


def test_a_first_rendering_that_is_too_large_waits_in_memory_until_it_is_mended(tenant: Tenant) -> None:
    tenant.start(templated(TOO_LARGE))
    tenant.await_condition("Ready", "False", "TargetRejected")
    assert tenant.find_target() is None
    tenant.apply(templated({"key": "${access_token}"}))
    tenant.await_condition("Ready", "True", "Issued")
    [token] = tenant.tokens()
    assert tenant.target().data == {"key": token.value}
    assert len(tenant.requests()) == 1
