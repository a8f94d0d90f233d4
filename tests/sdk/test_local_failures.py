"""What this process lacks is not told as the daemon's death: a loop around `ConnectionLostError` would never end."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from support.c_libraries import of_the_libraries
from support.confined import in_child
from support.groups import raises_group
from support.proxy import FaultyEndpoint

import triocoro
from triocoro import Group, NoMemoryError, lowlevel
from triocoro.testing import Node

pytestmark = pytest.mark.deadline(20)

LACKING = NoMemoryError("cpg_dispatch: CS_ERR_NO_MEMORY: no memory", function="cpg_dispatch")
WORDS = r"^the connection to node 1 of \S+ is lost: cpg_dispatch: CS_ERR_NO_MEMORY: no memory"


async def test_the_block_raises_what_this_process_lacks(corosync: Node) -> None:
    endpoint = FaultyEndpoint(corosync.endpoint)
    with pytest.raises(NoMemoryError, match=f"{WORDS}; 1 of our messages had not come back") as caught:
        async with triocoro.open_group("g", endpoint=endpoint) as group:
            endpoint.faults.dispatch = LACKING
            await group.send(b"x")
            await trio.sleep_forever()
    assert not isinstance(caught.value, trio.BrokenResourceError)
    assert caught.value.function == "cpg_dispatch"


async def test_shielded_receivers_and_their_block_give_one_error(corosync: Node) -> None:
    async def drain(group: Group) -> None:
        with trio.CancelScope(shield=True):
            async for _ in group:
                pass

    endpoint = FaultyEndpoint(corosync.endpoint)
    with pytest.raises(NoMemoryError, match=WORDS):
        async with (
            triocoro.open_group("a", endpoint=endpoint),
            triocoro.open_group("b", endpoint=endpoint) as group,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(drain, group)
            endpoint.faults.dispatch = LACKING
            await group.send(b"x")
            await trio.sleep_forever()


async def test_an_exception_of_the_users_wins(corosync: Node) -> None:
    async def fail_when_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise KeyError("mine")

    endpoint = FaultyEndpoint(corosync.endpoint)
    with raises_group(KeyError):
        async with triocoro.open_group("g", endpoint=endpoint) as group, trio.open_nursery() as nursery:
            nursery.start_soon(fail_when_cancelled)
            await trio.testing.wait_all_tasks_blocked()
            endpoint.faults.dispatch = LACKING
            await group.send(b"x")
            await trio.sleep_forever()


async def test_lowlevel(corosync: Node) -> None:
    endpoint = FaultyEndpoint(corosync.endpoint)
    handle = await lowlevel.cpg_initialize(endpoint=endpoint)
    endpoint.faults.dispatch = LACKING
    for call in (lambda: handle.dispatch(lowlevel.Dispatch.ALL), handle.local_get):
        with pytest.raises(NoMemoryError, match=WORDS):
            await call()
    await handle.finalize()


RECONNECTING = """
async def main():
    for attempt in range(100):
        try:
            async with triocoro.open_group("g", endpoint=endpoint) as group:
                print(await group.receive())
        except triocoro.ConnectionLostError:
            pass

def run():
    try:
        trio.run(main)
    except triocoro.NoMemoryError as error:
        print(error)

threading.stack_size(1024 * 1024)
thread = threading.Thread(target=run)
thread.start()
thread.join()
"""


@of_the_libraries
async def test_a_loop_in_a_thread_with_a_small_stack_ends(corosync: Node) -> None:
    text = await in_child(corosync, RECONNECTING)
    assert text.startswith("the connection to node 1 is lost: cpg_dispatch: the stack of this thread is too small")
    assert "threading.stack_size" in text


OUT_OF_MEMORY = """
async def main():
    async with triocoro.open_group("g", endpoint=endpoint) as group:
        size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        message = bytes(900_000)
        # Enough for what is small, and for no more than a few of these messages.
        resource.setrlimit(resource.RLIMIT_AS, (size + 5_000_000, resource.RLIM_INFINITY))
        for _ in range(100):
            await group.send(message)
        await trio.sleep_forever()

try:
    trio.run(main)
except triocoro.NoMemoryError as error:
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(error)
"""


@of_the_libraries
async def test_out_of_memory_in_dispatch(corosync: Node) -> None:
    text = await in_child(corosync, OUT_OF_MEMORY)
    assert text.startswith(
        "the connection to node 1 is lost: cpg_dispatch: CS_ERR_NO_MEMORY: this process, or the daemon"
    )
    assert "ulimit -v" in text
