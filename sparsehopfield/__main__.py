"""The command line: `sparsehopfield`, or `python -m sparsehopfield`."""

from __future__ import annotations

import argparse
import codecs
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import PurePath
from types import ModuleType
from typing import Any, TextIO

from sparsehopfield._core import __version__
from sparsehopfield._engine.optional import require
from sparsehopfield.config import show_config
from sparsehopfield.studies import STUDIES
from sparsehopfield.studies._core.cli import command as run_study

#: What is written for the symbols of the reports where an output's encoding does not have them.
PLAIN = {"±": "+-", "µ": "u", "–": "-", "²": "^2"}


def _plainly(error: UnicodeError) -> tuple[str, int]:
    """Encode what an encoding does not have: the symbols of `PLAIN` so, all else as \\x, \\u or \\U."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    symbols = error.object[error.start : error.end]
    return "".join(
        PLAIN.get(symbol, symbol.encode("ascii", "backslashreplace").decode()) for symbol in symbols
    ), error.end


codecs.register_error("sparsehopfield.plain", _plainly)


@contextmanager
def _plain(stream: TextIO | None) -> Iterator[None]:
    """Let a stream take any text, whatever its encoding: a report must not be lost to a terminal without a symbol."""
    reconfigure = getattr(stream, "reconfigure", None)
    if stream is None or reconfigure is None:  # no stream, or one of somebody else's making
        yield
        return
    before = stream.errors
    reconfigure(errors="sparsehopfield.plain")
    try:
        yield
    finally:
        reconfigure(errors=before)


SCRIPT, MODULE = "sparsehopfield", "python -m sparsehopfield"  # the two ways to call this
SHELLS = ("bash", "zsh", "tcsh")


def _program() -> str:
    """Return how this was called: as the script that an installation has, or as a module."""
    return SCRIPT if PurePath(sys.argv[0]).stem.removesuffix("-script") == SCRIPT else MODULE


class _PrintCompletion(argparse.Action):
    """Prints what a shell completes commands and options by, and leaves."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        shtab = require("shtab", purpose="completion by a shell", extra="cli")
        described = _parser(SCRIPT)
        _complete_folders(described, shtab)
        print(shtab.complete(described, shell=values))
        parser.exit()


def _complete_folders(parser: argparse.ArgumentParser, shtab: ModuleType) -> None:
    """Have options that take a folder completed by the names of folders."""
    for action in parser._actions:
        if action.metavar == "FOLDER":
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _complete_folders(command, shtab)


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program,
        description="Sparse modern Hopfield networks: the studies of the paper, run again, and what this "
        "installation consists of.",
        epilog=f"'{program} COMMAND --help' explains a command. A study writes its table as it "
        "goes: interrupt it, and the same command continues it.",
    )
    parser.add_argument("--version", action="version", version=f"sparsehopfield {__version__}")
    parser.add_argument(
        "--print-completion",
        action=_PrintCompletion,
        choices=SHELLS,
        dest=argparse.SUPPRESS,
        default=argparse.SUPPRESS,
        help="print what this shell completes commands and options by; the documentation of studies says where to put "
        "it. Needs the extra 'cli'",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, study in STUDIES.items():
        _add_study(commands, program, name, study)
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


def _add_study(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], program: str, name: str, study: ModuleType
) -> None:
    summary = (study.__doc__ or "").partition("\n\n")[0]
    command = commands.add_parser(
        name,
        help=summary[0].lower() + summary[1:].rstrip(".\n"),
        description=study.__doc__,
        epilog=study.EXAMPLES.replace(MODULE, program),
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
    with ExitStack() as streams:
        for stream in (sys.stdout, sys.stderr):
            streams.enter_context(_plain(stream))
        try:
            arguments = _parser(_program()).parse_args(argv)
            return int(arguments.main(arguments))
        except KeyboardInterrupt as interrupt:
            print(f"\ninterrupted: {interrupt}" if str(interrupt) else "\ninterrupted", file=sys.stderr)
            return 130
        except (ValueError, OSError, ImportError) as error:  # they say what was wrong and what would be right
            print(f"error: {error}", file=sys.stderr)
            return 1


if __name__ == "__main__":
    sys.exit(main())
