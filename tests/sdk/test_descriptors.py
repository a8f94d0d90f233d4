"""At the limit of file descriptors: one clear error, and nothing of the application's is closed."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress

import pytest
import trio
from support.c_libraries import of_the_libraries, open_fds
from support.confined import descriptors_left, in_child
from support.public_calls import OPENERS
from support.raw_handles import close

import triocoro
from triocoro import NoResourcesError, lowlevel
from triocoro._services import CPG
from triocoro.testing import Node

pytestmark = pytest.mark.deadline(30)

WORDS = r"Too many open files.*RLIMIT_NOFILE.*ulimit -n"
ENOUGH = 6
"""More than any connect needs."""


def first() -> tuple[int, int]:
    """What fd 0 is."""
    stat = os.fstat(0)
    return stat.st_dev, stat.st_ino


@pytest.mark.usefixtures("corosync")
@pytest.mark.parametrize("opener", OPENERS.values(), ids=OPENERS)
async def test_a_connect_that_gets_none(opener: Callable[[], AbstractAsyncContextManager[object]]) -> None:
    async with opener():
        pass
    before, fds = first(), open_fds()
    worked: list[int] = []
    for left in range(ENOUGH + 1):
        with descriptors_left(left):
            try:
                async with opener():
                    worked.append(left)
            except NoResourcesError as error:
                with pytest.raises(NoResourcesError, match=WORDS):
                    raise error from None
            assert first() == before
    # From some number on, it works.
    assert worked == list(range(worked[0], ENOUGH + 1))
    assert 0 not in worked
    assert open_fds() == fds


async def test_many_connects_at_the_limit(corosync: Node) -> None:
    handles: list[lowlevel.CpgHandle] = []
    failures: list[NoResourcesError] = []

    async def connect() -> None:
        try:
            handles.append(await lowlevel.cpg_initialize())
        except NoResourcesError as error:
            failures.append(error)

    async with triocoro.open_cpg(endpoint=corosync.endpoint):
        before, fds = first(), open_fds()
        for left in range(4, 24, 4):
            with descriptors_left(left):
                async with trio.open_nursery() as nursery:
                    for _ in range(20):
                        nursery.start_soon(connect)
                assert first() == before
            while handles:
                await handles.pop().finalize()
        assert failures
        assert open_fds() == fds


async def test_a_zero_copy_buffer_that_gets_none(corosync: Node) -> None:
    """The library would end our process."""
    handle = await corosync.endpoint.connect(CPG)
    fds = open_fds()
    with descriptors_left(0), suppress(NoResourcesError):  # the fake needs none
        await handle.zcb_free(await handle.zcb_alloc(8))
    await handle.zcb_free(await handle.zcb_alloc(8))
    assert open_fds() == fds
    await close(handle)


FIRST = """
async def main():
    async with triocoro.open_group("g", endpoint=endpoint):
        pass
    outcomes = []
    for left in range(7):
        with descriptors_left(left):
            try:
                async with triocoro.open_group("g", endpoint=endpoint):
                    outcomes.append("works")
            except triocoro.NoResourcesError:
                outcomes.append("too few")
    await trio.sleep(0.01)
    assert outcomes[0] == "too few" and outcomes[-1] == "works", outcomes

ours, theirs = socket.socketpair()
os.dup2(theirs.fileno(), 0)
theirs.close()
trio.run(main)
ours.send(b"x")
assert os.read(0, 1) == b"x"
os.close(0)  # the next one is the epoll fd of Trio
trio.run(main)
"""


@of_the_libraries
async def test_a_socket_or_the_epoll_fd_as_fd_0(corosync: Node) -> None:
    await in_child(corosync, FIRST)


FIRST_USE = """
async def attempt(left):
    with descriptors_left(left):
        try:
            await triocoro.lowlevel.cpg_initialize(endpoint=endpoint)
        except triocoro.NoResourcesError as error:
            print(error)

async def main():
    await attempt(0)  # to import the extension module
    import triocoro._corosync._services
    await attempt(1)  # enough to duplicate the pidfd, and not to load the library
    await triocoro.lowlevel.cpg_initialize(endpoint=endpoint)

trio.run(main)
"""


@of_the_libraries
async def test_what_is_loaded_at_the_first_use(corosync: Node) -> None:
    one, two = (await in_child(corosync, FIRST_USE)).splitlines()
    assert one.startswith("connect: Too many open files: this process has too few file descriptors left")
    assert two.startswith("dlopen: Too many open files: this process has too few file descriptors left")
