"""Findings, step by step, and what they come to: the one next thing to do, and the exit status."""

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from kubectl_tuinly.outcome import Exit


class Verdict(StrEnum):
    """What was found of a step."""

    FINE = "fine"
    WARNING = "warning"
    WAITING = "waiting"
    WRONG = "wrong"
    UNCHECKED = "not checked"


class Step(NamedTuple):
    """One finding; `todo` is what to do about it, empty where nothing is to be done or the cause is another step."""

    title: str
    verdict: Verdict
    text: str
    todo: str = ""


class Unseen(NamedTuple):
    """Stands for what the user could not read, and why."""

    why: str


def unchecked(title: str, unseen: Unseen) -> Step:
    """The step that could not be checked."""
    return Step(title, Verdict.UNCHECKED, f"not checked: {unseen.why}")


def next_thing(steps: Sequence[Step]) -> str:
    """The one thing to do next: about the first step that is wrong, or else waits, or is worth a warning."""
    for verdict in (Verdict.WRONG, Verdict.WAITING, Verdict.WARNING):
        for step in steps:
            if step.verdict is verdict and step.todo:
                return step.todo
    if any(step.verdict in {Verdict.WRONG, Verdict.WAITING} for step in steps):
        return "Wait a moment, and look again; if it stays, ask the cluster admin to look at the operator's log."
    unseen = sum(step.verdict is Verdict.UNCHECKED for step in steps)
    return "Nothing." + (f" What you may not read was not checked: {unseen} of {len(steps)} steps." if unseen else "")


def exit_of(steps: Sequence[Step]) -> Exit:
    """Whether all is as it should be, or could not be checked."""
    verdicts = {step.verdict for step in steps}
    if verdicts & {Verdict.WRONG, Verdict.WAITING}:
        return Exit.NOT_READY
    return Exit.UNCHECKED if Verdict.UNCHECKED in verdicts else Exit.READY
