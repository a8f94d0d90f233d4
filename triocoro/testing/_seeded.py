"""Trio runs that can be repeated: a seed decides the order in which tasks run."""

from __future__ import annotations

import importlib
import random
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import trio
import trio.testing

from .. import _validate
from ._fake.cluster import numbering_anew
from ._stuck import fail_when_stuck

if TYPE_CHECKING:
    from typing_extensions import TypeVarTuple, Unpack  # in typing from Python 3.11 on

    ArgsT = TypeVarTuple("ArgsT")

T = TypeVar("T")

_RANDOM: Final = "_r"
_DETERMINISTIC: Final = "_ALLOW_DETERMINISTIC_SCHEDULING"
"""Trio's switch for Hypothesis: Trio sorts the runnable tasks before it shuffles them."""


@contextmanager
def seeded(seed: int) -> Generator[None, None, None]:
    """Let `seed` decide the order in which Trio runs tasks, within a `with` block. It also seeds Python's `random`.

    The block may contain a `trio.run`, or be inside one, as in a test of pytest-trio; one run at a time. Influences
    from outside remain: time, unless the clock is a `trio.testing.MockClock`, and threads, files and processes. The
    end of the block restores the earlier state, such as Hypothesis's seed.

    Args:
        seed: an integer; its sign is ignored.

    Raises:
        TypeError: the seed is no integer.
        RuntimeError: this version of Trio cannot be seeded.
    """
    _validate.instance(seed, int, "seed")
    # Trio has no public interface for this. Hypothesis uses the same attributes.
    scheduler: Any = importlib.import_module("trio._core._run")
    if not hasattr(scheduler, _RANDOM) or not hasattr(scheduler, _DETERMINISTIC):
        raise RuntimeError(
            f"Trio {trio.__version__} keeps its random numbers elsewhere than triocoro knows, so it cannot be seeded;"
            " another version of either may help"
        )
    order, deterministic = getattr(scheduler, _RANDOM), getattr(scheduler, _DETERMINISTIC)
    states = order.getstate(), random.getstate()
    setattr(scheduler, _DETERMINISTIC, True)
    order.seed(seed)
    random.seed(seed)
    try:
        with numbering_anew():
            yield
    finally:
        order.setstate(states[0])
        random.setstate(states[1])
        setattr(scheduler, _DETERMINISTIC, deterministic)


def seeded_run(
    async_fn: Callable[[Unpack[ArgsT]], Awaitable[T]],
    *args: Unpack[ArgsT],
    seed: int,
    clock: trio.abc.Clock | None = None,
) -> T:
    """`trio.run` whose tasks run in the same order each time; another seed gives another order.

    A program that creates a `FakeCluster` and talks to it does and sees the same each time, also in another process.

    Args:
        async_fn: as for `trio.run`.
        args: its arguments.
        seed: an integer; its sign is ignored.
        clock: by default a `trio.testing.MockClock` that jumps to the next deadline, so that no real time passes. For
            real time, use `trio.run` inside `seeded`.

    Returns:
        the result of `async_fn`; its exceptions propagate.

    Raises:
        TypeError: the seed is no integer, or the clock is none.
        RuntimeError: as `seeded`.
        StuckError: nothing can happen any more, and the clock jumps; see `fail_when_stuck`.
    """
    if clock is None:
        clock = trio.testing.MockClock(autojump_threshold=0)
    _validate.instance(clock, trio.abc.Clock, "clock")  # Trio would report an error of its own

    async def program() -> T:
        with fail_when_stuck():
            return await async_fn(*args)
        raise AssertionError  # for type checkers, which think that the block may end early

    with seeded(seed):
        return trio.run(program, clock=clock)
