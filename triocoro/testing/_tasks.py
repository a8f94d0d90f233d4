"""Where the tasks of a Trio run wait, as text."""

from __future__ import annotations

import inspect
import linecache
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Final

import attrs
import trio

from .. import _validate
from .._runs import in_run

_LIBRARIES: Final = tuple(
    {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    | {str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / "pytest_corosync")}
)
"""The folders of code that is not the user's: Python, installed packages, and triocoro."""

_TRAPS: Final = ("trio/_core/_traps.py", "trio/_core/_parking_lot.py", "trio/_core/_io_epoll.py")

_MOST: Final = 8
"""How many of the user's frames are shown of a task."""

_FEW: Final = 4
"""How many frames of libraries are shown below them."""


@attrs.frozen
class _Frame:
    """A place in a program."""

    file: str
    line: int
    function: str

    @property
    def is_users(self) -> bool:
        return not self.file.startswith(_LIBRARIES) and not self.file.startswith(("<frozen ", "<attrs "))

    @property
    def is_scaffold(self) -> bool:
        """Whether it is about how a plugin runs tests and fixtures."""
        return "pytest_trio" in self.file

    @property
    def is_trap(self) -> bool:
        """Whether it is about how Trio lets a task wait."""
        return self.file.endswith(_TRAPS)

    def __str__(self) -> str:
        return f"{_short(self.file)}:{self.line} in {self.function}"


def describe_tasks(root: trio.lowlevel.Task | None = None, *, running: FrameType | None = None) -> str:
    """Return where each task of a Trio run waits, as an indented tree: the frames of your own code first.

    Tasks of Trio itself are left out, and those of triocoro take one line.

    Args:
        root: the root task of the run; by default that of this thread's run.
        running: for a signal handler: the frame that it interrupts. It is the place of the task that runs at the
            moment, or of the thread if none does.

    Raises:
        RuntimeError: neither is given, and this thread does not run Trio.
        TypeError: the root is no task, or the frame no frame.
    """
    if root is not None:
        _validate.instance(root, trio.lowlevel.Task, "root")
    if running is not None:
        _validate.instance(running, FrameType, "running")
    if root is None and (running is None or in_run()):
        root = trio.lowlevel.current_root_task()
    try:
        current: trio.lowlevel.Task | None = trio.lowlevel.current_task()
    except RuntimeError:
        current = None
    lines: list[str] = []
    if root is not None:
        for nursery in root.child_nurseries[-1:]:  # the one of the main task; those of Trio's own come before it
            for task in nursery.child_tasks:
                lines += _tree(task, current, running or inspect.currentframe(), "")
    if root is None and running is not None:
        lines += ["the thread runs", *_described(_stack(running), "  ")]
    return "\n".join(lines)


def _tree(
    task: trio.lowlevel.Task, current: trio.lowlevel.Task | None, running: FrameType | None, indent: str
) -> Iterator[str]:
    frames = _stack(running) if task is current else [_of(frame, line) for frame, line in task.iter_await_frames()]
    children = sorted((child for nursery in task.child_nurseries for child in nursery.child_tasks), key=_name)
    mine = any(frame.is_users for frame in frames)
    if mine or (not children and not any(frame.is_scaffold for frame in frames)):
        yield f"{indent}{_name(task)} {'runs' if task is current else 'waits'}"
        yield from _described(frames, f"{indent}  ")
        indent += "    "
    for child in children:
        if not _name(child).startswith("triocoro."):
            yield from _tree(child, current, running, indent)
    if count := sum(_name(child).startswith("triocoro.") for child in children):
        yield f"{indent}({count} {'task' if count == 1 else 'tasks'} of triocoro)"


def _name(task: trio.lowlevel.Task) -> str:
    return task.name


def _stack(frame: FrameType | None) -> list[_Frame]:
    """The frames of a thread, the outermost first; those of one task, if a task runs."""
    frames: list[_Frame] = []
    while frame is not None and not _is_run(frame):
        frames.append(_of(frame, frame.f_lineno))
        frame = frame.f_back
    return frames[::-1]


def _of(frame: FrameType, line: int) -> _Frame:
    return _Frame(frame.f_code.co_filename, line, frame.f_code.co_name)


def _is_run(frame: FrameType) -> bool:
    """Whether Trio runs tasks there."""
    return frame.f_code.co_name == "unrolled_run" and str(Path("trio", "_core")) in frame.f_code.co_filename


def _described(frames: Sequence[_Frame], indent: str) -> Iterator[str]:
    """The user's frames, the innermost first, with their source; then the others below the innermost one."""
    places = [place for place, frame in enumerate(frames) if frame.is_users]
    for place in places[: -_MOST - 1 : -1]:
        frame = frames[place]
        source = linecache.getline(frame.file, frame.line).strip()
        yield f"{indent}{frame}: {source}" if source else f"{indent}{frame}"
    below = frames[places[-1] + 1 :] if places else frames
    if any(frame.function == "_nested_child_finished" for frame in below):
        yield f"{indent}for the tasks of its nursery"
    elif shown := [f"{frame.function} ({_short(frame.file)}:{frame.line})" for frame in below if not frame.is_trap]:
        # The call of the user's, and what it waits in.
        yield f"{indent}inside {', '.join(shown if len(shown) <= _FEW else [*shown[: _FEW - 1], '...', shown[-1]])}"


def _short(file: str) -> str:
    path = Path(file)
    if not file.startswith(_LIBRARIES) and path.is_relative_to(Path.cwd()):
        return str(path.relative_to(Path.cwd()))
    return "/".join(path.parts[-2:])
