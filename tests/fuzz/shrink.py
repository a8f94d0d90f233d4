"""Shrinking: find fewer steps that still fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fuzz.program import Program


def shrink(program: Program, fails: Callable[[Program], bool]) -> Program:
    """Remove steps for as long as the rest still fails. Steps that depend on removed ones do nothing."""
    while True:
        smaller = next((candidate for candidate in _shorter(program) if fails(candidate)), None)
        if smaller is None:
            return program
        program = smaller


def _shorter(program: Program) -> Iterator[Program]:
    """The program without each of its halves, without each of its quarters, and so on down to single steps."""
    size = (len(program.steps) + 1) // 2
    while size:
        for start in range(0, len(program.steps), size):
            yield program.without(start, start + size)
        size //= 2
