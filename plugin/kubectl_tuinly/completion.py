"""Completion, as kubectl asks for it: by a program `kubectl_complete-tuinly` that is given the words so far.

It prints a candidate a line, with a description behind a tab, and at last what the shell may do besides.
"""

import argparse
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

from kubectl_tuinly.arguments import COMMANDS, LOGIN, parser

NO_FILES: Final = 4  # cobra's ShellCompDirectiveNoFileComp
FILES: Final = 0
_FILE_FLAGS: Final = frozenset({"-f", "--filename", "--kubeconfig"})
_NAMED: Final = frozenset({"status", "why", "renew", "suspend", "resume", "report", "token"})
_NAMESPACE_FLAGS: Final = frozenset({"-n", "--namespace", "--operator-namespace"})


def complete(words: Sequence[str]) -> str:
    """What to print for these words, of which the last is being typed, and may be empty."""
    *before, typed = words or [""]
    if before and _takes_value(before, before[-1]):
        flag = before[-1]
        if flag in _FILE_FLAGS:
            return _answer([], typed, FILES)
        return _answer(_values(flag, before), typed, NO_FILES)
    command = command_of(before)
    if typed.startswith("-"):
        return _answer(_flags(command), typed, NO_FILES)
    if command is None:
        return _answer([f"{name}\t{about[0]}" for name, about in COMMANDS.items()], typed, NO_FILES)
    return _answer(_names(before) if command in _NAMED else [], typed, NO_FILES)


def command_of(words: Sequence[str]) -> str | None:
    """The command among the words, None where there is none yet."""
    value = False
    for word in words:
        if not value and word in COMMANDS:
            return word
        value = not value and _takes_value([], word)
    return None


def _answer(candidates: Sequence[str], typed: str, directive: int) -> str:
    return "\n".join([*(each for each in candidates if each.startswith(typed)), f":{directive}"])


def _actions(command: str | None) -> Iterator[argparse.Action]:
    """The flags of a command, or of the program."""
    for action in parser()._actions:  # noqa: SLF001 -- argparse has no other way to ask
        if command is None or not isinstance(action.choices, dict):
            yield action
        else:
            yield from action.choices[command]._actions  # noqa: SLF001


def _flags(command: str | None) -> list[str]:
    found = {
        name: action.help or ""
        for action in _actions(command)
        for name in action.option_strings
        if name.startswith("--")
    }
    return sorted(f"{name}\t{about.partition(';')[0]}" for name, about in found.items())


def _takes_value(before: Sequence[str], flag: str) -> bool:
    if not flag.startswith("-"):
        return False
    takers = [action for command in _commands(before) for action in _actions(command) if flag in action.option_strings]
    return any(action.nargs != 0 for action in takers)


def _commands(before: Sequence[str]) -> list[str | None]:
    named = next((word for word in before if word in COMMANDS), None)
    return [named] if named else [None, *COMMANDS]


def _values(flag: str, before: Sequence[str]) -> list[str]:
    choices = [
        str(each)
        for action in _actions(command_of(before))
        if flag in action.option_strings
        for each in action.choices or ()
    ]
    if choices or flag not in _NAMESPACE_FLAGS | {"--context"}:
        return choices
    from kubectl_tuinly.edges.hints import contexts, namespaces  # noqa: PLC0415 -- the only ones that need a cluster

    return contexts(_login(before)) if flag == "--context" else namespaces(_login(before))


def _names(before: Sequence[str]) -> list[str]:
    from kubectl_tuinly.edges.hints import credentials  # noqa: PLC0415 -- as above

    flags = _login(before)
    namespace = _value_of(before, ("-n", "--namespace"))
    there = credentials(flags, namespace)
    return [name for name in there if name not in before]


def _login(before: Sequence[str]) -> list[str]:
    """The login's flags among the words."""
    apart = [word for pair in pairwise(before) if pair[0] in LOGIN for word in pair]
    return apart + [word for word in before if word.partition("=")[0] in LOGIN and "=" in word]


def _value_of(before: Sequence[str], flags: Sequence[str]) -> str | None:
    return next((value for flag, value in pairwise(before) if flag in flags), None)
