"""Renders what is derived in deploy/, by `make manifests`: the files to apply as they are, and the chart's copies.

kustomize gives the files' objects, but in its own order and without a comment. So keys come in the order of the base,
and its comments go with what they stand at: the files are read by people before they are applied.

With a folder as argument the files are written there instead of the checkout, for the test that compares them.
"""

import re
import subprocess
import sys
import sysconfig
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

Path_ = tuple[str | int, ...]  # where a node is in its object: keys, and numbers of items

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
KUBECTL = Path(sysconfig.get_path("scripts")) / "kubectl"

INSTALL = """\
# The operator for all namespaces of a cluster. Needs Kubernetes 1.32 or later.
#
{how_to_apply}
#
# On a shared cluster, namespaced.yaml is the better choice: there the operator reads the Secrets of chosen namespaces
# only. Use one or the other; to change over, delete the first.
#
"""
NAMESPACED = """\
# The operator for one namespace, here "shop", which must exist: it may read the Secrets of that namespace and no
# others, and has no right over the cluster. The recommended form for shared clusters. Needs Kubernetes 1.32 or later.
#
{how_to_apply}
#
# For a further namespace, repeat the Role and RoleBinding of "shop" and the flag --namespace.
#
"""
HOW_TO_APPLY = """\
# No cluster can pull the image that is named below, which is to be set. Build the image with the Dockerfile, push it to
# a registry that the cluster can pull from, here $IMAGE, and name it whenever you apply this file:
#
#   kubectl apply -f crds/
#   sed "s|registry.invalid/tuinly-operator:0.1.0|$IMAGE|" deploy/{file} | kubectl apply -f -"""
RENDERED = "# Rendered from deploy/{folder} by `make manifests`; change it there.\n\n"


def main(folder: Path) -> None:
    """Write the files into `folder`, which is the checkout or stands for it."""
    (folder / "deploy").mkdir(exist_ok=True)
    for file, source, head in (("install.yaml", "base", INSTALL), ("namespaced.yaml", "namespaced", NAMESPACED)):
        above = head.format(how_to_apply=HOW_TO_APPLY.format(file=file)) + RENDERED.format(folder=source)
        (folder / "deploy" / file).write_text(above + "---\n".join(rendered(DEPLOY / source)))
    chart = folder / "deploy" / "chart"
    for part in ("templates", "files"):
        (chart / part).mkdir(parents=True, exist_ok=True)
    (chart / "templates" / "definition.yaml").write_text(definition())
    (chart / "files" / "alerts.yaml").write_text(alerts())
    (chart / "files" / "push-policy.yaml").write_text(push_policy())


def definition() -> str:
    """Return the CRD as a template: one that Helm upgrades, and leaves where it is when the release goes."""
    text = (ROOT / "crds" / "tuinlycredentials.yaml").read_text()
    text = text.replace("{{", '{{ "{{" }}')
    kept, times = re.subn(
        r"^metadata:\n(  name: .*\n)",
        "metadata:\n"
        r"\1"
        "  annotations:\n"
        "    helm.sh/resource-policy: keep  # or all credentials would go with the release\n",
        text,
        flags=re.MULTILINE,
    )
    assert times == 1  # noqa: S101 -- the one of crds/
    head = "{{- if .Values.crds.enabled -}}\n# From crds/ by `make manifests`; change it there.\n"
    return head + kept + "{{- end }}\n"


def alerts() -> str:
    """Return the alerts without their head: what a PrometheusRule has as its spec."""
    text = (DEPLOY / "monitoring" / "prometheus-rules.yaml").read_text()
    head = "# From deploy/monitoring/prometheus-rules.yaml by `make manifests`; change it there.\n"
    return head + text[text.index("groups:\n") :]


def push_policy() -> str:
    """Return the spec of Push's policy, which is the same whatever the account is called."""
    text = (DEPLOY / "components" / "push" / "policy.yaml").read_text().split("---\n")[0]
    head = "# From deploy/components/push/policy.yaml by `make manifests`; change it there.\n"
    return head + textwrap.dedent(text.partition("\nspec:\n")[2])


