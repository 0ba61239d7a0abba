"""What a report gives away of objects: nothing that a Secret holds, or may come to hold."""

import json

import pytest

from kubectl_tuinly.rules import redacted
from tests.unit.plugin.objects import deployment


@pytest.mark.rule("PLUGIN-13")
def test_of_a_template_the_variables_are_kept() -> None:
    data = {"a": "Bearer ${access_token}!", "b": "${scope}", "c": "pw", "d": "", "e": "$$x${client_id}"}
    raw = {
        "metadata": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": "pw", "tuinly.com/x": "1"}},
        "spec": {"target": {"template": {"data": data}}},
    }
    found = redacted.credential(raw)
    mask = "(left out)"
    assert found["spec"]["target"]["template"]["data"] == {
        "a": f"{mask}${{access_token}}{mask}",
        "b": "${scope}",
        "c": mask,
        "d": mask,
        "e": f"$${mask}${{client_id}}",
    }
    # Other tools, too, keep the whole object in an annotation.
    kept = {"kubectl.kubernetes.io/last-applied-configuration": mask, "tuinly.com/x": "1"}
    assert found["metadata"]["annotations"] == kept
    assert raw["spec"]["target"]["template"]["data"] == data  # type: ignore[index]


def test_of_a_deployments_variables_the_operators_are_kept() -> None:
    raw = deployment(
        [], [{"name": "HTTPS_PROXY", "value": "http://u:pw@proxy"}, {"name": "TUINLY_LOG_LEVEL", "value": "debug"}]
    )
    env = {
        each["name"]: each.get("value")
        for each in redacted.deployment(raw)["spec"]["template"]["spec"]["containers"][0]["env"]
    }
    assert (env["HTTPS_PROXY"], env["TUINLY_LOG_LEVEL"]) == ("(left out)", "debug")


@pytest.mark.rule("PLUGIN-13")
def test_of_a_container_beside_the_operator_no_words_are_kept() -> None:
    raw = deployment(["--lease=a/b"])
    beside = {"name": "beside", "command": ["proxy"], "args": ["--password=pw"], "env": [{"name": "P", "value": "pw"}]}
    raw["spec"]["template"]["spec"]["containers"].append(beside)
    raw["spec"]["template"]["metadata"]["annotations"] = {"inject": "pw"}
    found = redacted.deployment(raw)
    assert "pw" not in json.dumps(found)
    assert "--lease=a/b" in json.dumps(found)


@pytest.mark.rule("PLUGIN-13")
def test_a_password_in_a_url_is_left_out() -> None:
    """The operator refuses it as a setting; the report of why it does not start is asked for just then."""
    text = '--token-url=https://u:pw@h/t "https://u:p%40w@h" see https://h/a@b and me@h'
    assert redacted.text(text) == '--token-url=https://(left out)@h/t "https://(left out)@h" see https://h/a@b and me@h'
