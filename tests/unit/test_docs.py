"""The docs against the code: what they name exists, and what exists is named."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.exposition import every_metric
from tuinly_operator.base.settings import FLAGS
from tuinly_operator.domain.credential import Credential
from tuinly_operator.domain.errors import Mark, Reason
from tuinly_operator.domain.template import layout_of

Json = dict[str, Any]

ROOT = Path(__file__).parents[2]
DOCS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")),
    *sorted(ROOT.glob("docs/**/*.md")),
]
REFERENCE = ROOT / "docs" / "reference"

each_page = pytest.mark.parametrize("page", DOCS, ids=lambda page: str(page.relative_to(ROOT)))


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def tables(text: str, *header: str) -> list[list[str]]:
    """Return the rows of all tables whose header begins so; without a header, of all tables."""
    rows: list[list[str]] = []
    within = False
    for line in text.splitlines():
        if not line.startswith("|"):
            within = False
        elif within:
            rows.append(cells(line))
        else:
            within = tuple(cells(line)[: len(header)]) == header
    return [row for row in rows if set(row[0]) != {"-"}]


def unquoted(cell: str) -> str:
    """Return what stands in backquotes; the cell itself, if nothing does."""
    match = re.match("`(.*?)`", cell)
    return match[1] if match else cell


def blocks(text: str, *languages: str) -> Iterator[str]:
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE):
        if match[1] in languages:
            yield match[2]


# Reference ------------------------------------------------------------------------------------------------------------


def test_each_reason_is_explained_once() -> None:
    rows = tables((REFERENCE / "reasons.md").read_text(), "Reason", "Where", "What it means", "What to do")
    assert sorted(unquoted(row[0]) for row in rows) == sorted(Reason)
    assert all(all(row) for row in rows)


def test_the_reasons_that_stall_and_those_with_the_longer_cap_are_named() -> None:
    stalls = re.search(
        r"^- `Stalled`: (.*?)\. Waiting", (REFERENCE / "reasons.md").read_text(), re.DOTALL | re.MULTILINE
    )
    slow = re.search(r"^\| RETRY-2 \|(.*)$", (ROOT / "docs" / "contract.md").read_text(), re.MULTILINE)
    for named, mark in ((stalls, Mark.STALLS), (slow, Mark.SLOW)):
        assert named is not None
        assert set(re.findall(r"`(\w+)`", named[1])) == {reason for reason in Reason if mark in reason.mark}


def test_troubleshooting_helps_with_every_reason_for_which_there_is_something_to_do() -> None:
    """A heading each."""
    helped = re.findall(r"^### (\w+)$", (ROOT / "docs" / "troubleshooting.md").read_text(), re.MULTILINE)
    rare = {Reason.INVALID_SPEC}
    fine = {
        Reason.ISSUED,
        Reason.ISSUING,
        Reason.SUSPENDED,
        Reason.TEMPLATE_CHANGED,
        Reason.PUSHED,
        Reason.PUSHING,
    }
    events = {
        Reason.RESTORED,
        Reason.LOOK_ALIKE,
        Reason.ANOTHER_OPERATOR,
        Reason.SCOPE_NARROWED,
        Reason.LIFETIME_TOO_SHORT,
        Reason.REFRESH_REFUSED,
    }
    assert sorted(helped) == sorted(set(Reason) - rare - fine - events)


def test_the_settings_are_those_of_the_program() -> None:
    """With variable, default and help; the help may go on."""
    flags = [flag for group in FLAGS.values() for flag in group]
    rows = tables((REFERENCE / "settings.md").read_text(), "Flag", "Variable", "Default", "What it sets")
    found = [(unquoted(name), unquoted(variable), unquoted(default)) for name, variable, default, _ in rows]
    assert found == [(flag.name, flag.variable, flag.default or flag.unset) for flag in flags]
    for flag, row in zip(flags, rows, strict=True):
        assert row[3].replace("`", "").startswith(flag.help), flag.name
        assert row[3].endswith("; repeatable") == flag.repeatable, flag.name


def understood(resource: Json) -> Credential:
    """Read a resource as the operator does, once the API server has added what every object has."""
    added = {"namespace": "shop", "uid": "6b1f0a52", "resourceVersion": "10"}
    return Credential.from_object({**resource, "metadata": {**resource["metadata"], **added}})


def test_the_metrics_are_those_that_are_rendered() -> None:
    rows = tables((REFERENCE / "metrics.md").read_text(), "Name", "Type", "Labels", "What it tells")
    documented = {unquoted(name): (kind, set(re.findall("`(.*?)`", labels))) for name, kind, labels, _ in rows}
    assert documented == every_metric()


def test_expressions_are_made_of_metrics_that_exist() -> None:
    known = every_metric()
    text = "\n".join(page.read_text() for page in DOCS)
    for expression in blocks(text, "promql"):
        names = re.findall(r"\btuinly_\w+", expression)
        assert names
        for name in names:
            assert re.sub("_(bucket|count|sum)$", "", name) in known


# What pages name ------------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and others make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


@each_page
def test_commands_name_what_there_is(page: Path) -> None:
    """Targets of make with their variables, files of the checkout, and modules that are run."""
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z0-9-]+):", makefile, flags=re.MULTILINE))
    folders = "crds|deploy|docs|hack|operator|requirements|tests"
    for block in blocks(page.read_text(), "sh", "console"):
        commands = re.sub(r"(^|\s)#.*", "", block)
        for target in re.findall(r"\bmake ([a-z0-9-]+)", commands):
            assert target in targets
        for path in re.findall(rf"(?<![\w./-])(?:{folders})/[\w./-]*", commands):
            assert (ROOT / path).exists(), path
        for module in re.findall(r"python -m (tests[\w.]*)", commands):
            assert list(ROOT.glob(module.replace(".", "/") + "*")), module


@each_page
def test_files_and_targets_in_the_text_exist(page: Path) -> None:
    text = page.read_text()
    for path in re.findall(r"`((?:crds|deploy|docs|hack|operator|requirements|tests)/[\w./-]*)`", text):
        assert (ROOT / path).exists(), path
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"`make ([a-z0-9-]+)", text)) <= targets


@each_page
def test_variables_are_settings(page: Path) -> None:
    text = re.sub(r"TUINLY_TOKEN=", "", page.read_text())  # a key of the template example
    variables = {flag.variable for group in FLAGS.values() for flag in group}
    assert set(re.findall(r"\bTUINLY_[A-Z_]*[A-Z]", text)) <= variables


@each_page
def test_resources_are_understood(page: Path) -> None:
    """What a reader copies into kubectl; what the API server says of the same rules is test_crd's."""
    for resource in resources(page.read_text()):
        credential = understood(resource)
        assert credential.problem is None
        layout_of(credential.spec.target.template)
        assert resource["apiVersion"] == "tuinly.com/v1alpha1"


