"""The output of a command: one line for each event, with the time since the start."""

from __future__ import annotations

import os
import time
from typing import TextIO

_RESET = "\x1b[0m"
_DIM = "\x1b[2m"
_BOLD = "\x1b[1m"
_RED = "\x1b[1;31m"
_NODE_COLOURS = ("\x1b[36m", "\x1b[33m", "\x1b[35m", "\x1b[32m", "\x1b[34m", "\x1b[96m", "\x1b[93m", "\x1b[95m")


def wants_colour(stream: TextIO) -> bool:
    """Whether `stream` is a terminal whose user has not declined colours (NO_COLOR, or TERM=dumb)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class Transcript:
    """Lines with the time since the start, and the node that each is about."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._colour = wants_colour(stream)
        self._start = time.perf_counter()

    def title(self, text: str) -> None:
        """Print a heading."""
        self._write(f"\n{self._paint(_BOLD, text)}")

    def line(self, text: str, *, node: int | None = None) -> None:
        """Print an event, on one node or on all of them."""
        who = "" if node is None else f"node {node}"
        colour = "" if node is None else _NODE_COLOURS[(node - 1) % len(_NODE_COLOURS)]
        elapsed = self._paint(_DIM, f"{time.perf_counter() - self._start:7.3f}")
        self._write(f"{elapsed}  {self._paint(colour, f'{who:<8}{text}')}")

    def failure(self, text: str) -> None:
        """It went wrong."""
        self._write(self._paint(_RED, f"failed: {text}"))

    def _paint(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_RESET}" if self._colour and colour else text

    def _write(self, text: str) -> None:
        try:
            # Flushed at each line, for a reader behind a pipe.
            print(text, file=self._stream, flush=True)
        except BrokenPipeError:
            # The reader is gone, but the exit status still matters. What the stream holds, and what comes, is dropped;
            # else it would fail again at the end of the process.
            with open(os.devnull, "wb") as null:  # noqa: PTH123 - its fd is needed, not its path
                os.dup2(null.fileno(), self._stream.fileno())
