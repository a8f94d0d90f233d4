"""Groups at the raw seam: what a handle may do and when, and who hears what."""

from __future__ import annotations

import os

import pytest
import trio
from support.raw_handles import (
    caught_up,
    changes,
    close,
    joined,
    multicast,
    payloads,
    ring_of,
    take,
    take_until,
    view_of,
)

from triocoro._enums import IterationType, Reason
from triocoro._errors import ExistError, InvalidParamError, NotExistError
from triocoro._raw import MulticastStatus, RawCpg
from triocoro._services import CPG
from triocoro._types import Address, ConfigChange, GroupMember, TotemChange
from triocoro.testing import Cluster, Node

pytestmark = pytest.mark.deadline(30)


async def test_agreed_order(corosync_cluster: Cluster) -> None:
    handles = [await joined(node.endpoint) for node in corosync_cluster.nodes.values()]
    async with trio.open_nursery() as nursery:
        for number, handle in enumerate(handles):
            nursery.start_soon(multicast, handle, *(b"%d.%d" % (number, count) for count in range(100)))
    orders: list[list[bytes]] = []
    for handle in handles:
        got: list[bytes] = []
        while len(got) < 300:
            got += payloads(await take(handle, 1))
        orders.append(got)
    assert orders[0] == orders[1] == orders[2]
    for number in range(3):
        of_one = [payload for payload in orders[0] if payload.startswith(b"%d." % number)]
        assert of_one == [b"%d.%d" % (number, count) for count in range(100)]
    await close(*handles)


async def left(handle: RawCpg) -> None:
    """Leave, and take the news of that."""
    await handle.leave(b"g")
    await take_until(handle, lambda event: isinstance(event, ConfigChange) and bool(event.left))


async def test_handles_are_single_use(corosync: Node) -> None:
    handle = await joined(corosync.endpoint)
    for group in (b"g", b"other"):
        with pytest.raises(ExistError):
            await handle.join(group)
    second = await corosync.endpoint.connect(CPG)
    with pytest.raises(ExistError):
        await second.join(b"g")
    with pytest.raises(NotExistError):
        await second.leave(b"g")
    await handle.leave(b"g")
    with pytest.raises(NotExistError):
        await handle.leave(b"g")
    await take_until(handle, lambda event: isinstance(event, ConfigChange) and bool(event.left))
    # While the handle exists, no other handle of this process can join that group.
    for each in (handle, second):
        with pytest.raises(ExistError):
            await each.join(b"g")
    await close(handle)
    await second.join(b"g")
    await close(second)


async def test_left_handle_still_hears_its_group(corosync_cluster: Cluster) -> None:
    handle = await joined(corosync_cluster[1].endpoint)
    other = await joined(corosync_cluster[2].endpoint)
    await left(handle)
    await multicast(handle, b"dropped")
    await handle.local_nodeid()
    assert payloads((await caught_up(other, handle))[1]) == []
    await close(other)
    # Changes as well.
    change = (await take_until(handle, lambda event: isinstance(event, ConfigChange)))[-1]
    assert change == ConfigChange((), (), changes(Reason.LEAVE, Address(2, os.getpid())))
    await close(handle)


async def test_multicast_without_a_group_is_dropped(corosync: Node) -> None:
    handle = await corosync.endpoint.connect(CPG)
    assert handle.multicast([b"x"]) == (1, MulticastStatus.SENT)
    assert handle.multicast([]) == (0, MulticastStatus.SENT)
    with pytest.raises(NotExistError):
        await handle.multicast_fragmented(bytes(2_000_000))
    with pytest.raises(ValueError, match="multicast_fragmented"):
        handle.multicast([bytes(2_000_000)])
    assert "can't mcast" in corosync.log
    # It is not kept for the group that is joined then.
    await handle.join(b"g")
    assert payloads((await caught_up(handle))[0]) == []
    await close(handle)


async def test_iteration(corosync_cluster: Cluster) -> None:
    a1 = await joined(corosync_cluster[1].endpoint, b"a")
    a2 = await joined(corosync_cluster[2].endpoint, b"a")
    a3 = await joined(corosync_cluster[3].endpoint, b"a")
    b1 = await joined(corosync_cluster[1].endpoint, b"b")
    one, two, three = (Address(nodeid, os.getpid()) for nodeid in (1, 2, 3))
    await view_of(a1, one, two, three)
    # In Corosync's order: the latest group first, and behind the first member of each the latest first.
    assert await b1.iterate(IterationType.ALL, None) == (
        GroupMember(b"b", one),
        GroupMember(b"a", one),
        GroupMember(b"a", three),
        GroupMember(b"a", two),
    )
    assert await b1.iterate(IterationType.NAME_ONLY, None) == (GroupMember(b"b", None), GroupMember(b"a", None))
    assert await b1.iterate(IterationType.ONE_GROUP, b"b") == (GroupMember(b"b", one),)
    assert await b1.iterate(IterationType.ONE_GROUP, b"c") == ()
    with pytest.raises(InvalidParamError):
        await b1.iterate(IterationType.ONE_GROUP, None)
    assert await b1.membership(b"a") == (one, two, three)
    assert await b1.membership(b"c") == ()
    await close(a1, a2, a3, b1)


async def test_names_that_differ_behind_a_nul_share_one_change(corosync_cluster: Cluster) -> None:
    """When nodes go: the members of one of the two groups are not told."""
    names = (b"foo", b"foo\0")
    handles = [await joined(corosync_cluster[nodeid].endpoint, name) for nodeid in (2, 1) for name in names]
    here = handles[2:]
    await corosync_cluster.isolate(2)
    told = [[type(event) for event in await ring_of(handle, 1, 3)] for handle in here]
    assert sorted(told, key=len) == [[TotemChange], [ConfigChange, TotemChange]]
    await corosync_cluster.heal()
    await close(*handles)
