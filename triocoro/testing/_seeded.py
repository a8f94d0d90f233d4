"""Runs of Trio that can be repeated."""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import trio
import trio.testing

if TYPE_CHECKING:
    from typing_extensions import TypeVarTuple, Unpack  # which are younger than Python 3.10

    ArgsT = TypeVarTuple("ArgsT")

T = TypeVar("T")

_RANDOM: Final = "_r"
_DETERMINISTIC: Final = "_ALLOW_DETERMINISTIC_SCHEDULING"
"""What Trio has for Hypothesis: it sorts the tasks that are ready before it shuffles them."""


@contextmanager
def seeded(seed: int) -> Generator[None, None, None]:
    """Have Trio shuffle its tasks in a way that only `seed` decides, within a `with` block.

    The block may contain a `trio.run`, or be within one, as in a test of pytest-trio; one run at a time. What comes
    from outside stays as it is: time, unless the clock is a `trio.testing.MockClock`, and threads, files, processes.
    What was in force before, such as Hypothesis's seed, is so again afterwards.

    Args:
        seed: an integer, whose sign does not count.

    Raises:
        RuntimeError: this Trio is none that can be seeded.
    """
    # Trio has no public way; Hypothesis takes this one, too.
    scheduler: Any = importlib.import_module("trio._core._run")
    if not hasattr(scheduler, _RANDOM) or not hasattr(scheduler, _DETERMINISTIC):
        raise RuntimeError(
            f"Trio {trio.__version__} keeps its random numbers elsewhere than triocoro knows, so it cannot be seeded;"
            " another version of either may help"
        )
    random, deterministic = getattr(scheduler, _RANDOM), getattr(scheduler, _DETERMINISTIC)
    state = random.getstate()
    setattr(scheduler, _DETERMINISTIC, True)
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)
        setattr(scheduler, _DETERMINISTIC, deterministic)


def seeded_run(
    async_fn: Callable[[Unpack[ArgsT]], Awaitable[T]],
    *args: Unpack[ArgsT],
    seed: int,
    clock: trio.abc.Clock | None = None,
) -> T:
    """`trio.run` that takes the same course each time, for each seed another one.

    A program that talks to a `FakeCluster` made in it does and sees the same each time, also in another process.

    Args:
        async_fn: as for `trio.run`.
        args: its arguments.
        seed: an integer, whose sign does not count.
        clock: by default a `trio.testing.MockClock` that jumps to what is waited for, so that no time passes. For real
            time, have a `trio.run` within `seeded`.

    Returns:
        What `async_fn` returns; what it raises is raised.
    """
    if clock is None:
        clock = trio.testing.MockClock(autojump_threshold=0)
    with seeded(seed):
        return trio.run(async_fn, *args, clock=clock)
