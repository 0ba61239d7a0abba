"""The demo reads well in a terminal and in a log, and believes nothing that it has not seen."""

import html
import io
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.auditor import Credential, Finding, Verdict, Wrong
from tests.support.demo import facts
from tests.support.demo.__main__ import TITLE
from tests.support.demo.checker import Checker, FactError, require
from tests.support.demo.narrator import Narrator
from tests.support.demo.story import scenes
from tests.support.sandbox import TokenRequest
from tests.unit import script

ROOT = Path(__file__).parents[2]


class Terminal(io.StringIO):
    """A stream that says it is a terminal; its width comes from COLUMNS."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def log() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def narrator(log: io.StringIO) -> Narrator:
    return Narrator(log, {})


def test_a_log_gets_plain_lines(narrator: Narrator, log: io.StringIO) -> None:
    narrator.title("a story")
    narrator.say("once upon a time")
    narrator.command("kubectl get tc")
    narrator.show("NAME\n  storefront\n")
    narrator.holds("it is so")
    narrator.fails("it is not so", "that")
    assert log.getvalue().splitlines() == [
        "a story",
        "    once upon a time",
        "    $ kubectl get tc",
        "      NAME",
        "        storefront",
        "    ✓ it is so",
        "    ✗ it is not so",
        "      that",
    ]


@pytest.mark.parametrize(
    ("environ", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_a_terminal_gets_colours_unless_it_is_told_not_to(environ: dict[str, str], *, coloured: bool) -> None:
    stream = Terminal()
    Narrator(stream, environ).holds("it is so")
    assert ("\x1b[32m✓\x1b[0m" in stream.getvalue()) == coloured


def test_a_terminal_has_no_rest_of_what_was_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    stream = Terminal()
    Narrator(stream, {"NO_COLOR": "1"}).say("done")
    assert stream.getvalue() == "\r\x1b[K    done\n"


def test_output_is_cut_at_the_terminals_width_and_prose_is_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    stream = Terminal()
    narrator = Narrator(stream, {"NO_COLOR": "1"})
    narrator.show("0123456789abcdefghij")
    narrator.holds("a fact of some length")
    assert stream.getvalue().replace("\r\x1b[K", "").splitlines() == [
        "      0123456789abc…",
        "    ✓ a fact of some",
        "      length",
    ]


def test_a_scene_has_a_number_and_the_time_so_far(log: io.StringIO) -> None:
    now = 100.0
    narrator = Narrator(log, {}, lambda: now)
    narrator.scene("The token appears")
    now = 112.4
    narrator.scene("The token works")
    headings = [line for line in log.getvalue().splitlines() if line]
    assert [len(line) for line in headings] == [100, 100]
    assert headings[0].startswith("1. The token appears ──")
    assert headings[0].endswith("── 0 s")
    assert headings[1].startswith("2. The token works ──")
    assert headings[1].endswith("── 12 s")


def test_a_document_is_shown_as_a_shell_takes_it(narrator: Narrator, log: io.StringIO) -> None:
    narrator.command("kubectl apply -f -", "kind: Secret\n")
    assert log.getvalue().splitlines() == ["    $ kubectl apply -f - <<END", "      kind: Secret", "      END"]


def test_a_fact_that_holds_is_told_with_what_more_there_is(narrator: Narrator, log: io.StringIO) -> None:
    check = Checker(narrator)
    check("it is so", lambda: None)
    check("the token works", lambda: "HTTP 200")
    assert log.getvalue().splitlines() == ["    ✓ it is so", "    ✓ the token works: HTTP 200"]
    assert check.held == 2


def test_a_fact_may_take_some_time(narrator: Narrator, log: io.StringIO) -> None:
    looks = iter([False, False, True])
    Checker(narrator)("it comes", lambda: require(next(looks), "not yet"), within=60)
    assert log.getvalue() == "    ✓ it comes\n"
    assert next(looks, None) is None


def test_a_fact_that_does_not_come_true_is_none(narrator: Narrator, log: io.StringIO) -> None:
    check = Checker(narrator)
    with pytest.raises(FactError) as failure:
        check("it is so", lambda: require(held=False, seen="it is otherwise"), within=0.05)
    assert (failure.value.claim, failure.value.seen) == ("it is so", "it is otherwise")
    assert (log.getvalue(), check.held) == ("", 0)


def request(grant: str, outcome: str = "issued", *, sent_client: bool = True) -> TokenRequest:
    return TokenRequest(
        sequence=1, received_at=0, received_monotonic=0, grant=grant, outcome=outcome, sent_client=sent_client
    )


def test_one_exchange_is_one_that_was_granted() -> None:
    facts.one_exchange([request(facts.EXCHANGE)])


@pytest.mark.parametrize(
    "requests",
    [
        [],
        [request(facts.EXCHANGE), request(facts.EXCHANGE)],
        [request(facts.EXCHANGE, "invalid_client")],
        [request(facts.EXCHANGE, sent_client=False)],
        [request(facts.REFRESH)],
    ],
    ids=["none", "two", "refused", "without client", "a refresh"],
)
def test_nothing_else_is_one_exchange(requests: list[TokenRequest]) -> None:
    with pytest.raises(AssertionError, match=f"^the ledger has {len(requests)} token requests: "):
        facts.one_exchange(requests)


SHOP = Credential("shop", "storefront", "a-uid")


def finding(wrong: Wrong, since: float, seconds: float) -> Finding:
    return Finding(SHOP, wrong, since, seconds)


def test_damage_done_on_purpose_is_told_apart() -> None:
    edited, deleted = finding(Wrong.NEVER_ISSUED, 10.1, 0.2), finding(Wrong.ABSENT, 20.1, 0.9)
    rest, damage = facts.damage_apart(Verdict(1, 30.0, (edited, deleted)), [(10.0, 10.3), (20.0, 20.9)])
    assert damage == [edited, deleted]
    facts.is_good(rest)
    assert facts.damage_was_seen(damage) == "200 ms never issued and 900 ms absent"


@pytest.mark.parametrize(
    "bad",
    [
        finding(Wrong.ABSENT, 9.9, 0.1),
        finding(Wrong.ABSENT, 10.1, 3.0),
        finding(Wrong.NEVER_ISSUED, 11.0, 2.0),
        finding(Wrong.EXPIRED, 10.1, 0.1),
        finding(Wrong.REVOKED, 10.1, 0.1),
    ],
    ids=["before it", "for long after it", "begun after it", "expired", "revoked"],
)
def test_what_is_wrong_besides_the_damage_counts(bad: Finding) -> None:
    rest, damage = facts.damage_apart(Verdict(1, 30.0, (bad,)), [(10.0, 10.5)])
    assert damage == []
    with pytest.raises(AssertionError, match="NOT GOOD"):
        facts.is_good(rest)


def test_an_auditor_that_saw_no_credential_or_no_damage_proves_nothing() -> None:
    with pytest.raises(AssertionError):
        facts.is_good(Verdict(0, 30.0, ()))
    with pytest.raises(AssertionError):
        facts.damage_was_seen([finding(Wrong.ABSENT, 1.0, 1.0)])


def test_in_pods_it_has_one_scene_more_while_tokens_live_long() -> None:
    """Between the rotated secret, from which on they live an hour, and the template that takes the key away."""
    plain, in_pods = ([title for title, _ in scenes(in_pods=each)] for each in (False, True))
    [extra] = set(in_pods) - set(plain)
    assert [title for title in in_pods if title != extra] == plain
    assert in_pods[in_pods.index(extra) - 1] == "The client's secret is rotated"


def test_a_machine_that_can_run_no_pods_is_told_what_it_lacks_before_anything_is_built(tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "tests.support.demo", "--check"],
        cwd=ROOT,
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    lacks = "Debian's iproute2, mount, nftables, runc, util-linux"  # and more, on a machine that has no CNI plugins
    wanted = "Linux" if sys.platform != "linux" else lacks if os.geteuid() == 0 else "root"
    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr.startswith(f"error: the demo in Pods cannot play here: a node needs {wanted}")


def test_without_a_control_plane_it_says_what_to_do_and_leaves_nothing(tmp_path: Path) -> None:
    assets, scratch = tmp_path / "assets", tmp_path / "scratch"
    scratch.mkdir()
    told = subprocess.run(
        [sys.executable, "-m", "tests.support.demo"],
        cwd=ROOT,
        env={**os.environ, "KUBEBUILDER_ASSETS": str(assets), "TMPDIR": str(scratch)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 1
    assert "✗ the story goes on" in told.stdout
    assert f"BinariesError: KUBEBUILDER_ASSETS={assets}" in told.stdout
    assert told.stderr == ""
    assert list(scratch.iterdir()) == []


# The picture ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawing() -> ModuleType:
    return script.load("demo_picture")


SHOWN = """\
The title
    ✓ a Kubernetes API (40.6 s)

