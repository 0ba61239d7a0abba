"""The plugin as a program: help, wrong use, completion, terminals, and that it is light."""

import os
import pty
import re
import subprocess
from pathlib import Path

import pytest

from kubectl_tuinly import VERSION
from kubectl_tuinly.arguments import COMMANDS, login_flags, parser
from kubectl_tuinly.completion import complete
from kubectl_tuinly.edges import screen
from kubectl_tuinly.rules.steps import Step, Verdict
from kubectl_tuinly.rules.view import rows_of
from tests.support.plugin import ROOT, command
from tests.unit.plugin.objects import GOOD, NOW, told
from tests.unit.plugin.program import run
from tuinly_operator.domain.errors import Reason


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help_with_examples_and_exit_statuses(name: str) -> None:
    ran = run(name, "--help")
    assert (ran.status, ran.err) == (0, "")
    assert f"  kubectl tuinly {name}" in ran.out
    assert "Exit status: 0 ready" in ran.out


@pytest.mark.parametrize("words", [("--help",), ("status", "--wrong")])
def test_help_and_wrong_use_load_nothing_heavy(words: tuple[str, ...]) -> None:
    """By what is imported, since a busy machine says nothing of time."""
    code = "import sys; from kubectl_tuinly.__main__ import main\ntry: main(sys.argv[1:])\nfinally: print(*sys.modules)"
    ran = run(*words, program=[*command()[:1], "-c", code])
    loaded = set(ran.out.splitlines()[-1].split())
    assert "kubectl_tuinly.arguments" in loaded
    assert loaded.isdisjoint({"rich", "yaml", "http.client", "subprocess", "tuinly_operator.domain.credential"})


@pytest.mark.parametrize(
    ("words", "told_of"),
    [
        ((), "the following arguments are required: COMMAND (see kubectl tuinly --help)"),
        (("status", "-o", "xml"), "invalid choice: 'xml'"),
        (("status", "a", "-A"), "either NAME, or -A and -l, not both"),
        (("status", "-n", "shop", "-A"), "either -n or -A, not both"),
        (("status", "-n", "shop", "-w", "-o", "json"), "--watch shows a table"),
        (("renew", "-n", "shop"), "name the credentials, or select them"),
        (
            ("renew", "a", "--timeout", "soon"),
            "'soon' is not a duration such as 90s or 2m (see kubectl tuinly renew --help)",
        ),
        (("renew", "a", "--timeout", "48h"), "is more than a day"),
        (("why", ""), "argument NAME: '' is no name"),
        (("why", "../x", "-n", "shop"), "'../x' is no name: those have small letters, digits, - and ."),
        (("why", "Store", "-n", "shop"), "'Store' is no name"),
        (("renew", "a", "b c", "-n", "shop"), "'b c' is no name"),
        (("why", "x" * 254), f"'{'x' * 49}…' is no name"),
        (("status", "-n", "a/b"), "argument -n/--namespace: 'a/b' is no name"),
        (("check", "--operator-namespace", ".."), "argument --operator-namespace: '..' is no name"),
    ],
)
def test_wrong_use_is_one_line_and_status_2(words: tuple[str, ...], told_of: str) -> None:
    ran = run(*words)
    assert (ran.status, ran.out, len(ran.err.splitlines())) == (2, "", 1), ran
    assert told_of in ran.err


def test_without_kubectl_it_says_so() -> None:
    ran = run("status", path="")
    assert ran.status == 3
    assert "there is no kubectl on PATH" in ran.err


def test_the_logins_flags_are_handed_on_wherever_they_stand() -> None:
    options = parser().parse_args(["--context", "a", "status", "--as", "b", "--as-group", "c", "--as-group", "d"])
    assert login_flags(options) == ["--context", "a", "--as", "b", "--as-group", "c", "--as-group", "d"]


def test_a_token_is_not_shown_on_a_terminal() -> None:
    ours, theirs = pty.openpty()
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "plugin")}
    words = [*command(), "token", "storefront"]
    answer = subprocess.run(words, stdout=theirs, stderr=subprocess.PIPE, text=True, timeout=60, env=environ)  # noqa: PLW1510, S603
    os.close(theirs)
    os.close(ours)
    assert answer.returncode == 2
    assert "pipe it, or say --yes" in answer.stderr


# Completion -----------------------------------------------------------------------------------------------------------


def test_commands_and_flags_are_completed() -> None:
    assert complete(["st"]).splitlines() == ["status\tshow credentials, those first that need attention", ":4"]
    assert complete(["status", "--wa"]) == "--watch\tgo on, and show what changes\n:4"
    assert complete(["-n", "status", "renew", "--ti"]).startswith("--timeout\t")
    assert complete(["status", "-o", ""]).splitlines() == ["wide", "json", "yaml", ":4"]
    assert complete(["render", "-f", ""]) == ":0"
    assert complete(["version", ""]) == ":4"
    assert complete([]).count("\n") == len(COMMANDS)


