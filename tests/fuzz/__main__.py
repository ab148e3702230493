"""The command line: see README.md."""

import argparse
import sys

from . import core, engine

ATTACKS = ("files", "calls", "interleavings")


def main() -> int:
    """Run an attack; return 1 if it found anything."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=engine.__doc__)
    add = parser.add_argument
    add("attack", choices=[*ATTACKS, "core", "all"])
    add("--cases", type=int, metavar="N", help="how many cases; 1,000 where no time is given")
    add("--seconds", type=float, metavar="S", help="for how long, each attack")
    add("--seed", type=int, default=0, metavar="K", help="seed of all cases")
    add("--jobs", type=int, default=1, metavar="J", help="so many processes at a time")
    add("--only", type=int, metavar="N", help="case number N alone")
    add("--engine", choices=core.ENGINES, default=core.ENGINES[0], help="what drives the core")
    chosen = parser.parse_args()
    cases = 1000 if chosen.cases is None and chosen.seconds is None else chosen.cases
    failed = False
    for attack in [*ATTACKS, "core"] if chosen.attack == "all" else [chosen.attack]:
        options = {"cases": cases, "seconds": chosen.seconds, "seed": chosen.seed, "only": chosen.only}
        if attack == "core":
            found = core.run(engine=chosen.engine, **options)
        else:
            found = engine.run(attack, jobs=chosen.jobs, **options)
        print(f"{attack}: {found}", flush=True)
        failed |= bool(found.failures)
    return int(failed)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        attack, *numbers, seconds = sys.argv[2:]
        engine.child(attack, *map(int, numbers), None if seconds == "none" else float(seconds))
    else:
        sys.exit(main())
