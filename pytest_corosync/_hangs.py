"""Ends tests that take too long, so that the next one runs unharmed; and shows where their tasks waited.

When the time is over, a thread sends the main thread a signal. The handler notes where each task waits, and has the run
cancel the test, so that the test cleans up as after any other cancellation. Only code that does not react to that is
interrupted by an exception, first in the task that blocks, in the end in Trio itself.
"""

from __future__ import annotations

import gc
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, suppress
from functools import partial, wraps
from inspect import iscoroutinefunction
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

import pytest

from . import _options

if TYPE_CHECKING:
    import trio

_SIGNAL: Final = signal.SIGRTMIN + 7
"""A signal that programs have no use for. Applications, and pytest-timeout, use SIGALRM."""

_BLOCKED: Final = 1.0
"""Seconds after which code that is still at the same place does not react to its cancellation."""

_CLEAN_UP: Final = 5.0
"""Seconds for the test to clean up, before each further step. The end of a block takes at most one."""

_ROUNDS: Final = 5
"""How often to collect the tasks of a run that was given up: some wait again when they are ended."""


class _Run:
    """The Trio run of a test, and what cancels the test in it."""

    def __init__(
        self, token: trio.lowlevel.TrioToken, root: trio.lowlevel.Task | None, scope: trio.CancelScope
    ) -> None:
        self.token = token
        self.root = root
        self.scope = scope
        self._interrupted: Callable[[int, FrameType | None], object] | None = None

    @classmethod
    def current(cls) -> _Run | None:
        """The run of this thread; `None` if there is none."""
        if "trio" not in sys.modules:
            return None
        import trio

        try:
            token, root = trio.lowlevel.current_trio_token(), trio.lowlevel.current_root_task()
        except RuntimeError:
            return None
        return cls(token, root, cls.scope_of_all(root))

    @staticmethod
    def scope_of_all(root: trio.lowlevel.Task | None) -> trio.CancelScope:
        """The scope of the run's main task, which the last of the root task's nurseries holds."""
        import trio

        return trio.CancelScope() if root is None else root.child_nurseries[-1].cancel_scope

    def handle_interrupts(self, note: Callable[[FrameType | None], object]) -> None:
        """Let `note` be called when Control-C comes, before Trio handles it."""
        before = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is threading.main_thread() and callable(before):
            self._interrupted = before
            signal.signal(signal.SIGINT, partial(_note_and_go_on, note, before))

    def leave_interrupts(self) -> None:
        """Give Control-C back to Trio, if that has not happened yet."""
        before, self._interrupted = self._interrupted, None
        if before is not None:
            signal.signal(signal.SIGINT, before)

    def cancel(self, *, everything: bool = False) -> bool:
        """Cancel the test, or all that the run does; `False` if the run is over. For signal handlers."""
        import trio

        scope = self.scope_of_all(self.root) if everything else self.scope
        with suppress(trio.RunFinishedError):
            self.token.run_sync_soon(scope.cancel)
            return True
        return False


_RUN: Final = pytest.StashKey[_Run]()
_TASKS: Final = pytest.StashKey[str]()
_EXPIRED: Final = pytest.StashKey[str]()
"""Why a test was ended, until that is reported."""

_INTERRUPTIBLE: Final = pytest.StashKey[bool]()
"""Whether an exception would end a phase of a test, and not pytest."""

_WATCHES: Final = pytest.StashKey[list["Watch"]]()

_on: Final[list[Watch]] = []
"""The watches that are on."""


def tasks(item: pytest.Item) -> str:
    """Where the tasks of a test waited when its time was over, or Control-C came; empty if neither happened."""
    return item.stash.get(_TASKS, "")