def test_names_come_from_the_cluster_with_the_flags_so_far(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By a program in kubectl's place, which tells how it was called."""
    fake = tmp_path / "kubectl"
    names = "tuinlycredential.tuinly.com/storefront tuinlycredential.tuinly.com/stock"
    fake.write_text(f'#!/bin/sh\necho "$@" >> "$0.calls"\nprintf "%s\\n" {names}\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert complete(["why", "--context", "a", "-n", "shop", "sto"]) == "storefront\nstock\n:4"
    assert complete(["renew", "stock", ""]) == "storefront\n:4"
    [first, _] = (tmp_path / "kubectl.calls").read_text().splitlines()
    assert first.endswith("get tuinlycredentials.tuinly.com --output=name --namespace shop --context a")


def test_where_kubectl_fails_nothing_is_suggested(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert complete(["why", ""]) == ":4"
    (tmp_path / "kubectl").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "kubectl").chmod(0o755)
    assert complete(["why", "-n", ""]) == ":4"
    assert complete(["why", "--context", ""]) == ":4"


# Terminal -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def on_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard output is taken for a terminal of 100 columns."""
    monkeypatch.setattr(screen, "shows_output", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")


ROWS = rows_of([told(GOOD, GOOD), told("False:InvalidClient", "False:InvalidClient", name="broken")], NOW)


@pytest.mark.usefixtures("on_terminal")
def test_on_a_terminal_rows_have_colours(capsys: pytest.CaptureFixture[str]) -> None:
    screen.show_rows(ROWS, namespaces=True, wide=False)
    out = capsys.readouterr().out
    assert "\x1b[1;31mno" in out
    assert "\x1b[32myes" in out
    assert re.sub(r"\x1b\[[0-9;]*m", "", out).splitlines()[1].split()[:3] == ["shop", "broken", "no"]


@pytest.mark.usefixtures("on_terminal")
def test_findings_end_with_what_to_do_and_no_markup_is_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    screen.show_steps([Step("Target", Verdict.WRONG, "[red]forged[/red] \x1b[2J", "Mend [it].")])
    out = capsys.readouterr().out
    assert "[red]forged[/red] \\x1b[2J" in out
    assert "Mend [it]." in out


@pytest.mark.usefixtures("on_terminal")
def test_what_is_live_is_shown_in_place(capsys: pytest.CaptureFixture[str]) -> None:
    with screen.live_rows(namespaces=False, wide=True) as show:
        show(ROWS)
        show(ROWS)
    out = capsys.readouterr().out
    assert out.count("broken") >= 2
    assert "\x1b[1A" in out  # up again, to write over it


def test_in_a_pipe_only_changed_rows_are_told_again(capsys: pytest.CaptureFixture[str]) -> None:
    with screen.live_rows(namespaces=False, wide=False) as show:
        show(ROWS)
        show(rows_of([told(GOOD, GOOD), told(GOOD, GOOD, name="broken")], NOW + 1))
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["broken", "storefront", "broken"]


def test_in_a_pipe_nothing_is_cut_off(capsys: pytest.CaptureFixture[str]) -> None:
    name = "a-name-of-fifty-characters-which-is-a-long-one-indeed"
    screen.show_rows(
        rows_of([told(GOOD, f"False:{Reason.VERIFICATION_INCONCLUSIVE}", name=name)], NOW), namespaces=True, wide=True
    )
    out = capsys.readouterr().out
    assert name in out
    assert "about VerificationInconclusive" in out
    assert "\x1b" not in out


def test_a_row_forges_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    forged = told("False:InvalidClient", "False:InvalidClient")
    forged["status"]["conditions"][0]["message"] = "fine\nother   yes \x1b[2J"
    screen.show_rows(rows_of([forged], NOW), namespaces=False, wide=True)
    out = capsys.readouterr().out
    assert "fine\\nother   yes \\x1b[2J" in out
    assert len(out.splitlines()) == 2


def test_nobody_is_asked_where_nobody_sits(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not screen.agrees("Sure?")
    monkeypatch.setattr(screen, "has_person", lambda: True)
    for answer, agreed in (("y\n", True), ("Yes\n", True), ("\n", False), ("no\n", False)):
        monkeypatch.setattr("sys.stdin", type("Stdin", (), {"readline": lambda _, answer=answer: answer})())
        assert screen.agrees("Sure?") is agreed


def test_the_version_is_the_operators() -> None:
    assert f'version = "{VERSION}"' in (ROOT / "pyproject.toml").read_text()
