"""Why no connection could be made: what this process or the system lacks, and where the daemon may be instead."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from .._enums import CsError
from .._errors import (
    CorosyncError,
    CorosyncUnavailableError,
    NoMemoryError,
    NoResourcesError,
    NoSpaceError,
    no_descriptor,
)

FULL = (
    "/dev/shm is full, through which the daemon and its clients share memory, 3 MB for each connection: free some (df"
    " /dev/shm), or make it larger (mount -o remount,size=)"
)
_NO_DIRECTORY = (
    "there is no /dev/shm, through which the daemon and its clients share memory: mount a tmpfs there (mount -t tmpfs"
    " tmpfs /dev/shm)"
)
_OTHER_DIRECTORY = (
    "a Corosync daemon answers, but its files are not in our /dev/shm: share the daemon's (docker run --ipc=host, or"
    " --volume /dev/shm:/dev/shm)"
)
_NO_VOTEQUORUM = (
    "the Corosync daemon runs without votequorum: its configuration lacks quorum { provider: corosync_votequorum }; or"
    " it is just starting or ending"
)
_ELSEWHERE = (
    "no Corosync daemon listens in our network namespace, but process {pid} ({name}) runs in another one: run this"
    " program there (nsenter --target {pid} --net --mount, or docker run --network=host), or start a daemon here"
)
_LEFTOVERS = (
    "no Corosync daemon listens in our network namespace, but /dev/shm has the files of one: start it if it was killed;"
    " if it runs in another network namespace, share that one (docker run --network=host)"
)
_SERVICES = frozenset({"cpg", "votequorum", "quorum", "cmap", "cfg"})
_LISTENING = "00010000"


_NO_THREAD = (
    "no thread or process can be started for now: this process or its user is at a limit (ulimit -u, ulimit -v, or"
    " pids.max of its cgroup)"
)
_LACKS: dict[int, tuple[type[CorosyncError], str]] = {
    **dict.fromkeys(
        (errno.ENOMEM, errno.ENOBUFS),
        (NoMemoryError, "this process gets no more memory; free some, or raise its limit (ulimit -v)"),
    ),
    errno.EAGAIN: (NoResourcesError, _NO_THREAD),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), (NoSpaceError, FULL)),
    errno.EFBIG: (NoSpaceError, "this process may not make files as large as this in /dev/shm (ulimit -f)"),
}
_NO_SOCKET = (
    "this process may not make Unix sockets: allow it (RestrictAddressFamilies=AF_UNIX of its systemd unit, or the"
    " seccomp filter of its container)"
)
_NO_FILE = "no file can be made in /dev/shm, through which memory is shared: mount a tmpfs there, with mode=1777"


def lack(number: int, function: str) -> CorosyncError:
    """Return the exception for an errno that a library has run into, or would have, before it could ask the daemon."""
    found = no_descriptor(number, function)
    if found is not None:
        return found
    other = CorosyncUnavailableError, _NO_SOCKET if function == "socket" else _NO_FILE
    kind, reason = _LACKS.get(number, other)
    return kind(f"{function}: {os.strerror(number)}: {reason}", function=function)


def why_unanswered(service: str, pidfd: int, error: CorosyncError) -> str | None:
    """Look for the reason why a connect has failed, as if there were no daemon; `None` if there seems to be none.

    Args:
        service: the name of the service.
        pidfd: of a process in the daemon's namespaces; -1 for our own.
        error: what the library says.
    """
    # Reading may fail, for want of permission or of file descriptors: then there is no more to say.
    with suppress(OSError, ValueError):
        process = Path("/proc/thread-self" if pidfd < 0 else f"/proc/{_pid(pidfd)}")
        shared = Path("/dev/shm") if pidfd < 0 else process / "root/dev/shm"
        if not shared.is_dir():
            return _NO_DIRECTORY
        files = any(shared.glob("qb-*"))
        listening = set(_listening(process))
        if service in listening:
            return None if files or error.code is not CsError.NOT_EXIST else _OTHER_DIRECTORY
        if listening:
            return _NO_VOTEQUORUM if service == "votequorum" else None
        if pidfd < 0:
            return next(_elsewhere(), _LEFTOVERS if files else None)
    return None


def _pid(pidfd: int) -> int:
    lines = Path(f"/proc/self/fdinfo/{pidfd}").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pid:"))


def _listening(process: Path) -> Iterator[str]:
    """The services whose sockets listen in the process's network namespace; see proc_net(5) for unix."""
    for line in (process / "net/unix").read_text(encoding="ascii", errors="replace").splitlines():
        *_, flags, _, _, _, path = line.split()
        # Abstract names are padded; where libqb is told to use files, these are in a folder.
        name = path.strip("@").rpartition("/")[2]
        if flags == _LISTENING and name in _SERVICES:
            yield name


def _elsewhere() -> Iterator[str]:
    """Describe each daemon that runs in another network namespace."""
    ours = Path("/proc/thread-self/ns/net").readlink()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is another user's
            name = (process / "comm").read_text(errors="replace").strip()
            if name == "corosync" and (process / "ns/net").readlink() != ours:
                yield _ELSEWHERE.format(pid=process.name, name=name)
