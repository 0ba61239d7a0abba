"""What a run must have reached, or it says nothing: rules of the decision, reasons, faults at phases of a refresh."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from tests.simulation.faults import KINDS, PHASES
from tuinly_operator.domain import decision
from tuinly_operator.domain.errors import Reason

# What cannot be reached here, and why.
EXEMPT: Final[dict[str, str]] = {
    "reason Pushed": "Push is left out",
    "reason Pushing": "the same",
    "reason PushRefused": "the same",
    "reason PushIncomplete": "the same",
    "reason AnotherOperator": "each credential is one group's here, but for the moment in which its label changes",
}


def wanted() -> set[str]:
    """All that a run must reach."""
    rules = {f"rule {rule.__name__}" for rule in decision._RULES}  # noqa: SLF001 -- those that decide
    reasons = {f"reason {reason}" for reason in Reason}
    pairs = {f"{kind} at {phase}" for kind in KINDS for phase in (*PHASES, "rest")}
    return rules | reasons | pairs


def missing(reached: set[str]) -> list[str]:
    """What was never reached, and is not exempt."""
    return sorted(wanted() - reached - set(EXEMPT))


@contextmanager
def watched_rules(reached: set[str]) -> Iterator[None]:
    """Note which rules decide."""
    rules = decision._RULES  # noqa: SLF001 -- those that decide

    def noting(rule: Callable[[Any], Any]) -> Callable[[Any], Any]:
        name = f"rule {rule.__name__}"

        def decide(facts: Any) -> Any:  # noqa: ANN401 -- as the rule's
            decided = rule(facts)
            if decided is not None:
                reached.add(name)
            return decided

        decide.__name__ = rule.__name__
        return decide

    decision._RULES = tuple(map(noting, rules))  # type: ignore[misc]  # noqa: SLF001 -- and back below
    try:
        yield
    finally:
        decision._RULES = rules  # type: ignore[misc]  # noqa: SLF001 -- as it was