def rendered(kustomization: Path) -> Iterator[str]:
    """Yield the objects of a kustomization as text, as the base has them written."""
    base = dict(documents(DEPLOY / "base"))
    command = [KUBECTL, "kustomize", kustomization]
    objects = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout  # noqa: S603 -- from its wheel
    for each in yaml.safe_load_all(objects):
        text = base.get(identity(each), "{}")
        plain = yaml.safe_dump(in_order(each, yaml.safe_load(text)), sort_keys=False, width=1000)
        yield aligned(commented(plain, text))


def documents(folder: Path) -> Iterator[tuple[tuple[str, str], str]]:
    """Yield each object of the base: its identity and its text."""
    for file in yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]:
        for text in (folder / file).read_text().split("---\n"):
            yield identity(yaml.safe_load(text)), text


def identity(each: dict[str, Any]) -> tuple[str, str]:
    """Return kind and name; a component may make a ClusterRole a Role."""
    return each["kind"].removeprefix("Cluster"), each["metadata"]["name"]


def in_order(value: Any, source: Any) -> Any:  # noqa: ANN401 -- JSON
    """Return a value with its keys in the order of the source, and those that it lacks behind them."""
    if isinstance(value, dict):
        known = source if isinstance(source, dict) else {}
        keys = [*(key for key in known if key in value), *(key for key in value if key not in known)]
        return {key: in_order(value[key], known.get(key)) for key in keys}
    if isinstance(value, list):
        items = source if isinstance(source, list) else []
        return [in_order(item, items[n] if n < len(items) else None) for n, item in enumerate(value)]
    return value


def commented(text: str, source: str) -> str:
    """Put the comments of the source where they belong in another text of the same object."""
    above: dict[Path_, list[str]] = {}
    behind: dict[Path_, str] = {}
    block: list[str] = []
    places = starts(source)
    for number, line in enumerate(source.splitlines()):
        stripped = line.strip()
        if stripped.startswith("#"):
            block.append(stripped)
            continue
        if number in places:
            if block:
                above[places[number]] = block
            if comment := re.search(r"\s(# .*)$", line):
                behind[places[number]] = comment[1]
        block = []
    places, lines = starts(text), []
    for number, line in enumerate(text.splitlines()):
        place = places.get(number)
        if place is not None:
            indent = line[: len(line) - len(line.lstrip())]
            lines += [indent + comment for comment in above.get(place, [])]
            line += f"  {behind[place]}" if place in behind else ""  # noqa: PLW2901 -- the same line, commented
        lines.append(line)
    return "\n".join(lines) + "\n"


def starts(text: str) -> dict[int, Path_]:
    """Return for each line of an object's text what begins there: the outermost, where it is several."""
    root = yaml.compose(text, yaml.SafeLoader)
    found: dict[int, Path_] = {root.start_mark.line: ()}

    def walk(node: yaml.Node, place: Path_) -> None:
        parts: list[tuple[str | int, yaml.Node, yaml.Node]] = []  # key or number, where it begins, value
        if isinstance(node, yaml.MappingNode):
            parts = [(key.value, key, value) for key, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            parts = [(number, item, item) for number, item in enumerate(node.value)]
        for key, first, value in parts:
            found.setdefault(first.start_mark.line, (*place, key))
            walk(value, (*place, key))

    walk(root, ())
    return found


def aligned(text: str) -> str:
    """Align the comments that stand behind something on lines that follow each other."""
    lines: list[str] = []
    group: list[tuple[str, str]] = []
    for line in [*text.splitlines(), ""]:
        match = re.fullmatch(r"(\s*[^\s#].*?)  (# .*)", line)
        if match:
            group.append((match[1], match[2]))
            continue
        width = max((len(code) for code, _ in group), default=0)
        lines += [f"{code:{width}}  {comment}" for code, comment in group]
        group = []
        lines.append(line)
    return "\n".join(lines)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
