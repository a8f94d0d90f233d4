"""What `triocoro doctor` looks at: whether an application can use Corosync here, and if not, why and what to do.

The causes are found where errors are made, in `_corosync` and in the test clusters: this module only asks. It needs
neither the C libraries nor the extension module.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Final, Literal, TypeAlias, TypeVar

import attrs
import trio

from .._backoff import retry
from .._corosync._causes import user_name, why_silent
from .._endpoint import resolve_endpoint
from .._errors import CorosyncError, LibraryError, NotExistError, TryAgainError
from .._problem import Problem, ProblemKind, problem_of
from .._raw import RawHandle
from .._services import CFG, CPG, ICMAP, QUORUM, VOTEQUORUM, Endpoint, ServiceSpec
from .._version import __version__
from ..testing import describe_daemon, describe_libraries, describe_user
from ..testing._netns.requirements import find_problems, find_program

T = TypeVar("T")

Check: TypeAlias = Literal[
    "triocoro", "extension", "libraries", "shared-memory", "daemon", "permission", "test-clusters"
]
Status: TypeAlias = Literal["ok", "warning", "failure", "skipped"]

PATIENCE: Final = 3.0
"""Seconds that the daemon may take to answer."""

_SERVICES: Final[tuple[ServiceSpec[RawHandle[object], object], ...]] = (CPG, VOTEQUORUM, QUORUM, ICMAP, CFG)

_HOMES: Final[Mapping[ProblemKind, Check]] = {
    "no-extension": "extension",
    "no-library": "libraries",
    "no-shared-memory": "shared-memory",
    "other-shared-memory": "shared-memory",
    "shared-memory-full": "shared-memory",
    "no-permission": "permission",
}
"""The checks that find a problem of a connection; "daemon" finds the others."""
_PATH: Final[tuple[Check, ...]] = ("extension", "libraries", "shared-memory", "daemon", "permission")
"""The checks that a connection passes, in this order."""
_OF_CLIENT: Final = ("no-extension", "no-library")
"""Problems that a real test cluster shares with a connection."""
_PARTIAL: Final = ("no-votequorum",)
"""Problems that leave an application something to use."""

_STARTING: Final = Problem(
    "starting",
    f"a Corosync daemon answers, but has admitted no client for {PATIENCE:g} seconds: it is starting, or cannot finish",
    "wait, or look at its log",
    "journalctl -u corosync",
)


@attrs.frozen
class Finding:
    """What one check has found."""

    check: Check
    """What was looked at."""
    status: Status
    """A failure keeps an application from using Corosync, a warning does not. "skipped": an earlier check failed."""
    found: str
    """What there is, or what is wrong."""
    problem: ProblemKind | None = None
    """What is wrong, for programs."""
    remedy: str = ""
    """What to do about it."""
    command: str = ""
    """A shell command that does so, if there is one."""


def usable(findings: Sequence[Finding]) -> bool:
    """Whether an application can use Corosync here."""
    return all(finding.status != "failure" for finding in findings)


async def examine(endpoint: Endpoint | None = None) -> list[Finding]:
    """Look at everything that connections and real test clusters need here.

    Args:
        endpoint: the daemon; by default the one that applications use.

    Returns:
        at least one finding for each check, in the order in which a connection needs them. If the daemon does not
        answer, that takes `PATIENCE` seconds.
    """
    daemon = resolve_endpoint(endpoint)
    outcomes: dict[str, Problem | None] = {}
    missing: list[Problem] = []

    async def look_for_missing() -> None:
        missing.extend(await _on_thread(find_problems))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look_for_missing)
        for service in _SERVICES:
            nursery.start_soon(_connect, daemon, service, outcomes)
    in_order = {service.name: outcomes[service.name] for service in _SERVICES}
    return await _on_thread(lambda: [_of_versions(), *_of_connections(in_order, missing), *_of_test_clusters(missing)])


async def _on_thread(call: Callable[[], T]) -> T:
    return await trio.to_thread.run_sync(call, abandon_on_cancel=True)


async def _connect(
    endpoint: Endpoint, service: ServiceSpec[RawHandle[object], object], outcomes: dict[str, Problem | None]
) -> None:
    """Connect to a service, and note the problem under its name, or `None`."""
    starting = False

    async def attempt() -> RawHandle[object]:
        nonlocal starting
        try:
            return await endpoint.connect(service)
        except TryAgainError:
            starting = True
            raise

    failure: CorosyncError | None = None
    with trio.move_on_after(PATIENCE) as patience:  # noqa: ASYNC912 - retry waits for the daemon
        try:
            handle = await retry(attempt)
        except CorosyncError as error:
            failure = error
        else:
            outcomes[service.name] = None
            handle.close()
            await handle.wait_closed()
            return
    if failure is not None:
        outcomes[service.name] = await _on_thread(partial(_problem, failure))
    elif patience.cancelled_caught and service.name not in outcomes:
        outcomes[service.name] = _STARTING if starting else await _on_thread(partial(why_silent, PATIENCE))


def _problem(error: CorosyncError) -> Problem:
    """Which problem the error of a connect reports."""
    problem = problem_of(error)
    if problem is not None:
        return problem
    if not isinstance(error, (LibraryError, NotExistError)):
        return Problem("other", str(error))
    remedy = "start it"
    if find_program("corosync") is None:
        remedy = "install the package corosync, write its configuration (corosync.conf(5)), and start it"
    return Problem("no-daemon", "no Corosync daemon answers", remedy, "systemctl start corosync")


def _of_versions() -> Finding:
    return Finding("triocoro", "ok", f"{__version__}, Python {platform.python_version()}, Trio {trio.__version__}")


def _of_connections(outcomes: Mapping[str, Problem | None], missing: Sequence[Problem]) -> Iterator[Finding]:
    """The findings of the checks that a connection passes.

    Args:
        outcomes: by service.
        missing: what a real test cluster would lack.
    """
    # What a connect says of the client is about one service; these are about all of them.
    affected: dict[Problem, list[str]] = {problem: [] for problem in missing if problem.kind in _OF_CLIENT}
    for service, problem in outcomes.items():
        if problem is not None and problem.kind not in _OF_CLIENT:
            affected.setdefault(problem, []).append(service)
    for level, check in enumerate(_PATH):
        passed = [service for service, problem in outcomes.items() if _level(problem) > level]
        here = {problem: services for problem, services in affected.items() if _level(problem) == level}
        if passed and (check == "daemon" or not here):
            yield Finding(check, "ok", _found(check, passed))
        for problem, services in here.items():
            status: Status = "warning" if problem.kind in _PARTIAL else "failure"
            yield _finding(check, status, problem, ", ".join(services) if len(services) < len(outcomes) else "")
        if not passed and not here:
            yield Finding(check, "skipped", "not checked, as an earlier check has failed")


def _level(problem: Problem | None) -> int:
    """How far along `_PATH` a connection gets."""
    return len(_PATH) if problem is None else _PATH.index(_HOMES.get(problem.kind, "daemon"))


def _found(check: Check, services: Sequence[str]) -> str:
    """What there is, where a check has found no problem of some services."""
    if check == "extension":
        from .._corosync import _shim

        return str(_shim.__file__)
    if check == "libraries":
        return f"{describe_libraries()}; {_libqb()}"
    if check == "shared-memory":
        room = os.statvfs("/dev/shm")
        return f"/dev/shm, {room.f_bavail * room.f_frsize / 2**20:.0f} MiB free"
    if check == "daemon":
        return f"answers: {', '.join(services)}"
    return f"{user_name(os.geteuid())} is admitted"


def _libqb() -> str:
    """The version of the library that Corosync's libraries talk to the daemon with."""
    try:
        version = ctypes.c_char_p.in_dll(ctypes.CDLL("libqb.so.100"), "qb_ver_str").value
    except (OSError, ValueError):  # another version of its ABI, or an old one, which does not tell
        version = None
    return f"libqb {version.decode() if version else '(unknown version)'}"


def _of_test_clusters(missing: Sequence[Problem]) -> Iterator[Finding]:
    """Whether real test clusters can run here, and as whom."""
    own = [problem for problem in missing if problem.kind not in _OF_CLIENT]
    for problem in own:
        yield _finding("test-clusters", "warning", problem)
    if own:
        return
    if missing:
        yield Finding("test-clusters", "skipped", "not possible, because of the above; the fake needs none of it")
    else:
        yield Finding("test-clusters", "ok", f"possible as {describe_user()}, with {describe_daemon()}")


def _finding(check: Check, status: Status, problem: Problem, about: str = "") -> Finding:
    reason = f"{about}: {problem.reason}" if about else problem.reason
    return Finding(check, status, reason, problem.kind, problem.remedy, problem.command)
