"""Looks for the fewest steps that still fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fuzz.program import Program


def shrink(program: Program, fails: Callable[[Program], bool]) -> Program:
    """Leave out steps for as long as the rest fails; steps that make no sense without others do nothing."""
    while True:
        smaller = next((candidate for candidate in _shorter(program) if fails(candidate)), None)
        if smaller is None:
            return program
        program = smaller


def _shorter(program: Program) -> Iterator[Program]:
    """Without this half or that, without each quarter, and so on down to single steps."""
    size = (len(program.steps) + 1) // 2
    while size:
        for start in range(0, len(program.steps), size):
            yield program.without(start, start + size)
        size //= 2
