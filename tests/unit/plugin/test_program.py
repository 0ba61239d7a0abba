"""The plugin as a program: help, wrong use, completion, terminals, and that it is light."""

import os
import pty
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from kubectl_tuinly import VERSION
from kubectl_tuinly.arguments import COMMANDS, login_flags, parser
from kubectl_tuinly.completion import complete
from kubectl_tuinly.edges import screen
from kubectl_tuinly.rules.steps import Step, Verdict
from kubectl_tuinly.rules.view import rows_of
from tests.support.crd import GOOD as GOOD_OBJECT
from tests.support.merge import merged
from tests.support.plugin import ROOT, command
from tests.unit.plugin.objects import GOOD, NOW, told
from tests.unit.plugin.program import run
from tuinly_operator.domain.errors import Reason


@pytest.mark.rule("PLUGIN-5")
@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help_with_examples_and_exit_statuses(name: str) -> None:
    ran = run(name, "--help")
    assert (ran.status, ran.err) == (0, "")
    assert f"  kubectl tuinly {name}" in ran.out
    assert "Exit status: 0 ready" in ran.out


@pytest.mark.rule("PLUGIN-5")
@pytest.mark.parametrize("words", [("--help",), ("status", "--wrong")])
def test_help_and_wrong_use_load_nothing_heavy(words: tuple[str, ...]) -> None:
    """By what is imported, since a busy machine says nothing of time."""
    code = "import sys; from kubectl_tuinly.__main__ import main\ntry: main(sys.argv[1:])\nfinally: print(*sys.modules)"
    ran = run(*words, program=[*command()[:1], "-c", code])
    loaded = set(ran.out.splitlines()[-1].split())
    assert "kubectl_tuinly.arguments" in loaded
    assert loaded.isdisjoint({"rich", "yaml", "http.client", "subprocess", "tuinly_operator.domain.credential"})


@pytest.mark.rule("PLUGIN-4")
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


@pytest.mark.rule("PLUGIN-1")
def test_without_kubectl_it_says_so() -> None:
    ran = run("status", path="")
    assert ran.status == 3
    assert "there is no kubectl on PATH" in ran.err


@pytest.mark.rule("PLUGIN-1")
def test_the_logins_flags_are_handed_on_wherever_they_stand() -> None:
    options = parser().parse_args(["--context", "a", "status", "--as", "b", "--as-group", "c", "--as-group", "d"])
    assert login_flags(options) == ["--context", "a", "--as", "b", "--as-group", "c", "--as-group", "d"]


@pytest.mark.rule("PLUGIN-13")
def test_a_token_is_not_shown_on_a_terminal() -> None:
    ours, theirs = pty.openpty()
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "plugin")}
    words = [*command(), "token", "storefront"]
    answer = subprocess.run(words, stdout=theirs, stderr=subprocess.PIPE, text=True, timeout=60, env=environ)  # noqa: PLW1510, S603
    os.close(theirs)
    os.close(ours)
    assert answer.returncode == 2
    assert "pipe it, or say --yes" in answer.stderr


SAMPLE = str(ROOT / "deploy" / "samples" / "storefront.yaml")


@pytest.mark.rule("PLUGIN-14")
@pytest.mark.parametrize(
    ("closed", "words", "ends", "told"),
    [
        ("<&-", ("status", "-n", "shop"), 3, "cannot be reached"),
        (">&-", ("render", "-f", SAMPLE), 0, ""),
        (">/dev/full", ("render", "-f", SAMPLE), 3, "No space left on device\n"),
    ],
)
def test_a_stream_that_is_closed_or_full_is_no_failure_of_its_own(
    closed: str, words: tuple[str, ...], ends: int, told: str
) -> None:
    ran = run(*words, program=["/bin/sh", "-c", f'exec "$0" "$@" {closed}', *command()])
    assert (ran.status, len(ran.err.splitlines())) == (ends, bool(told)), ran.err
    assert told in ran.err


@pytest.mark.rule("PLUGIN-14")
def test_letters_that_the_output_has_not_are_escaped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "app.yaml"
    file.write_text(yaml.safe_dump(merged(GOOD_OBJECT, {"spec": {"target": {"template": {"data": {"a": "é"}}}}})))
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    ran = run("render", "-f", str(file))
    assert ran.status == 0, ran.err
    assert "\\xe9" in ran.out


# Completion -----------------------------------------------------------------------------------------------------------


