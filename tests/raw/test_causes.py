"""Each failure to connect names its cause: what is full, missing or elsewhere."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from support.c_libraries import of_the_libraries, open_fds, poll_until
from support.confined import as_user, in_child, only_root
from support.external_programs import inside, running
from support.traces import names_in

import triocoro
from triocoro import CorosyncError, CorosyncUnavailableError, NoMemoryError, NoResourcesError, NoSpaceError
from triocoro._corosync import CorosyncEndpoint
from triocoro.testing import Node

pytestmark = [pytest.mark.deadline(30), of_the_libraries]


@asynccontextmanager
async def beside(node: Node, *command: str) -> AsyncGenerator[CorosyncEndpoint, None]:
    """An endpoint that connects in the namespaces of a command: it prints a line when they are ready, and stays."""
    async with running(node, *command) as child:
        await child.line()
        pidfd = os.pidfd_open(child.pid)
        try:
            yield CorosyncEndpoint("another place", lambda: pidfd)
        finally:
            os.close(pidfd)


async def refusal(endpoint: triocoro.Endpoint | None = None) -> CorosyncError:
    fds = open_fds()
    with pytest.raises(CorosyncError) as caught:
        async with triocoro.open_group("g", endpoint=endpoint):
            pass
    assert open_fds() == fds
    return caught.value


async def test_a_full_shared_memory(corosync: Node) -> None:
    async def remount(size: str) -> None:
        # Not with the options that it has: among them is an ordinary user's id, which the user namespace does not know.
        command = ["mount", "--options-mode=ignore", "-o", f"remount,size={size}", "/dev/shm"]
        await trio.run_process([*inside(corosync), *command])

    shared = Path(f"/proc/{corosync.pid}/root/dev/shm")
    before = names_in(shared)
    async with triocoro.open_group("g"):
        pass
    await poll_until(lambda: names_in(shared) == before)  # the daemon removes the files of a client later
    lines = await trio.run_process([*inside(corosync), "df", "--output=used", "/dev/shm"], capture_stdout=True)
    await remount(f"{int(lines.stdout.split()[-1]) + 512}k")
    error = await refusal()
    assert type(error) is NoSpaceError
    assert "/dev/shm is full" in str(error)
    assert "mount -o remount,size=" in str(error)
    await remount("50%")
    async with triocoro.open_group("g"):
        pass


async def test_another_shared_memory(corosync: Node) -> None:
    mount = "mount -t tmpfs none /dev/shm && echo && exec sleep 60"
    async with beside(corosync, "unshare", "--mount", "sh", "-c", mount) as endpoint:
        error = await refusal(endpoint)
    assert type(error) is CorosyncUnavailableError
    assert str(error).startswith(
        "cannot connect to another place: a Corosync daemon answers, but its files are not in our"
    )
    assert "--ipc=host" in str(error)


async def test_no_shared_memory(corosync: Node) -> None:
    mount = "mount -t tmpfs none /dev && echo && exec sleep 60"
    async with beside(corosync, "unshare", "--mount", "sh", "-c", mount) as endpoint:
        error = await refusal(endpoint)
        with trio.fail_after(10), pytest.raises(CorosyncUnavailableError, match="there is no /dev/shm"):
            async for session in triocoro.sessions("g", endpoint=endpoint):  # to wait for a daemon would not help
                async with session:
                    pass
    assert type(error) is CorosyncUnavailableError
    assert str(error).startswith("cannot connect to another place: there is no /dev/shm")
    assert "mount -t tmpfs" in str(error)


CONNECT = """
import trio, triocoro, triocoro.lowlevel

async def main():
    try:
        await triocoro.lowlevel.cpg_initialize()
    except triocoro.CorosyncError as error:
        print(error)

trio.run(main)
"""


async def refusal_inside(node: Node, *command: str, before: str = "") -> str:
    """What a program is told that connects on a node, run by a command."""
    line = [*inside(node), *command, sys.executable, "-c", before + CONNECT]
    result = await trio.run_process(line, capture_stdout=True, stderr=subprocess.STDOUT, check=False)
    return str(result.stdout.decode())


@only_root
async def test_another_user(corosync: Node) -> None:
    assert await refusal_inside(corosync, *as_user(33)) == (
        "cpg_model_initialize: CS_ERR_ACCESS: permission denied: the daemon refuses user www-data (33): run as root or"
        " with group root, or allow this user with a file, as root (uidgid in corosync.conf(5)): printf 'uidgid {\\n "
        " uid: www-data\\n}\\n' > /etc/corosync/uidgid.d/www-data && corosync-cfgtool -R\n"
    )


BECOME_ROOT = """
import ctypes, encodings.ascii, os
import triocoro.lowlevel, triocoro._corosync._services  # not later: the folder may be closed to this user

