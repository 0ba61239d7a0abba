"""The TuinlyCredential schema on a real API server: what it refuses, and how; what it fills in; what it shows."""

import re

import pytest
from kubernetes.client.exceptions import ApiException

from tests.support.cluster import Cluster
from tests.support.crd import GOOD, SCHEMA, VERSION, Case, Credentials, Json, cases, walk
from tests.support.merge import merged

CASES = list(cases())
SPEC_FIELDS = list(walk(SCHEMA["properties"]["spec"], "spec"))
STATUS_FIELDS = list(walk(SCHEMA["properties"]["status"], "status"))


@pytest.fixture(scope="module")
def judge(cluster: Cluster) -> Credentials:
    """Return TuinlyCredentials that are judged and never stored, so that tests can share a namespace."""
    return Credentials(cluster, "default")


@pytest.fixture
def credentials(cluster: Cluster, namespace: str) -> Credentials:
    """Return the TuinlyCredentials of this test's namespace."""
    return Credentials(cluster, namespace)


@pytest.mark.rule("RES-1")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rule(judge: Credentials, case: Case) -> None:
    """A bad object is refused by one sentence, which points to the field; its good neighbour is accepted."""
    refusal = judge.refusal(merged(GOOD, case.patch))
    if case.refused is None:
        assert refusal == []
    else:
        assert [cause["field"] for cause in refusal] == [case.field]
        assert case.refused in refusal[0]["message"]


@pytest.mark.rule("RES-1")
def test_every_rule_and_every_choice_has_cases() -> None:
    """No sentence of the schema goes untested: each CEL message, and each enum of the spec, refuses in some case."""
    refusals = [(re.sub(r"\[.*?]", "[]", case.field or ""), case.refused) for case in CASES if case.refused]
    for path, schema in SPEC_FIELDS:
        sentences = [refused for field, refused in refusals if field == path]
        for rule in schema.get("x-kubernetes-validations", []):
            assert any(sentence in rule["message"] for sentence in sentences), f"{path}: {rule['message']}"
        assert "enum" not in schema or any("supported values" in sentence for sentence in sentences), path
    for rule in SCHEMA["x-kubernetes-validations"]:
        assert any(refused in rule["message"] for _, refused in refusals), rule["message"]


@pytest.mark.rule("RES-1")
def test_no_bare_pattern_in_the_spec() -> None:
    """The answer to a `pattern` is its regular expression, and to `minimum` or `minLength` a phrase without advice."""
    unspoken = {"pattern", "minimum", "maximum", "minLength", "minItems", "minProperties"}
    assert [path for path, schema in SPEC_FIELDS if unspoken & schema.keys()] == []


@pytest.mark.rule("RES-2")
def test_a_misspelt_field_is_refused(judge: Credentials) -> None:
    """As kubectl does by default: a field that does not exist is an error and names itself."""
    with pytest.raises(ApiException) as refused:
        judge.create(merged(GOOD, {"spec": {"tokenUrl": "https://oauth.example.com/token"}}), dry=True)
    assert 'unknown field \\"spec.tokenUrl\\"' in str(refused.value.body)


@pytest.mark.rule("RES-4")
def test_defaults(judge: Credentials) -> None:
    """The least that one can write is filled in; what the operator decides has no default here."""
    assert judge.create(GOOD, dry=True)["spec"] == {
        "clientSecretRef": {
            "name": "storefront-client",
            "clientIDKey": "client_id",
            "clientSecretKey": "client_secret",
        },
        "target": {"deletionPolicy": "Delete"},
        "refresh": {"grant": "RefreshToken"},
        "verification": {"mode": "Disabled"},
        "delivery": {"pods": "None"},
        "suspend": False,
    }


def long_key(number: int) -> str:
    """Return the longest key that a label or an annotation may have: a domain of 253 characters and a name of 63."""
    domain = ".".join(["d" * 63] * 3 + ["d" * 61])
    return f"{domain}/{number:n>63}"


VALUE = 8192  # characters in a value of the template's data

