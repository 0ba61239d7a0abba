"""What the operator is given in the Pods of its Deployment: its variables, as the kubelet works them out."""

import re
from typing import Any

Json = dict[str, Any]


def variables(deployment: Json) -> dict[str, str]:
    """Return the variables of the Deployment's only container.

    A reference, $(NAME), is to a variable before it, and else stays as it is written:
    https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/
    """
    pod = deployment["spec"]["template"]["spec"]
    fields = {
        "metadata.namespace": deployment["metadata"]["namespace"],
        "spec.serviceAccountName": pod["serviceAccountName"],
    }
    [container] = pod["containers"]
    found: dict[str, str] = {}
    for each in container["env"]:
        if "valueFrom" in each:
            found[each["name"]] = fields[each["valueFrom"]["fieldRef"]["fieldPath"]]
        else:
            found[each["name"]] = re.sub(r"\$\((\w+)\)", lambda named: found.get(named[1], named[0]), each["value"])
    return found