class Watch:
    """Ends a test when its time is over.

    Args:
        item: the test.
        seconds: its time.
        message: why the test fails then.
        instead: what to do instead of ending the test; called in another thread.
        is_debugging: tells whether to leave the test alone, since a debugger is at work.
    """

    def __init__(
        self,
        item: pytest.Item,
        seconds: float,
        message: str,
        *,
        instead: Callable[[], object] | None = None,
        is_debugging: Callable[[], bool] = bool,
    ) -> None:
        self._item = item
        self._seconds = seconds
        self._message = message
        self._instead = instead
        self._is_debugging = is_debugging
        self._over = threading.Event()
        self._noted = threading.Event()
        self._steps = 0
        self._due = False
        self._place: tuple[FrameType | None, int] = (None, -1)
        self._thread = threading.Thread(target=self._wait, name=f"timeout of {item.name}", daemon=True)

    def start(self) -> None:
        """Begin to wait. Only the main thread handles signals; in another one, nothing happens."""
        if threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(_SIGNAL) is not _on_signal:
            before = signal.signal(_SIGNAL, _on_signal)
            self._item.config.add_cleanup(partial(_restore, before))
        _on.append(self)
        self._thread.start()

    def stop(self) -> None:
        """Stop waiting; it may have been stopped before."""
        if self in _on:
            _on.remove(self)
            self._over.set()
            self._thread.join()
            self._place = (None, -1)

    def _wait(self) -> None:
        pause = self._seconds
        while not self._over.wait(pause):
            pause = _CLEAN_UP if self._due or self._steps else _BLOCKED
            self._due = True
            signal.pthread_kill(threading.main_thread().ident or 0, _SIGNAL)
            if self._instead is not None:
                self._noted.wait(_BLOCKED)
                self._instead()
                return

    def handle(self, frame: FrameType | None) -> None:
        """Take the next step if it is due. Called by the signal handler, in the main thread."""
        if not self._due or self._over.is_set() or self._is_debugging():
            return
        if not self._item.stash.get(_INTERRUPTIBLE, False):
            return  # between two phases: there will be another signal
        self._due = False
        self._steps += 1
        run = self._item.stash.get(_RUN, None) or _Run.current()
        if self._steps == 1:
            _note_tasks(self._item, run, frame)
            self._noted.set()
        if self._instead is not None:
            return
        self._item.stash[_EXPIRED] = self._message
        place = (frame, -1 if frame is None else frame.f_lasti)
        is_at_the_same_place, self._place = place == self._place and not _is_of_trio(frame), place
        if run is None or self._steps > 3 or (self._steps > 1 and is_at_the_same_place):  # noqa: PLR2004 - see below
            raise pytest.fail.Exception(self._message, pytrace=False)
        # First the test; a second later a look at whether it blocks; then what its fixtures have started, too.
        if self._steps != 2 and not run.cancel(everything=self._steps > 1):  # noqa: PLR2004 - the look
            raise pytest.fail.Exception(self._message, pytrace=False)


def _restore(handler: Any) -> None:  # noqa: ANN401 - as signal.signal has it
    signal.signal(_SIGNAL, handler)


def _is_of_trio(frame: FrameType | None) -> bool:
    """Whether Trio waits there for its next event."""
    return frame is not None and "/trio/_core/" in frame.f_code.co_filename


def _on_signal(_: int, frame: FrameType | None) -> None:
    for watch in [*_on]:
        watch.handle(frame)


def _note_tasks(item: pytest.Item, run: _Run | None, frame: FrameType | None) -> None:
    try:
        from triocoro.testing import describe_tasks

        item.stash[_TASKS] = describe_tasks(None if run is None else run.root, running=frame)
    except Exception as error:  # noqa: BLE001 - the test must end all the same
        item.stash[_TASKS] = f"(they cannot be shown: {error!r})"


@contextmanager
def watched(item: pytest.Item) -> Generator[None, None, None]:
    """Within the block, which calls the test function, the test has the time of --corosync-timeout."""
    seconds = _options.timeout(item.config)
    watch = None
    if seconds is not None:
        watch = Watch(item, seconds, f"the test has not ended within {seconds:g} s (--corosync-timeout)")
        watch.start()
    try:
        with ending(item), _in_a_scope(item):
            yield
    finally:
        if watch is not None:
            watch.stop()