@pytest.mark.rule("PLUGIN-5")
def test_commands_and_flags_are_completed() -> None:
    assert complete(["st"]).splitlines() == ["status\tshow credentials, those first that need attention", ":4"]
    assert complete(["status", "--wa"]) == "--watch\tgo on, and show what changes\n:4"
    assert complete(["-n", "status", "renew", "--ti"]).startswith("--timeout\t")
    assert complete(["status", "-o", ""]).splitlines() == ["wide", "json", "yaml", ":4"]
    assert complete(["render", "-f", ""]) == ":0"
    assert complete(["version", ""]) == ":4"
    assert complete([]).count("\n") == len(COMMANDS)


@pytest.mark.rule("PLUGIN-5")
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


@pytest.mark.rule("PLUGIN-5")
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


@pytest.mark.rule("PLUGIN-6")
def test_in_a_pipe_who_was_deleted_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    for namespaces in (True, False):
        with screen.live_rows(namespaces=namespaces, wide=False) as show:
            show(ROWS)
            show(ROWS[:1])
            show(ROWS[:1])
        gone = f"{'shop   ' if namespaces else ''}{ROWS[1].key.name}   deleted"
        assert capsys.readouterr().out.splitlines().count(gone) == 1


@pytest.mark.rule("PLUGIN-15")
@pytest.mark.usefixtures("on_terminal")
def test_findings_end_with_what_to_do_and_no_markup_is_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    screen.show_steps([Step("Target", Verdict.WRONG, "[red]forged[/red] \x1b[2J", "Mend [it].")])
    out = capsys.readouterr().out
    assert "[red]forged[/red] \\x1b[2J" in out
    assert "Mend [it]." in out


@pytest.mark.rule("PLUGIN-14")
@pytest.mark.usefixtures("on_terminal")
def test_what_to_do_can_be_copied_from_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The terminal breaks the line, where it must, and nothing is left out of long words."""
    monkeypatch.setenv("COLUMNS", "40")
    url, todo = (
        "https://tuinly.example/a-word-that-is-longer",
        "kubectl -n tuinly-system describe pods -l name=operator",
    )
    screen.show_steps([Step("Token URL", Verdict.WRONG, url, todo)])
    out = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert out.endswith(f"\nNext: {todo}\n")
    assert url in "".join(out.split()).replace("✗TokenURL", "")


@pytest.mark.rule("PLUGIN-14")
@pytest.mark.usefixtures("on_terminal")
@pytest.mark.parametrize(("columns", "folds"), [(60, False), (200, True)])
def test_where_a_table_does_not_fit_the_terminal_breaks_its_lines_and_nothing_is_left_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int, *, folds: bool
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    long = told("False:InvalidClient", "False:InvalidClient", name="a-name-of-some-thirty-letters-in-all")
    long["status"]["conditions"][0]["message"] = message = "words " * 20 + "end"
    screen.show_rows(rows_of([long], NOW), namespaces=True, wide=True)
    out = capsys.readouterr().out
    assert "a-name-of-some-thirty-letters-in-all" in out
    assert "…" not in out
    assert (message in out) is not folds


@pytest.mark.rule("PLUGIN-15")
def test_no_text_is_shown_without_end(capsys: pytest.CaptureFixture[str]) -> None:
    """Such as an image's name in a Deployment that passes for an operator's."""
    screen.show_steps([Step("Deployment", Verdict.WRONG, "x" * 100_000, "y" * 100_000)])
    assert len(capsys.readouterr().out) < 10_000


@pytest.mark.rule("PLUGIN-15")
def test_what_is_said_moves_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    screen.say("one \x1b[2J\ntwo \u202e")
    screen.tell("three \x9b2J")
    out, err = capsys.readouterr()
    assert (out, err) == ("one \\x1b[2J\ntwo \\u202e\n", "three \\x9b2J\n")


@pytest.mark.rule("PLUGIN-14")
def test_what_came_of_it_goes_into_a_file_while_progress_is_shown() -> None:
    """Standard output is a pipe, standard error a terminal."""
    ours, theirs = pty.openpty()
    code = "from kubectl_tuinly.edges.screen import progress, say\n"
    code += "with progress() as news: news('waiting'); say('there is a new token')"
    answer = subprocess.run(  # noqa: S603 -- our own
        [*command()[:1], "-c", code],
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "plugin"), "TERM": "xterm"},
    )
    os.close(theirs)
    os.close(ours)
    assert answer.stdout == "there is a new token\n"


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


@pytest.mark.rule("PLUGIN-15")
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
