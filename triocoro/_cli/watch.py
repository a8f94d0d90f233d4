"""The command `watch`: what happens in the cluster, live."""

from __future__ import annotations

import signal
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

import click
import trio

from .. import _validate
from .job import Job, Status
from .output import Output, json_option
from .snapshot import Snapshot
from .status import screen
from .watching import Happening, follow, map_of

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_KEPT: Final = 500
"""How many of the latest happenings are kept for the screen, which may be high."""


def _check_prefixes(_: click.Context, __: click.Parameter, prefixes: tuple[str, ...]) -> tuple[str, ...]:
    for prefix in prefixes:
        try:
            _validate.cmap_tracked(prefix, map_of(prefix), prefix=True)
        except ValueError as exc:
            raise click.BadParameter(str(exc)) from None
    return prefixes


@click.command(
    "watch",
    short_help="Follow quorum, nodes, links, groups and keys as they change.",
    epilog="""\b
Examples:
  triocoro watch
  triocoro watch --cmap runtime.members. --cmap stats.knet.
  triocoro watch --json | jq 'select(.result.event == "quorum") | .result.quorate'
""",
)
@click.option(
    "--cmap",
    "prefixes",
    multiple=True,
    metavar="PREFIX",
    callback=_check_prefixes,
    help="Follow the keys that begin with this, too; those in the map of statistics begin with stats.",
)
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="How often groups and links are asked for, whose changes Corosync does not report.",
)
@json_option(version=1)
@click.pass_obj
def command(output: Output, prefixes: tuple[str, ...], interval: float) -> Job:
    """Follow what happens in the cluster, as this node sees it, until ctrl-C.

    On a terminal the state fills the screen, and the latest events are below. Elsewhere each event is a line. It begins
    with the present state, also after the daemon has restarted.
    """
    if output.is_terminal and not output.json:
        return partial(_watch_live, prefixes, interval)
    return partial(_watch_lines, output, prefixes, interval)


async def _watch_lines(output: Output, prefixes: tuple[str, ...], interval: float) -> Status:
    async def report(happening: Happening) -> None:
        await output.event(happening.as_json(), happening.as_text)

    await follow(report, lambda _: None, prefixes=prefixes, interval=interval)
    return Status.YES


async def _watch_live(prefixes: tuple[str, ...], interval: float) -> Status:
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False, emoji=False, markup=False)
    view = View()
    with Live(console=console, screen=True, auto_refresh=False) as live:

        def draw() -> None:
            live.update(view.frame(console), refresh=True)

        async def report(happening: Happening) -> None:
            view.add(happening)
            draw()
            await trio.lowlevel.checkpoint()

        def show(snapshot: Snapshot) -> None:
            view.snapshot = snapshot
            draw()

        async def redraw_when_resized() -> None:
            with trio.open_signal_receiver(signal.SIGWINCH) as resizes:
                async for _ in resizes:
                    console.clear()  # the terminal may have wrapped or moved the lines of the previous frame
                    draw()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(redraw_when_resized)
            await follow(report, show, prefixes=prefixes, interval=interval)
            nursery.cancel_scope.cancel()
    return Status.YES


class View:
    """What the screen shows: the latest snapshot, and the latest happenings."""

    def __init__(self) -> None:
        self.snapshot: Snapshot | None = None
        self._trouble: Happening | None = None
        self._happenings: deque[Happening] = deque(maxlen=_KEPT)

    def add(self, happening: Happening) -> None:
        """Take in what happened."""
        self._happenings.append(happening)
        if happening.kind == "daemon":
            self._trouble = happening if happening.bad else None

    def frame(self, console: Console) -> RenderableType:
        """Return the screen, as high as the console: the state, then as many of the latest happenings as fit."""
        from rich.console import Group
        from rich.text import Text

        parts: list[RenderableType] = []
        if self._trouble is not None:
            since = f"{self._trouble.time.astimezone():%H:%M:%S}"
            parts += [Text(f"The daemon {self._trouble.text}", "bold red")]
            parts += [Text(f"What follows is as it was before {since}.", "red")] if self.snapshot else []
            parts += [""]
        if self.snapshot is not None:
            parts += [screen(self.snapshot), ""]
        parts += [Text("Events (ctrl-C ends)", "bold")]
        room = console.height - len(console.render_lines(Group(*parts)))
        lines = [
            Text(happening.as_text(), "red" if happening.bad else "", no_wrap=True, overflow="ellipsis")
            for happening in list(self._happenings)[-room:]
            if room > 0
        ]
        return Group(*parts, *lines)