@contextmanager
def ending(item: pytest.Item) -> Generator[None, None, None]:
    """Turn whatever comes of a test that was ended into a failure that says so."""
    __tracebackhide__ = True
    item.stash[_INTERRUPTIBLE] = True
    try:
        yield
    except (KeyboardInterrupt, pytest.exit.Exception):
        raise
    except BaseException as error:  # noqa: ASYNC103 - it is replaced by a failure, and the run is over
        item.stash[_INTERRUPTIBLE] = False
        if _EXPIRED not in item.stash:
            raise
        if _Run.current() is not None:
            if _RUN in item.stash:
                item.stash[_RUN].leave_interrupts()
                del item.stash[_RUN]
            _end_abandoned_run(error)
    finally:
        item.stash[_INTERRUPTIBLE] = False
    if _EXPIRED in item.stash:
        message = item.stash[_EXPIRED]
        del item.stash[_EXPIRED]
        raise pytest.fail.Exception(message, pytrace=False) from None


def _ignore(_: object) -> None: ...


def _end_abandoned_run(error: BaseException) -> None:
    """End a run that an exception has left, and which would be in the way of the next one.

    It ends with the frame that it is in, and so do its tasks. What they complain about then is not of interest.
    """
    before, sys.unraisablehook = sys.unraisablehook, _ignore
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            traceback.clear_frames(error.__traceback__)
            for _ in range(_ROUNDS):
                gc.collect()
    finally:
        sys.unraisablehook = before


@contextmanager
def _in_a_scope(item: pytest.Item) -> Generator[None, None, None]:
    """Let the test function run in a scope that a watch can cancel, whatever plugin runs it."""
    test: Any = getattr(item, "obj", None)
    holder, name = (test.hypothesis, "inner_test") if hasattr(test, "hypothesis") else (item, "obj")
    function = getattr(holder, name, None)
    if not iscoroutinefunction(function):
        yield
        return
    setattr(holder, name, _scoped(item, function))
    try:
        yield
    finally:
        setattr(holder, name, function)


def _scoped(item: pytest.Item, function: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
    @wraps(function)
    async def scoped(*args: object, **kwargs: object) -> None:
        __tracebackhide__ = True
        run = _Run.current()
        if run is None:  # not with Trio
            await function(*args, **kwargs)
            return
        import trio

        item.stash[_RUN] = run
        run.scope = trio.CancelScope()
        run.handle_interrupts(partial(_note_tasks, item, run))
        try:
            with run.scope:
                await function(*args, **kwargs)
        finally:
            run.leave_interrupts()
            if item.stash.get(_RUN, None) is run:  # it may have been given up
                del item.stash[_RUN]

    return scoped


def _note_and_go_on(
    note: Callable[[FrameType | None], object],
    handler: Callable[[int, FrameType | None], object],
    number: int,
    frame: FrameType | None,
) -> None:
    note(frame)
    handler(number, frame)


def set_timer_of_pytest_timeout(
    item: pytest.Item,
    settings: Any,  # noqa: ANN401 - a class of pytest-timeout
    caller: object,
    show: Callable[[], object],
) -> bool | None:
    """Be the timer of pytest-timeout for a test with clusters.

    The method `thread` ends the process. It still does, a second later; `show` is called before.

    Args:
        item: the test.
        settings: those of pytest-timeout.
        caller: the plugin whose hook this is.
        show: prints what happened.

    Returns:
        True if the timer is set; `None` to leave it to pytest-timeout.
    """
    plugin: Any = item.config.pluginmanager.getplugin("timeout")

    def is_debugging() -> bool:
        return not settings.disable_debugger_detection and bool(plugin.is_debugging())

    if threading.current_thread() is not threading.main_thread():
        return None
    ends = settings.method == "signal"
    message = f"Timeout (>{settings.timeout}s) from pytest-timeout."
    watch = Watch(item, settings.timeout, message, instead=None if ends else show, is_debugging=is_debugging)
    item.stash.setdefault(_WATCHES, list[Watch]()).append(watch)
    watch.start()
    if not ends:
        later = settings._replace(timeout=settings.timeout + _BLOCKED)
        hook = item.config.pluginmanager.subset_hook_caller("pytest_timeout_set_timer", [caller])
        hook(item=item, settings=later)
    return True


def cancel_timers(item: pytest.Item) -> None:
    """Stop what `set_timer_of_pytest_timeout` has started."""
    for watch in item.stash.get(_WATCHES, list[Watch]()):
        watch.stop()


def leave_alone() -> None:
    """Stop all watches: a debugger has been entered."""
    for watch in [*_on]:
        watch.stop()
