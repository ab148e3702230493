"""The command line: `python -m sparsehopfield`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from types import ModuleType

from sparsehopfield._core import __version__
from sparsehopfield.config import show_config
from sparsehopfield.studies import STUDIES
from sparsehopfield.studies._study import command as run_study


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sparsehopfield",
        description="Sparse modern Hopfield networks: the studies of the paper, run again, and what this "
        "installation consists of.",
        epilog="'python -m sparsehopfield COMMAND --help' explains a command. A study writes its table as it "
        "goes: interrupt it, and the same command continues it.",
    )
    parser.add_argument("--version", action="version", version=f"sparsehopfield {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, study in STUDIES.items():
        _add_study(commands, name, study)
    info = commands.add_parser(
        "info",
        help="print what this installation consists of",
        description="Print what this installation consists of: the version, the BLAS "
        "and its core, the instruction set chosen, the threads.",
    )
    info.set_defaults(main=_info)
    return parser


class _Help(argparse.HelpFormatter):
    """Wraps paragraphs to the terminal, but keeps the examples' lines as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(
            part if "\n  " in part else super(_Help, self)._fill_text(part, width, indent)
            for part in text.split("\n\n")
        )


def _add_study(commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, study: ModuleType) -> None:
    summary = (study.__doc__ or "").partition("\n\n")[0]
    command = commands.add_parser(
        name,
        help=summary[0].lower() + summary[1:].rstrip(".\n"),
        description=study.__doc__,
        epilog=study.EXAMPLES,
        formatter_class=_Help,
    )
    study.add_options(command)
    command.set_defaults(main=partial(run_study, name, study.run))


def _info(arguments: argparse.Namespace) -> int:
    show_config()
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; by default those of the process.

    Returns
    -------
    int
        Exit status: 0 when all went well, 1 for a problem that the user can solve, 130 after Ctrl-C.
    """
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.main(arguments))
    except KeyboardInterrupt as interrupt:
        print(f"\ninterrupted: {interrupt}" if str(interrupt) else "\ninterrupted", file=sys.stderr)
        return 130
    except (ValueError, OSError, ImportError) as error:  # they say what was wrong and what would be right
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