def resources(text: str) -> Iterator[Json]:
    documents = list(blocks(text, "yaml"))
    for block in blocks(text, "sh"):
        documents += re.findall(r"<<'END'\n(.*?)^END$", block, flags=re.DOTALL | re.MULTILINE)
    for document in documents:
        for loaded in yaml.safe_load_all(document):
            if isinstance(loaded, dict) and loaded.get("kind") == "TuinlyCredential":
                yield loaded


@pytest.mark.parametrize("page", ["first-credential.md", "in-a-pod.md"])
def test_a_page_for_beginners_shows_a_resource(page: str) -> None:
    assert len(list(resources((ROOT / "docs" / page).read_text()))) == 1


# Architecture and decisions -------------------------------------------------------------------------------------------


def test_the_architecture_tells_what_each_module_is_for() -> None:
    rows = tables((ROOT / "docs" / "architecture.md").read_text(), "Module", "For")
    package = ROOT / "operator" / "tuinly_operator"
    files = {path for path in package.rglob("*.py") if path.name != "__init__.py"}
    modules = {str(path.relative_to(package).with_suffix("")) for path in files}
    named = [unquoted(row[0]) for row in rows]
    assert sorted(named) == sorted(modules)


def test_the_picture_of_the_modules_is_current(tmp_path: Path) -> None:
    picture = tmp_path / "architecture.svg"
    subprocess.run([sys.executable, ROOT / "hack" / "architecture.py", picture], check=True, timeout=60)  # noqa: S603
    assert (ROOT / "docs" / "architecture.svg").read_text() == picture.read_text(), "run `make architecture`"


@pytest.mark.parametrize(
    ("text", "line", "slip"),
    [
        ("Run this: ```sh make check ```", 1, "the mark of a code block within a line"),
        ("```sh\nmake check", 1, "a code block without an end"),
        ("```sh\nmake venv make check\n```", 2, "a second command on the same line"),
        (
            "```sh\ncd here; make venv\nkubectl get pods kubectl get secrets\n```",
            3,
            "a second command on the same line",
        ),
        ("```yaml\nkind: Secret metadata: {name: a}\n```", 2, "YAML that cannot be read"),
        ("```json\n{} {}\n```", 2, "JSON that cannot be read"),
        ("Two things: - one, - the other", 1, "a list item within a sentence"),
        ("Do this. 2. Then do that.", 1, "a list item within a sentence"),
        ("It ends here. ## What follows", 1, "a heading within a sentence"),
        ("# A title\nand its text", 1, "a heading without an empty line before and after it"),
        ("Delete it: kubectl delete pod a", 1, "a command outside a code block"),
        ("| a | b |\n|---|---|\n| c |", 3, "another number of cells than the table's head has"),
        ("| a | b |\n| c | d |", 2, "a table without a line under its head"),
        ("word " * 25, 1, "longer than 120 characters"),
    ],
)
def test_slips_of_wrapping_are_found(tmp_path: Path, text: str, line: int, slip: str) -> None:
    """What `make check` looks for in each page; the docs as they are have none."""
    page = tmp_path / "page.md"
    page.write_text(text)
    found = subprocess.run([sys.executable, ROOT / "hack" / "check_docs.py", page], capture_output=True, text=True)  # noqa: PLW1510, S603
    assert (found.returncode, found.stdout.startswith(f"{page}:{line}: {slip}")) == (1, True), found.stdout


def test_decisions_are_numbered_listed_and_complete() -> None:
    records = sorted((ROOT / "docs" / "decisions").glob("0*.md"))
    listed = re.findall(r"\]\((0.*\.md)\)", (ROOT / "docs" / "decisions" / "README.md").read_text())
    assert listed == [record.name for record in records]
    assert [int(record.name[:4]) for record in records] == list(range(1, len(records) + 1))
    for record in records:
        headings = re.findall(r"^#+ (.*)$", record.read_text(), flags=re.MULTILINE)
        assert headings[0].startswith(f"{record.name[:4]}: ")
        assert headings[1:] == ["Context", "Decision", "Consequences"], record.name
