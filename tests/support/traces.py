"""What real clusters could leave behind, in this process and on this machine."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import trio

GRACE = 10.0
"""Seconds that the kernel may take to clear away what we have waited for, even on a busy machine."""

_KINDS = ("net", "mnt", "pid", "user")


def wait_until(condition: Callable[[], bool], seconds: float = GRACE) -> bool:
    """Poll a condition of the kernel's that nothing tells of."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def names_in(folder: Path | str, *prefixes: str) -> frozenset[str]:
    """The names in a folder, or those of them that begin with one of the prefixes."""
    return frozenset(path.name for path in Path(folder).iterdir() if path.name.startswith(prefixes or ""))


def links_in(folder: Path | str) -> Iterator[str]:
    """Where the symbolic links in a folder of a process lead to; none if it has ended, or is another user's."""
    with suppress(OSError):
        for link in Path(folder).iterdir():
            with suppress(OSError):
                yield str(link.readlink())


def state_of(pid: int | str | None) -> str:
    """The letter for the state of a process, as in ps(1)."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]


def _processes() -> Iterator[Path]:
    """All processes but those that have ended, and wait for this machine's init to take notice, which may take long."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):  # it has ended meanwhile
                if state_of(folder.name) != "Z":
                    yield folder


def namespaces_of(pid: int | None) -> tuple[str, str]:
    """The network and the pid namespace of a process."""
    net, pids = (str(Path(f"/proc/{pid}/ns/{kind}").readlink()) for kind in ("net", "pid"))
    return net, pids


def processes_in(namespace: str) -> frozenset[int]:
    """The processes in a pid namespace."""
    found: set[int] = set()
    for process in _processes():
        try:
            if str((process / "ns" / "pid").readlink()) == namespace:
                found.add(int(process.name))
        except OSError:  # it has ended meanwhile, or is another user's
            continue
    return frozenset(found)


def supervisor_of(pid: int | None) -> int:
    """The first process in the pid namespace of another one."""
    for other in processes_in(namespaces_of(pid)[1]):
        if re.search(r"^NSpid:.*\t1$", Path(f"/proc/{other}/status").read_text(encoding="utf-8"), re.MULTILINE):
            return other
    raise AssertionError


@attrs.frozen
class Marked:
    """The processes that were started with a text in their environment, but for this one, and those that it forked."""

    mark: str

    def processes(self) -> frozenset[int]:
        found: set[int] = set()
        for process in _processes():
            try:
                if self.mark.encode() in (process / "environ").read_bytes():
                    found.add(int(process.name))
            except OSError:  # as above
                continue
        return frozenset(found)

    def kill(self) -> None:
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def namespaces(self) -> frozenset[str]:
        """Those in which they live, but for our own."""
        found: set[str] = set()
        for pid in self.processes():
            try:
                found.update(str(Path(f"/proc/{pid}/ns/{kind}").readlink()) for kind in _KINDS)
            except OSError:  # as above
                continue
        return frozenset(found - {str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in _KINDS})


def holders_of(namespaces: frozenset[str]) -> frozenset[tuple[str, str]]:
    """Who holds some namespaces, by living in it, an fd, or a mount: pids, each with the namespace.

    The number of a namespace that is gone is soon that of another one, in which other processes live.
    """
    held: set[tuple[str, str]] = set()
    for process in _processes():
        here = {*links_in(process / "ns"), *links_in(process / "fd")}
        with suppress(OSError):  # as above
            mounts = (process / "mountinfo").read_text(encoding="utf-8", errors="replace")
            here.update(re.findall(r"\b(?:net|mnt|pid|user):\[\d+\]", mounts))
        held.update((process.name, namespace) for namespace in here & namespaces)
    return frozenset(held)


def busy_threads() -> list[threading.Thread]:
    """All threads but those that Trio keeps for its next call, which end after ten idle seconds."""
    cache: Any = trio._core._thread_cache.THREAD_CACHE
    idle = {worker._thread for worker in tuple(cache._idle_workers)}  # threads take from it
    return [thread for thread in threading.enumerate() if thread not in idle]


def _mounts() -> frozenset[str]:
    """The mounts on what nodes have to themselves, and those that hold a namespace; see proc(5) for the format."""
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    ours = re.compile(r"^(\S+ ){4}(/run|/dev/shm|\S*corosync\S*) |- nsfs ")
    return frozenset(line for line in lines if ours.search(line))


@attrs.frozen
class Machine:
    """Where on this machine a cluster could leave something behind: not what others may do there meanwhile."""

    mounts: frozenset[str] = attrs.field(factory=_mounts)
    interfaces: frozenset[str] = attrs.field(factory=lambda: names_in("/sys/class/net", "bridge", "node", "probe"))
    shared_memory: frozenset[str] = attrs.field(factory=lambda: names_in("/dev/shm", "qb-"))
    run: frozenset[str] = attrs.field(factory=lambda: names_in("/run", "corosync", "triocoro", "qb-"))


@attrs.frozen
class Traces(Machine):
    """And where in this process."""

    fds: frozenset[str] = attrs.field(factory=lambda: names_in("/proc/self/fd"))
    threads: frozenset[int | None] = attrs.field(factory=lambda: frozenset(thread.ident for thread in busy_threads()))


@contextmanager
def nothing_left() -> Generator[None, None, None]:
    """Fail if the block leaves something behind."""
    before = Traces()
    yield
    if not wait_until(lambda: Traces() == before):
        assert attrs.asdict(Traces()) == attrs.asdict(before)
