"""Why no connection could be made: what this process or the system lacks, and where the daemon may be instead."""

from __future__ import annotations

import errno
import os
import pwd
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from .._enums import CsError
from .._errors import (
    CorosyncError,
    CorosyncUnavailableError,
    NoMemoryError,
    NoResourcesError,
    NoSpaceError,
    no_descriptor,
)
from .._problem import Problem

FULL: Final = Problem(
    "shared-memory-full",
    "/dev/shm is full, through which the daemon and its clients share memory, 3 MB for each connection",
    "free some (df /dev/shm), or make it larger (mount -o remount,size=)",
)
NO_DIRECTORY: Final = Problem(
    "no-shared-memory",
    "there is no /dev/shm, through which the daemon and its clients share memory",
    "mount a tmpfs there",
    "mkdir -p /dev/shm && mount -t tmpfs tmpfs /dev/shm",
)
_OTHER_DIRECTORY: Final = Problem(
    "other-shared-memory",
    "a Corosync daemon answers, but its files are not in our /dev/shm",
    "share the daemon's (docker run --ipc=host, or --volume /dev/shm:/dev/shm)",
)
_NO_VOTEQUORUM: Final = Problem(
    "no-votequorum",
    "the Corosync daemon runs without votequorum",
    "its configuration lacks quorum { provider: corosync_votequorum }; or it is just starting or ending",
)
_LEFTOVERS: Final = Problem(
    "leftover-files",
    "no Corosync daemon listens in our network namespace, but /dev/shm has the files of one",
    "start it if it was killed; if it runs in another network namespace, share that one (docker run --network=host)",
)
_SERVICES: Final = frozenset({"cpg", "votequorum", "quorum", "cmap", "cfg"})
_LISTENING: Final = "00010000"


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
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), (NoSpaceError, str(FULL))),
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


def shared_memory_problem(shared: Path = Path("/dev/shm")) -> Problem | None:
    """Look whether there is a folder for shared memory."""
    return None if shared.is_dir() else NO_DIRECTORY


def why_unanswered(service: str, pidfd: int, error: CorosyncError) -> Problem | None:
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
        missing = shared_memory_problem(shared)
        if missing is not None:
            return missing
        files = any(shared.glob("qb-*"))
        listening = set(_listening(process))
        if service in listening:
            return None if files or error.code is not CsError.NOT_EXIST else _OTHER_DIRECTORY
        if listening:
            return _NO_VOTEQUORUM if service == "votequorum" else None
        if pidfd < 0:
            return next(_elsewhere(), _LEFTOVERS if files else None)
    return None


def why_refused() -> Problem:
    """Describe that the daemon has refused this user, with the file that would admit it; see corosync.conf(5)."""
    uid = os.geteuid()
    outside = _uid_outside(uid)
    name = user_name(uid) if outside == uid else str(outside)
    user = f"user {name}" if name == str(outside) else f"user {name} ({outside})"
    text = f"uidgid {{\\n  uid: {name}\\n}}\\n"
    return Problem(
        "no-permission",
        f"permission denied: the daemon refuses {user}",
        "run as root or with group root, or allow this user with a file, as root (uidgid in corosync.conf(5))",
        f"printf '{text}' > /etc/corosync/uidgid.d/{name} && corosync-cfgtool -R",
    )


def user_name(uid: int) -> str:
    """The name of a user; the number if it has none, as in many containers."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _uid_outside(uid: int) -> int:
    """What a user of our user namespace is outside of it, where the daemon is; see user_namespaces(7)."""
    with suppress(OSError):
        for line in Path("/proc/self/uid_map").read_text(encoding="ascii").splitlines():
            inside, outside, length = map(int, line.split())
            if 0 <= uid - inside < length:
                return outside + uid - inside
    return uid


def why_silent(seconds: float) -> Problem:
    """Look for the reason why the daemon in our namespaces takes a connection but has not answered for so long."""
    for process in _daemons():
        with suppress(OSError):
            state = (process / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
            if state in "Tt" and _network(process) in (None, _network()):
                return Problem(
                    "frozen",
                    f"the Corosync daemon is stopped (SIGSTOP): process {process.name} ({_name(process)})",
                    "let it go on",
                    f"kill -CONT {process.name}",
                )
    return Problem(
        "frozen",
        f"a Corosync daemon listens, but has not answered within {seconds:g} seconds",
        "it hangs or is overloaded: look at its log (journalctl -u corosync), then restart it",
        "systemctl restart corosync",
    )


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


def _daemons() -> Iterator[Path]:
    """The Corosync daemons among the processes that we see: their folders in /proc."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            if _name(process) == "corosync":
                yield process


def _name(process: Path) -> str:
    """The name of a process, as ps(1) shows it."""
    return (process / "comm").read_text(errors="replace").strip()


def _network(process: Path = Path("/proc/thread-self")) -> Path | None:
    """Identifies the network namespace of a process; `None` if it is another user's."""
    try:
        return (process / "ns/net").readlink()
    except PermissionError:
        return None


def _elsewhere() -> Iterator[Problem]:
    """Describe each daemon that runs in another network namespace."""
    for process in _daemons():
        with suppress(OSError):
            if _network(process) not in (None, _network()):
                pid = process.name
                yield Problem(
                    "wrong-network-namespace",
                    f"no Corosync daemon listens in our network namespace, but process {pid} ({_name(process)}) runs in"
                    " another one",
                    f"run this program there (nsenter --target {pid} --net --mount, or docker run --network=host), or"
                    " start a daemon here",
                )
