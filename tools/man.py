#!/usr/bin/env python3
"""Write the manual page of the command, docs/man/triocoro.1, from what its commands say in --help: `make man`."""

import re
from pathlib import Path

import click

from triocoro._cli.commands import cli

PAGE = Path(__file__).resolve().parents[1] / "docs" / "man" / "triocoro.1"

HEAD = """\
.\\" Written by `make man`.
.TH TRIOCORO 1 "" "triocoro" "User Commands"
.SH NAME
triocoro \\- see and use a Corosync cluster from the shell
.SH SYNOPSIS
.B triocoro
.I COMMAND
.RI [ OPTION ...]
.RI [ ARGUMENT ...]
"""
FOOT = """\
.SH SHELL COMPLETION
For bash, put this into ~/.bashrc:
.PP
.nf
    eval "$(_TRIOCORO_COMPLETE=bash_source triocoro)"
.fi
.SH SEE ALSO
.BR corosync (8),
.BR corosync-quorumtool (8),
.BR corosync-cfgtool (8),
.BR corosync-cpgtool (8),
.BR corosync-cmapctl (8),
.BR cpg_overview (3),
.BR votequorum (5)
"""


def escaped(text: str) -> str:
    """Return text for troff."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^([.'])", r"\\&\1", text, flags=re.MULTILINE)


def paragraphs(text: str) -> str:
    """Return the paragraphs of a help text; those after a backspace keep their lines."""
    parts = [part.strip("\n") for part in re.split(r"\n\s*\n", text)]
    return "".join(
        f".PP\n.nf\n{escaped(part[1:].strip(chr(10)))}\n.fi\n"
        if part.startswith("\b")
        else f".PP\n{escaped(' '.join(part.split()))}\n"
        for part in parts
        if part
    )


def options(command: click.Command) -> str:
    """Return the options of a command."""
    lines: list[str] = []
    for option in command.params:
        if isinstance(option, click.Option) and option.help:
            names = ", ".join([*option.opts, *option.secondary_opts])
            values = "|".join(option.type.choices) if isinstance(option.type, click.Choice) else option.metavar
            value = "" if option.is_flag else f" {values or option.type.name.upper()}"
            shown = option.show_default and option.default is not None
            default = f" The default is {option.default:g}." if shown and isinstance(option.default, float) else ""
            default = f" The default is {option.default}." if shown and not default else default
            lines.append(f".TP\n.B {escaped(names + value)}\n{escaped(option.help)}{escaped(default)}\n")
    return "".join(lines)


def section(name: str, command: click.Command) -> str:
    """Return the section of a command, or those of the commands of a group."""
    if isinstance(command, click.Group):
        return "".join(section(f"{name} {inner}", command.commands[inner]) for inner in command.commands)
    arguments = [
        f" [{argument.human_readable_name}...]" if argument.nargs == -1 else f" {argument.human_readable_name}"
        for argument in command.params
        if isinstance(argument, click.Argument)
    ]
    usage = f"triocoro {name} [OPTIONS]{''.join(arguments).upper()}"
    text = paragraphs(command.help or "") + options(command) + paragraphs(command.epilog or "")
    return f".SS {escaped(usage)}\n{text}"


def page() -> str:
    """Return the manual page."""
    with click.Context(cli) as context:
        commands = [(name, cli.get_command(context, name)) for name in cli.list_commands(context)]
    sections = "".join(section(name, command) for name, command in commands if command)
    statuses = paragraphs((cli.epilog or "").replace("Exit statuses:\n", ""))
    return (
        f"{HEAD}.SH DESCRIPTION\n{paragraphs(cli.help or '')}.SH COMMANDS\n{sections}.SH EXIT STATUS\n{statuses}{FOOT}"
    )


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
