"""The directive `command-line`: all commands and options, from the parser that reads them."""

from __future__ import annotations

import argparse
import re
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from sparsehopfield import __main__ as main


def option_text(parser: argparse.ArgumentParser, action: argparse.Action) -> tuple[str, str]:
    """Return how an option is written, and what its help says."""
    formatter = parser._get_formatter()
    if action.option_strings:
        written = formatter._format_action_invocation(action)
    else:
        written = action.metavar if isinstance(action.metavar, str) else action.dest
    return re.sub(r"\x1b\[[0-9;]*m", "", written), formatter._expand_help(action) if action.help else ""


class CommandLine(SphinxDirective):
    """A section for each command: what it does, its options, examples."""

    def run(self) -> list[nodes.Node]:
        parser = main._parser(main.SCRIPT)
        (commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
        found: list[nodes.Node] = [nodes.paragraph(text=parser.description or ""), *self.described(parser)]
        return found + [self.command(name, command) for name, command in commands.choices.items()]

    def command(self, name: str, parser: argparse.ArgumentParser) -> nodes.section:
        """Return the section of a command."""
        section = nodes.section(ids=[f"command-{name}"], names=[nodes.fully_normalize_name(f"command {name}")])
        section += nodes.title("", "", nodes.literal(text=f"{main.SCRIPT} {name}"))
        for text in (parser.description, parser.epilog):
            for part in re.split(r"\n\s*\n", text.strip()) if text else ():
                block = "\n  " in f"\n{part}"
                section += (nodes.literal_block if block else nodes.paragraph)(part, part)
            if text is parser.description:
                section += self.described(parser)
        return section

    def described(self, parser: argparse.ArgumentParser) -> list[nodes.Node]:
        """Return the list of a parser's options."""
        entries = nodes.definition_list()
        for action in parser._actions:
            if isinstance(action, (argparse._HelpAction, argparse._SubParsersAction)):
                continue
            written, text = option_text(parser, action)
            term = nodes.term("", "", nodes.literal(text=written))
            entries += nodes.definition_list_item("", term, nodes.definition("", nodes.paragraph(text=text)))
        return [entries] if entries.children else []


def setup(app: Any) -> dict[str, bool]:
    """Add the directive."""
    app.add_directive("command-line", CommandLine)
    return {"parallel_read_safe": True}
