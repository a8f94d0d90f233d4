"""Where commands report to: text for people on stdout, or JSON with `--json`; errors as one line on stderr.

The JSON of every command has the same envelope, `{"schema": ..., "version": ..., "result": ...}` on one line, with
"error" in place of "result" if the command failed. Commands that follow events print such a line for each.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import click
import trio

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

JsonValue: TypeAlias = "Mapping[str, JsonValue] | Sequence[JsonValue] | str | int | float | bool | None"
"""A value that JSON has."""

UNLIMITED: Final = 10_000
"""More columns than any line has."""

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


class Output:
    """The output of a command. Click hands it to the callback as its object (`click.pass_obj`).

    Args:
        write: writes bytes to stdout, and may block.
        write_error: writes bytes to stderr.
        is_terminal: whether stdout is one.
        width: the columns that text for people may take; those of the terminal, or so many that no line is broken.
    """

    def __init__(
        self,
        write: Callable[[bytes], object],
        write_error: Callable[[bytes], object],
        *,
        is_terminal: bool = False,
        width: int = UNLIMITED,
    ) -> None:
        self.is_terminal = is_terminal
        self.width = width
        self.json = False
        """Whether results are JSON."""
        self.schema = ""
        """The name of the schema of the results."""
        self.version = 0
        """The version of that schema."""
        self._write = write
        self._write_error = write_error
        self._writing = trio.Lock()

    @classmethod
    def of_process(cls) -> Output:
        """Return the output to this process's stdout and stderr."""

        # Not by sys.stdout: a thread that waits for the reader of a pipe would hold its lock when the process ends.
        def write_to(fd: int, data: bytes) -> None:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]

        is_terminal = sys.stdout.isatty()
        width = shutil.get_terminal_size().columns if is_terminal else UNLIMITED
        return cls(lambda data: write_to(1, data), lambda data: write_to(2, data), is_terminal=is_terminal, width=width)

    def result(self, value: JsonValue, text: Callable[[], RenderableType]) -> None:
        """Report the result of the command.

        Args:
            value: the result as JSON.
            text: returns the result for people, as text or as anything that rich can print.
        """
        if self.json:
            self._write(self._envelope("result", value))
        else:
            self._write(self.render(text()))

    async def event(self, value: JsonValue, text: Callable[[], RenderableType]) -> None:
        """Report one of many results; otherwise like `result`.

        The reader of a pipe may make it wait, while the connections of this process go on. If cancelled, the event is
        written once the reader goes on, if the process lives that long.
        """
        data = self._envelope("result", value) if self.json else self.render(text())
        async with self._writing:
            await trio.to_thread.run_sync(self._write, data, abandon_on_cancel=True)

    def error(self, exc: BaseException) -> None:
        """Report in one line why the command failed, on stderr; with `--json` on stdout as well."""
        message = " ".join(str(exc).split())
        if self.json:
            self._write(self._envelope("error", {"kind": type(exc).__name__, "message": message}))
        self._write_error(f"triocoro: {message}\n".encode(errors="backslashreplace"))

    def render(self, renderable: RenderableType) -> bytes:
        """Return what a renderable looks like: on a terminal in its width and with colours."""
        if isinstance(renderable, str):
            return f"{renderable}\n".encode(errors="backslashreplace")
        from rich.console import Console

        console = Console(force_terminal=self.is_terminal, width=self.width, highlight=False, emoji=False, markup=False)
        with console.capture() as capture:
            console.print(renderable, crop=False)  # what must not be broken, such as a command, may be longer
        # Tables fill their last column with spaces.
        lines = [line.rstrip() for line in capture.get().splitlines()]
        return "".join(f"{line}\n" for line in lines).encode(errors="backslashreplace")

    def _envelope(self, key: str, value: JsonValue) -> bytes:
        envelope = {"schema": f"triocoro.{self.schema}", "version": self.version, key: value}
        return json.dumps(envelope, separators=(",", ":")).encode() + b"\n"


def json_option(*, version: int) -> Callable[[FunctionT], FunctionT]:
    """Return a decorator that adds `--json` to a command.

    Args:
        version: the version of the command's schema. A change that a reader of the old one might not survive needs
            another version; a new key does not.
    """

    def note(context: click.Context, _: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click calls it
        output = context.ensure_object(Output)
        output.json, output.schema, output.version = value, "-".join(context.command_path.split()[1:]), version

    return click.option(
        "--json", is_flag=True, expose_value=False, callback=note, help="Print JSON: docs/command.md has the schema."
    )


def table_of(*columns: str) -> Table:
    """Return an empty table. A cell that is too wide goes on in the next line."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def json_bytes(data: bytes) -> JsonValue:
    """Return bytes for JSON: as text if they are UTF-8, and in any case exactly."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = None
    return {"text": text, "base64": base64.b64encode(data).decode()}