user = os.geteuid()
assert ctypes.CDLL(None).unshare(0x10000000) == 0  # CLONE_NEWUSER
with open("/proc/self/uid_map", "w") as file:
    file.write(f"0 {user} 1")
"""


@only_root
async def test_another_user_who_is_root_of_a_container(corosync: Node) -> None:
    """The message names the user that the daemon sees."""
    said = await refusal_inside(corosync, *as_user(4321), before=BECOME_ROOT)
    assert "the daemon refuses user 4321: " in said
    assert "uid: 4321\\n" in said
    assert "> /etc/corosync/uidgid.d/4321 && " in said


async def test_another_network_namespace(corosync: Node) -> None:
    """With the daemon among our processes, and without."""

    visible = await refusal_inside(corosync, "unshare", "--net")
    assert visible.startswith(
        "cannot connect to the system's Corosync: no Corosync daemon listens in our network namespace, but process "
    )
    assert "(corosync) runs in another one" in visible
    assert "nsenter --target" in visible
    hidden = await refusal_inside(corosync, "unshare", "--net", "--pid", "--fork", "--mount", "--mount-proc")
    assert "no Corosync daemon listens in our network namespace, but /dev/shm has the files of one" in hidden
    assert "docker run --network=host" in hidden


LIMITS = """
from support.c_libraries import open_fds
from triocoro._services import CPG

def limited(kind, limit):
    resource.setrlimit(kind, (limit, resource.RLIM_INFINITY))

def size():
    return int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()

async def main():
    handle = await endpoint.connect(CPG)
    fds = open_fds()
    outcomes = []
    for more in range(0, 20_000_000, 500_000):
        limited(resource.RLIMIT_AS, size() + more)
        try:
            connection = await endpoint.connect(CPG)
        except triocoro.NoMemoryError:
            outcomes.append("too little")
        else:
            outcomes.append("works")
            connection.close()
            await connection.wait_closed()
        limited(resource.RLIMIT_AS, resource.RLIM_INFINITY)
        assert open_fds() == fds, (more, open_fds(), fds)
    assert outcomes[0] == "too little" and outcomes[-1] == "works", outcomes
    limited(resource.RLIMIT_AS, size() + 4_000_000)  # less than the stack of a thread
    try:
        await handle.iterate(triocoro.lowlevel.IterationType.NAME_ONLY, None)
    except triocoro.NoResourcesError as error:
        print(error)
    limited(resource.RLIMIT_AS, resource.RLIM_INFINITY)
    # The library would end the process in these two cases.
    limited(resource.RLIMIT_FSIZE, 100_000)
    try:
        await handle.zcb_alloc(900_000)
    except triocoro.NoSpaceError as error:
        print(error)
    limited(resource.RLIMIT_FSIZE, resource.RLIM_INFINITY)
    limited(resource.RLIMIT_AS, size() + 8_900_000)  # with the stack of the process that enters the namespaces
    try:
        await handle.zcb_alloc(900_000)
    except triocoro.NoMemoryError as error:
        print(error)

trio.run(main)
"""


async def test_limits_of_this_process(corosync: Node) -> None:
    thread, one, two = (await in_child(corosync, LIMITS)).splitlines()
    assert thread.startswith("pthread_create: Resource temporarily unavailable: no thread or process can be started")
    assert one.startswith("cpg_zcb_alloc: File too large: ")
    assert two.startswith("cpg_zcb_alloc: Cannot allocate memory: ")


@pytest.mark.parametrize(
    "number,function,kind,words",
    [
        (errno.EMFILE, "socket", NoResourcesError, r"RLIMIT_NOFILE.*ulimit -n"),
        (errno.ENFILE, "socket", NoResourcesError, "fs.file-max"),
        (errno.EAGAIN, "clone", NoResourcesError, r"ulimit -u.*pids\.max"),
        (errno.ENOMEM, "mmap", NoMemoryError, "ulimit -v"),
        (errno.EAFNOSUPPORT, "socket", CorosyncUnavailableError, "Unix sockets.*RestrictAddressFamilies"),
        (errno.EROFS, "cpg_zcb_alloc", CorosyncUnavailableError, "no file can be made in /dev/shm"),
        (errno.ENOSPC, "cpg_zcb_alloc", NoSpaceError, "/dev/shm is full"),
        (errno.EFBIG, "cpg_zcb_alloc", NoSpaceError, "ulimit -f"),
    ],
)
def test_what_the_system_refuses(number: int, function: str, kind: type[CorosyncError], words: str) -> None:
    from triocoro._corosync._causes import lack

    error = lack(number, function)
    assert type(error) is kind
    assert error.function == function
    with pytest.raises(kind, match=f"^{function}: {os.strerror(number)}: .*{words}"):
        raise error