FULL: dict[str, tuple[Json, Json]] = {
    "keys and values of data": (
        {"target": {"template": {"data": {f"{n:k>253}": "x" * VALUE for n in range(64)}}}},
        {"target": {"template": {"data": {"one-too-many": ""}}}},
    ),
    "dollar signs": (
        {"target": {"template": {"data": {f"key-{n}": "$$" * (VALUE // 2) for n in range(64)}}}},
        {"target": {"template": {"data": {"key-0": "$" * (VALUE + 2)}}}},
    ),
    "variables": (
        {"target": {"template": {"data": {f"key-{n}": "${scope}" * (VALUE // 8) for n in range(64)}}}},
        {"target": {"template": {"data": {"key-0": "${scope}" * (VALUE // 8) + " "}}}},
    ),
    "labels": (
        {"target": {"template": {"metadata": {"labels": {long_key(n): "v" * 63 for n in range(64)}}}}},
        {"target": {"template": {"metadata": {"labels": {"one-too-many": ""}}}}},
    ),
    "a label": (
        {"target": {"template": {"metadata": {"labels": {"key": "v" * 63}}}}},
        {"target": {"template": {"metadata": {"labels": {"key": "v" * 64}}}}},
    ),
    "annotations": (
        {"target": {"template": {"metadata": {"annotations": {long_key(n): "v" * 4096 for n in range(64)}}}}},
        {"target": {"template": {"metadata": {"annotations": {"one-too-many": ""}}}}},
    ),
    "an annotation": (
        {"target": {"template": {"metadata": {"annotations": {"key": "v" * 4096}}}}},
        {"target": {"template": {"metadata": {"annotations": {"key": "v" * 4097}}}}},
    ),
    "scopes": (
        {"scopes": [f"{n:s>256}" for n in range(64)]},
        {"scopes": [f"{n:s>256}" for n in range(65)]},
    ),
    "a scope": ({"scopes": ["s" * 256]}, {"scopes": ["s" * 257]}),
    "token URL": ({"tokenURL": f"https://{'h' * 2040}"}, {"tokenURL": f"https://{'h' * 2041}"}),
    "GraphQL URL": (
        {"verification": {"graphqlURL": f"https://{'h' * 2040}"}},
        {"verification": {"graphqlURL": f"https://{'h' * 2041}"}},
    ),
    "client Secret": ({"clientSecretRef": {"name": "c" * 253}}, {"clientSecretRef": {"name": "c" * 254}}),
    "client id": ({"clientSecretRef": {"clientIDKey": "i" * 253}}, {"clientSecretRef": {"clientIDKey": "i" * 254}}),
    "client secret": (
        {"clientSecretRef": {"clientSecretKey": "s" * 253}},
        {"clientSecretRef": {"clientSecretKey": "s" * 254}},
    ),
    "target": ({"target": {"name": "t" * 253}}, {"target": {"name": "t" * 254}}),
    "before": ({"refresh": {"before": "1h" * 16}}, {"refresh": {"before": "1h" * 15 + "10m"}}),
}
"""For each bound of the schema: what fills it, and what goes beyond when it is merged into that."""


@pytest.mark.rule("RES-3")
@pytest.mark.parametrize(("full", "beyond"), FULL.values(), ids=FULL)
def test_bounds(judge: Credentials, full: Json, beyond: Json) -> None:
    """What fills a bound is accepted, so the rules stay within the API server's budget; one more is refused."""
    body = merged(GOOD, {"spec": full})
    assert judge.refusal(body) == []
    refusal = judge.refusal(merged(body, {"spec": beyond}))
    assert len(refusal) == 1
    assert refusal[0]["reason"] in {"FieldValueTooLong", "FieldValueTooMany"}


@pytest.mark.rule("RES-3")
def test_all_bounds_at_once(judge: Credentials) -> None:
    """A credential that is full in every respect is accepted: the whole object's budget holds, too."""
    body = GOOD
    for part in FULL.keys() - {"keys and values of data", "variables", "a label", "an annotation"}:
        body = merged(body, {"spec": FULL[part][0]})
    assert judge.refusal(body) == []


@pytest.mark.rule("RES-6")
def test_every_field_is_described() -> None:
    """Each field, item and column says what it is. The API server describes metadata itself."""
    fields = [("", SCHEMA), *SPEC_FIELDS, *STATUS_FIELDS]
    assert [path for path, schema in fields if not schema.get("description", "").endswith(".")] == []
    assert [column["name"] for column in VERSION["additionalPrinterColumns"] if "description" not in column] == []


OBJECTS = {path: schema for path, schema in (*SPEC_FIELDS, *STATUS_FIELDS) if "properties" in schema}


@pytest.mark.rule("RES-6")
@pytest.mark.parametrize(("path", "schema"), OBJECTS.items(), ids=OBJECTS)
def test_explain(cluster: Cluster, path: str, schema: Json) -> None:
    """`kubectl explain` shows each field of each object with its description."""
    explained = " ".join(cluster.kubectl("explain", f"tuinlycredential.{path.replace('[]', '')}").split())
    for name, field in schema["properties"].items():
        assert re.search(rf"\b{name} <", explained)
        assert " ".join(field["description"].split()) in explained


STATUS: Json = {
    "observedGeneration": 1,
    "conditions": [
        {
            "type": kind,
            "status": status,
            "reason": reason,
            "message": "x",
            "lastTransitionTime": "2026-11-24T06:00:00Z",
            "observedGeneration": 1,
        }
        for kind, status, reason in (("Ready", "True", "Issued"), ("Refreshed", "False", "EndpointUnavailable"))
    ],
    "secretName": "storefront-token",
    "tokenURL": "https://oauth.tuinly.com/token",
    "tokenExpirationTime": "2096-11-24T07:00:00Z",
    "nextRefreshTime": "2096-11-24T06:38:12Z",
    "lastRefreshTime": "2026-11-24T06:00:00Z",
    "lastGrant": "RefreshToken",
    "scopes": ["orders:read"],
    "failedAttempts": 3,
    "lastFailureTime": "2026-11-24T06:38:12Z",
    "lastHandledRefresh": "now",
}


@pytest.mark.rule("RES-7")
def test_columns(cluster: Cluster, namespace: str, credentials: Credentials) -> None:
    """`kubectl get tc` answers what people ask first; `-o wide` what they ask next. Future times are readable."""
    credentials.create(GOOD)
    credentials.patch_status("storefront", STATUS)
    header, row = cluster.kubectl("get", "tc", "-n", namespace).splitlines()
    assert re.split(r"\s{2,}", header) == ["NAME", "READY", "REASON", "SECRET", "EXPIRES", "NEXT REFRESH", "AGE"]
    cells = ["storefront", "True", "Issued", "storefront-token", "2096-11-24T07:00:00Z", "2096-11-24T06:38:12Z"]
    assert row.split()[:-1] == cells
    header, row = cluster.kubectl("get", "tuinly", "-n", namespace, "-o", "wide").splitlines()
    wide = ["REFRESHED", "REFRESHED REASON", "DELIVERED", "LAST REFRESH", "GRANT", "FAILURES", "SUSPENDED"]
    assert re.split(r"\s{2,}", header)[7:] == wide
    values = row.split()[7:]
    assert values[:2] + values[3:] == ["False", "EndpointUnavailable", "RefreshToken", "3", "false"]
    assert "<" not in row


@pytest.mark.rule("RES-8")
@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("spec.clientSecretRef.name=one", {"a", "b"}),
        ("spec.clientSecretRef.name!=one", {"c"}),
        ("spec.suspend=true", {"b"}),
        ("spec.suspend=false,spec.clientSecretRef.name=one", {"a"}),
    ],
)
def test_field_selectors(
    cluster: Cluster, namespace: str, credentials: Credentials, selector: str, names: set[str]
) -> None:
    """Credentials can be selected by client Secret and by suspension, on the server; an omitted `suspend` is false."""
    for name, spec in {
        "a": {"clientSecretRef": {"name": "one"}},
        "b": {"clientSecretRef": {"name": "one"}, "suspend": True},
        "c": {"clientSecretRef": {"name": "two"}},
    }.items():
        credentials.create(merged(GOOD, {"metadata": {"name": name}, "spec": spec}))
    found = cluster.kubectl("get", "tc", "-n", namespace, "-o", "name", "--field-selector", selector)
    assert {line.partition("/")[2] for line in found.splitlines()} == names


@pytest.mark.rule("RES-9")
def test_status_is_a_subresource(credentials: Credentials) -> None:
    """Users write the spec and the operator the status: neither write touches the other part."""
    created = credentials.create({**GOOD, "status": STATUS})
    assert created["status"]["observedGeneration"] == -1  # the default: what was sent counts for nothing
    patched = credentials.patch_status("storefront", STATUS)
    assert patched["status"] == STATUS
    assert patched["spec"] == created["spec"]
    assert patched["metadata"]["generation"] == created["metadata"]["generation"] == 1


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        ({"conditions": [{**STATUS["conditions"][0], "status": "Maybe"}]}, "Unsupported value"),
        ({"conditions": [STATUS["conditions"][0]] * 2}, "Duplicate value"),
        ({"conditions": [{"type": "Ready", "status": "True"}]}, "Required value"),
        ({"conditions": [{**STATUS["conditions"][0], "reason": ""}]}, "at least 1 char"),
        ({"tokenExpirationTime": "tomorrow"}, "must be of type date-time"),
        ({"lastGrant": "Password"}, "Unsupported value"),
        ({"failedAttempts": -1}, "greater than or equal to 0"),
    ],
)
def test_status_values(credentials: Credentials, status: Json, answer: str) -> None:
    """The status holds what the Kubernetes API conventions say of conditions, times and counts, and nothing else."""
    credentials.create(GOOD)
    with pytest.raises(ApiException) as refused:
        credentials.patch_status("storefront", status)
    assert answer in str(refused.value.body)