1. A credential is applied, and its token appears ── 75 s
    $ kill -KILL 6116
      storefront   2026-11-26T06:42:53Z   2026-11-26T06:42:47Z
      the endpoint https://127.0.0.1:44427 fails

2. The token works ── 82 s
    ✓ it does

\x1b[32mAll 33 facts held, in 159 s.\x1b[0m
    Everything that was started has ended.
"""


def test_of_the_demo_some_scenes_are_drawn_without_what_is_the_machines(drawing: ModuleType) -> None:
    assert drawing.neutral(drawing.chosen(SHOWN)).splitlines() == [
        "The title",
        "",
        "    ⋮",
        "",
        "1. A credential is applied, and its token appears ──",
        "    $ kill -KILL 4711",
        "      storefront   2026-01-01T12:00:00Z   2026-01-01T11:59:54Z",
        "      the endpoint https://127.0.0.1:8443 fails",
        "",
        "    ⋮",
        "",
        "\x1b[32mAll 33 facts held.\x1b[0m",
    ]


@pytest.mark.rule("OBS-29")
def test_the_picture_is_of_the_present_story_loads_nothing_and_shows_nothing_of_the_machine(
    drawing: ModuleType,
) -> None:
    picture = drawing.PICTURE.read_text()
    assert re.findall(r"\w+://[^\s\"<&]+", picture) == ["http://www.w3.org/2000/svg"]
    assert re.findall(r"@import|url\((?!#)", picture) == []
    text = html.unescape(re.sub("<[^>]*>", "", picture)).replace("\N{NO-BREAK SPACE}", " ")
    assert {*drawing.SCENES} <= {title for title, _ in scenes(in_pods=False)}
    assert [scene for scene in (TITLE, *drawing.SCENES) if scene not in text] == []
    assert re.findall(r"(?<![\w./])/(?:\w+/)+", text) == []
    assert {*re.findall(r"\d{4}-\d\d-\d\d", text)} == {"2026-01-01"}
