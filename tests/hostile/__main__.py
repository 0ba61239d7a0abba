"""Attacks a real operator process, one attack at a time, and prints what each cost both sides: `make hostile`.

Each attack has an operator of its own under the memory limit of the Deployment, beside ten credentials of others whose
tokens live for seconds. The operator holds if it stays within its memory, if no token of others expires, if their
statuses are true, and if it passes its liveness probes. The exit status is 1 if it does not hold against an attack.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Final

from bench.measures import machine
from bench.stand import Narrator
from tests.hostile import endpoint, health, objects, replicas
from tests.hostile.stage import Stage, World, world
from tests.hostile.verdict import Attack, Measured, faults, row, table


def nothing(stage: Stage) -> None:
    """Let time pass."""
    with stage.served():
        stage.rest()


ATTACKS: Final[Sequence[Attack]] = (
    Attack("nothing", "no attack, for comparison", nothing),
    *endpoint.ATTACKS,
    *health.ATTACKS,
    *objects.ATTACKS,
    *replicas.ATTACKS,
)


def play(world: World, attack: Attack) -> Measured:
    """Play one attack; one that cannot be played, or after which others are not Ready again, has a finding."""
    with Stage(world, attack) as stage:
        try:
            attack.play(stage)
        except Exception as error:  # noqa: BLE001 -- whatever it is, the other attacks are to be played
            stage.finding(f"{type(error).__name__}: {error}")
        return stage.measured


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it."""
    options = _parser().parse_args(arguments)
    if options.list:
        print("\n".join(f"{each.name:<20} {each.sentence}" for each in ATTACKS))  # noqa: T201 -- to a person
        return 0
    chosen = [each for each in ATTACKS if each.name in (options.only or [each.name for each in _choice(options)])]
    tell, rows, held = Narrator(), [], True
    tell(", ".join(f"{what} {value}" for what, value in machine().items()))
    with world(options.seconds or (12.0 if options.brief else 60.0), 0.2 if options.brief else 1.0) as place:
        for number, attack in enumerate(chosen, 1):
            tell(f"{number} of {len(chosen)}: {attack.name}: {attack.sentence}")
            measured = play(place, attack)
            wrong = faults(attack, measured, brief=options.brief)
            tell("  held" if not wrong else "  NOT HELD: " + "; ".join(wrong))
            rows.append(row(attack, measured, brief=options.brief))
            held &= not wrong
    print(table(rows))  # noqa: T201 -- to a person
    return int(not held)


def _choice(options: argparse.Namespace) -> list[Attack]:
    return [each for each in ATTACKS if each.brief or not options.brief]


def _parser() -> argparse.ArgumentParser:
    summary, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(prog="make hostile", description=summary, epilog=rest)
    names = [each.name for each in ATTACKS]
    parser.add_argument(
        "--only", type=lambda text: text.split(","), metavar="NAME,…", help=f"some attacks (default: all): {names}"
    )
    parser.add_argument("--seconds", type=float, help="how long each attack lasts (default: 60, 12 with --brief)")
    parser.add_argument(
        "--brief", action="store_true", help="the choice of .ci/run: fewer objects; CPU and lateness do not count"
    )
    parser.add_argument("--list", action="store_true", help="name the attacks, and play none")
    return parser


if __name__ == "__main__":
    sys.exit(main())
