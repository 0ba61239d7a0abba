"""`render`: the target as the operator would write it, and what would be refused."""

import re
from pathlib import Path

import pytest
import yaml

from kubectl_tuinly.edges.yaml_text import read_objects, written
from kubectl_tuinly.rules.preview import MADE_UP_TOKEN, explained, preview
from tests.support.crd import GOOD
from tests.support.merge import merged
from tests.support.objects import Json
from tests.unit.facts import ISSUED
from tests.unit.plugin.program import run
from tuinly_operator.domain.errors import Failure


@pytest.mark.rule("PLUGIN-11")
def test_a_template_is_rendered_with_a_made_up_token() -> None:
    template = {
        "metadata": {"labels": {"team": "shop"}},
        "data": {"env": "TOKEN=${access_token}\n", "price": "$$5", "s": "${scope}"},
    }
    target = preview(
        merged(GOOD, {"spec": {"scopes": ["b", "a"], "target": {"name": "mine", "template": template}}}), ISSUED.wall
    )
    assert target["stringData"] == {"env": f"TOKEN={MADE_UP_TOKEN}\n", "price": "$5", "s": "a b"}
    assert target["metadata"]["name"] == "mine"
    assert target["metadata"]["labels"]["team"] == "shop"
    assert target["metadata"]["annotations"]["tuinly.com/expires-at"] == "2026-11-24T08:00:00Z"
    assert "resourceVersion" not in target["metadata"]


def test_each_key_is_explained() -> None:
    assert next(iter(explained(GOOD))) == "access_token: '${access_token}'"


@pytest.mark.rule("PLUGIN-11")
@pytest.mark.parametrize(
    ("patch", "told"),
    [
        ({"spec": {"target": {"template": {"data": {"a": "${token}"}}}}}, "after a dollar sign"),
        ({"spec": {"target": {"name": "storefront-client"}}}, "must not be the client Secret"),
        ({"metadata": {"name": "x" * 58}}, "at most 57 characters"),
        ({"metadata": {"name": "x\x1b[2J"}}, "metadata.name: small letters"),
        ({"metadata": {"name": None}}, "metadata.name: small letters"),
        ({"spec": {"clientSecretRef": None}}, "spec.clientSecretRef must be present"),
    ],
)
def test_what_would_be_refused_is_told(patch: Json, told: str) -> None:
    with pytest.raises(Failure, match=re.escape(told)):
        preview(merged(GOOD, patch), ISSUED.wall)


@pytest.mark.rule("PLUGIN-11")
def test_render_shows_each_credential_of_a_file_offline(tmp_path: Path) -> None:
    """What is no credential is left out; nothing is asked, as there is no kubectl."""
    file = tmp_path / "app.yaml"
    bad = merged(GOOD, {"metadata": {"name": "bad"}, "spec": {"target": {"template": {"data": {"a": "${no}"}}}}})
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}}
    file.write_text(yaml.safe_dump_all([service, {"kind": "List", "items": [GOOD]}, bad]))
    ran = run("render", "-f", str(file), path="")
    assert ran.status == 1
    [target] = yaml.safe_load_all(ran.out)
    assert target["metadata"]["name"] == "storefront-token"
    assert target["stringData"]["access_token"] == MADE_UP_TOKEN
    assert ran.err.startswith("bad would be refused: spec.target.template.data: after a dollar sign")


@pytest.mark.rule("PLUGIN-11")
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: [", "is no YAML in line 1"),
        ("a: " + "[" * 20_000, "is no YAML"),
        ("a: !!int b", "is no YAML"),
        (f"a: {'9' * 5000}", "is no YAML"),
        ('a: "\\ud800"', "is no YAML"),
        ("kind: Service", "there is no TuinlyCredential"),
        (None, "No such file"),
    ],
)
def test_a_file_that_is_of_no_use_is_named(tmp_path: Path, text: str | None, told: str) -> None:
    file = tmp_path / "app.yaml"
    if text is not None:
        file.write_text(text)
    ran = run("render", "-f", str(file))
    assert (ran.status, len(ran.err.splitlines())) == (2, 1)
    assert "kubectl tuinly: " in ran.err
    assert told in ran.err


@pytest.mark.rule("PLUGIN-11")
def test_a_date_is_a_text_as_for_kubectl(tmp_path: Path) -> None:
    file = tmp_path / "app.yaml"
    file.write_text("a: 2026-11-26\nb: 2026-13-99")
    assert list(read_objects(str(file))) == [{"a": "2026-11-26", "b": "2026-13-99"}]


@pytest.mark.rule("PLUGIN-15")
def test_a_text_of_a_template_is_shown_as_what_it_is_and_moves_no_cursor() -> None:
    texts = {"a": "gnp\u202e \x1b[2J \x9b \x85", "b": "\u202ex\ny", "c": "tab\tand\nline", "d": "é\nü"}
    text = written(texts)
    assert yaml.safe_load(text) == texts
    assert all(line.isprintable() for line in text.split("\n"))
    assert "é" in written({"d": "é"})
