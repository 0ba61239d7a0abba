"""What a report gives away of objects: nothing that a Secret holds, or may come to hold."""

from kubectl_tuinly.rules import redacted
from tests.unit.plugin.objects import deployment


def test_of_a_template_the_variables_are_kept() -> None:
    data = {"a": "Bearer ${access_token}!", "b": "${scope}", "c": "pw", "d": "", "e": "$$x${client_id}"}
    raw = {
        "metadata": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": "pw", "own": "1"}},
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
    assert found["metadata"]["annotations"] == {"own": "1"}
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
