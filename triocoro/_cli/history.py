"""The command `history`: recorded histories, shown and checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import trio

from .job import Job, Status
from .output import Output, json_option

if TYPE_CHECKING:
    from ..testing import (
        Call,
        Cancellation,
        ClusterOptions,
        Delivery,
        Entry,
        Failure,
        History,
        Loss,
        Operation,
        Return,
        Violation,
    )

_file = click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))


@click.group("history", short_help="Show or check the recorded history of a cluster.")
def command() -> None:
    """Show or check a history: what clients of a cluster did and were told, as `History.save` writes it."""


@command.command(
    "show",
    short_help="Show what happened according to a history.",
    epilog="""\b
Examples:
  triocoro history show failed.jsonl
  triocoro history show --limit=200 failed.jsonl
  triocoro history show --entries failed.jsonl | less
  triocoro history show --html failed.html failed.jsonl
""",
)
@_file
@click.option("--entries", is_flag=True, help="Show all of it, one entry a line, as --json does.")
@click.option(
    "--limit", type=click.IntRange(10), default=40, show_default=True, metavar="LINES", help="Show at most that much."
)
@click.option(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="PATH",
    help="Write a page for a browser to this file instead: docs/timeline.md.",
)
@json_option(version=1)
@click.pass_obj
def show(output: Output, file: Path, limit: int, html: Path | None, *, entries: bool) -> Job:
    """Show what happened: faults, rings and quorum, views of groups, messages and losses, in order for all nodes.

    It is the text that the report of a failed test has. It says what it leaves out.
    """
    if html is not None:
        return partial(_write_page, output, file, html)
    return partial(_show_entries if entries or output.json else _show_timeline, output, file, limit)


async def _show_timeline(output: Output, file: Path, limit: int) -> Status:
    from ..testing import timeline

    history = _load(file)
    await output.event(None, lambda: timeline(history, limit=limit))
    return Status.YES


async def _write_page(output: Output, file: Path, html: Path) -> Status:
    from ..testing import timeline_page

    page = timeline_page(_load(file), title=file.name)
    try:
        await trio.Path(html).write_text(page, encoding="utf-8")
    except OSError as exc:
        raise click.ClickException(f"{html} cannot be written: {exc.strerror}") from exc
    output.result({"html": str(html)}, lambda: f"written to {html}")
    return Status.YES


async def _show_entries(output: Output, file: Path, _: int) -> Status:
    from ..testing._history.json_lines import encode

    history = _load(file)
    began = history[0].time if len(history) else 0.0
    for entry in history:
        # One by one: the reader may be slow, or leave.
        await output.event(json.loads(encode([entry])), partial(_line, entry, began))
    return Status.YES


def _line(entry: Entry, began: float) -> str:
    from ..testing import Fault, Invocation, Note, Outcome

    match entry:
        case Fault():
            place, what = "cluster", f"{entry.verb}({_arguments(entry.arguments)})"
        case Note():
            place, what = "test" if entry.node is None else f"node {entry.node}", entry.text
        case Invocation():
            place, what = entry.client, f"*{entry.number} {entry.name}({', '.join(map(repr, entry.arguments))})"
        case Outcome():
            ending = f"returns {entry.result!r}" if entry.error is None else f"is {entry.status.value}: {entry.error}"
            place, what = entry.client, f"*{entry.number} {ending}"
        case _:
            place, what = f"node {entry.node} {entry.client}.{entry.handle}", _of_client(entry)
    return f"{entry.time - began:10.3f}  {place:<18} {what}"


def _of_client(entry: Call | Return | Failure | Cancellation | Delivery | Loss) -> str:
    from ..testing import Call, Cancellation, Delivery, Failure, Return

    match entry:
        case Call():
            return f"#{entry.number} {entry.function}({_arguments(entry.arguments)})"
        case Return():
            return f"#{entry.number} returns {entry.result!r}"
        case Failure():
            return f"#{entry.number} raises {entry.error}"
        case Cancellation():
            return f"#{entry.number} is cancelled"
        case Delivery():
            return repr(entry.event)
        case _:
            return "the connection is lost"


def _arguments(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in values.items())


@command.command(
    "check",
    short_help="Look for what Corosync could not have done.",
    epilog="""\b
Examples:
  triocoro history check failed.jsonl
  triocoro history check failed.jsonl --option nodes=2 --option two_node=true
  triocoro history check failed.jsonl --model map
""",
)
@_file
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="NAME=VALUE",
    help="An option of the cluster, as in ClusterOptions. Without any, the rule of quorum is not checked.",
)
@click.option(
    "--model",
    type=click.Choice(["append-list", "lock", "map", "queue", "register"]),
    help="Check the operations of the application, too: are they linearizable, on an object of this kind?",
)
@json_option(version=1)
@click.pass_obj
def check(output: Output, file: Path, options: tuple[str, ...], model: str | None) -> Job:
    """Look for what Corosync could not have done. docs/histories.md has the rules.

    With --model, look also for results of the application's own operations that nothing explains; see
    docs/linearizability.md.

    The exit status is 0 if nothing is found, and 1 if something is.
    """
    return partial(_check, output, file, _options(options), model)


async def _check(output: Output, file: Path, options: ClusterOptions | None, model: str | None) -> Status:
    from ..testing import Operation, UndecidedError, check as check_history
    from ..testing._history.json_lines import encode

    history = _load(file)
    try:
        violations = check_history(history, options=options)
    except UndecidedError as exc:
        raise click.ClickException(f"{file}: {exc}") from exc
    if model is not None:
        violations += _check_operations(history, model)
    output.result(
        {
            "entries": len(history),
            "violations": [
                {
                    "rule": violation.rule.value,
                    "text": violation.text,
                    "evidence": [
                        json.loads(encode([entry]))
                        for item in violation.evidence
                        for entry in (_entries(history, item) if isinstance(item, Operation) else [item])
                    ],
                }
                for violation in violations
            ],
        },
        lambda: "\n".join([*map(str, violations), f"{len(history)} entries, {len(violations)} violations"]),
    )
    return Status.NO if violations else Status.YES


def _check_operations(history: History, model: str) -> list[Violation]:
    from ..testing import UndecidedError, check_linearizable
    from ..testing._linearizability.models import BY_NAME

    try:
        return check_linearizable(history.operations(), BY_NAME[model]())
    except (UndecidedError, ValueError, TypeError) as exc:
        raise click.ClickException(str(exc)) from exc


def _entries(history: History, operation: Operation) -> list[Entry]:
    return [history[index] for index in (operation.began, operation.ended) if index is not None]


def _load(file: Path) -> History:
    from ..testing import History

    try:
        return History.load(file)
    except ValueError as exc:
        raise click.ClickException(f"{file} is no history: {exc}") from exc


def _options(settings: tuple[str, ...]) -> ClusterOptions | None:
    from ..testing import ClusterOptions

    given: dict[str, Any] = {}
    for setting in settings:
        name, _, value = setting.partition("=")
        try:
            given[name] = json.loads(value)
        except ValueError:
            given[name] = value
    try:
        return ClusterOptions(**given) if given else None
    except (TypeError, ValueError) as exc:
        raise click.BadParameter(str(exc), param_hint="--option") from exc
