"""What the commands say of themselves: help with examples, the manual page, the documentation, shell completion."""

from __future__ import annotations

import re
import runpy
from collections.abc import Iterator

import click
import pytest
from support.commands import ROOT, run

from triocoro._cli.commands import cli


def commands(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    """A command, or those in a group of commands, with their full names."""
    if not isinstance(command, click.Group):
        yield name, command
        return
    with click.Context(command) as context:
        for inner in command.list_commands(context):
            found = command.get_command(context, inner)
            assert found is not None
            yield from commands(f"{name} {inner}", found)


COMMANDS = dict(commands("triocoro", cli))
each_command = pytest.mark.parametrize("name", COMMANDS)


@each_command
def test_each_command_has_help_with_examples(name: str) -> None:
    """Each example is a call of this command, with options that it has."""
    command = COMMANDS[name]
    assert command.help
    assert command.short_help
    examples = [line for line in (command.epilog or "").splitlines() if "triocoro" in line]
    assert examples
    known = {option for param in command.params for option in param.opts} | {"--"}
    for example in examples:
        (call,) = re.findall(rf"\b{name}\b[^|&(]*", example)
        assert set(re.findall(r"(?<!\S)--[a-z-]*", call)) <= known, example


@each_command
def test_each_result_can_be_json(name: str) -> None:
    known = {option for param in COMMANDS[name].params for option in param.opts}
    assert ("--json" in known) is (name not in ("triocoro demo", "triocoro cluster"))


@each_command
def test_the_documentation_has_each_command(name: str) -> None:
    page = (ROOT / "docs" / "command.md").read_text(encoding="utf-8")
    words = name.partition(" ")[2]
    assert re.search(rf"^\|.*`{words}`.*\|", page, re.MULTILINE)
    if "--json" in {option for param in COMMANDS[name].params for option in param.opts}:
        assert f"`triocoro.{words.replace(' ', '-')}`" in page


def test_the_manual_page_is_up_to_date() -> None:
    """`make man` writes it."""
    written = runpy.run_path(str(ROOT / "tools" / "man.py"))
    assert written["PAGE"].read_text(encoding="utf-8") == written["page"]()


def test_shell_completion() -> None:
    result = run(_TRIOCORO_COMPLETE="bash_complete", COMP_WORDS="triocoro wa", COMP_CWORD="1")
    assert sorted(result.stdout.split()) == ["plain,wait-quorate", "plain,watch"]
