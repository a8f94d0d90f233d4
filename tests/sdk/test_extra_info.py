"""The extra information of quorum devices, which only newer libraries know of."""

from __future__ import annotations

import pytest
import trio
from support import installed

import triocoro
from triocoro import AccessError, CmapType, NotExistError, NotSupportedError, QdeviceExtraInfo, Votequorum, lowlevel
from triocoro.testing import Cluster

pytestmark = pytest.mark.deadline(20)


@pytest.fixture
def told(corosync_mode: str) -> None:
    if corosync_mode == "fake":
        pytest.skip("the fake follows Corosync 3.1.7, which has no extra information")
    if not installed.tells_extra_info():
        pytest.skip("this libvotequorum has no extra information; those up to Corosync 3.1.10 have not")


async def changes(stream: triocoro.EventStream[triocoro.VotequorumEvent], count: int) -> list[QdeviceExtraInfo]:
    """The next changes of extra information."""
    found: list[QdeviceExtraInfo] = []
    while len(found) < count:
        event = await stream.receive()
        if isinstance(event, QdeviceExtraInfo):
            found.append(event)
    return found


async def until_told(votequorum: Votequorum, nodeid: int, extra_info: bytes) -> None:
    async with votequorum.track() as stream:
        async for event in stream:
            if event == QdeviceExtraInfo(nodeid, extra_info):
                return


@pytest.mark.usefixtures("corosync")
async def test_an_older_library_says_so(corosync_mode: str) -> None:
    if corosync_mode == "real" and installed.tells_extra_info():
        pytest.skip("this libvotequorum is new enough")
    async with triocoro.open_votequorum() as votequorum:
        with pytest.raises(NotSupportedError):
            await votequorum.qdevice_extra_info()
        with pytest.raises(NotSupportedError):
            await votequorum.set_qdevice_extra_info(b"x")
        assert (await votequorum.info()).nodeid == 1

    async def hear(_: QdeviceExtraInfo) -> None: ...

    with pytest.raises(NotSupportedError, match="votequorum_model_initialize"):
        await lowlevel.votequorum_initialize(qdevice_extra_info=hear)
    handle = await lowlevel.votequorum_initialize()
    try:
        with pytest.raises(NotSupportedError):
            await handle.get_qdevice_extra_info(0)
        with pytest.raises(NotSupportedError):
            await handle.set_qdevice_extra_info(b"x")
    finally:
        await handle.finalize()


@pytest.mark.corosync(nodes=2, qdevice_votes=1)
@pytest.mark.usefixtures("told")
async def test_all_nodes_hear_what_a_device_tells(corosync_cluster: Cluster) -> None:
    async with (
        triocoro.open_votequorum() as ours,
        triocoro.open_votequorum(endpoint=corosync_cluster[2].endpoint) as theirs,
    ):
        with pytest.raises(NotExistError, match="no quorum device is registered"):
            await ours.set_qdevice_extra_info(b"too early")
        assert await ours.qdevice_extra_info() == b""
        await ours.qdevice_register("disk")
        async with theirs.track() as stream:
            await ours.set_qdevice_extra_info(b"full")
            assert await changes(stream, 1) == [QdeviceExtraInfo(1, b"full")]
            # Our own node, whether its number is given or not; the other has told nothing.
            assert [await ours.qdevice_extra_info(), await ours.qdevice_extra_info(1)] == [b"full"] * 2
            assert [await theirs.qdevice_extra_info(), await theirs.qdevice_extra_info(1)] == [b"", b"full"]
            assert triocoro.VotequorumFlag.QDEVICE_HAS_EXTRA_INFO in (await theirs.info(1)).flags
            # A second tracker begins with what has been told, in the order in which the daemon would.
            async with theirs.track() as second:
                present = [await second.receive() for _ in range(3)]
                assert isinstance(present[0], triocoro.VotequorumNodelist)
                assert isinstance(present[1], triocoro.VotequorumChange)
                assert present[2] == QdeviceExtraInfo(1, b"full")
            large = bytes(range(256)) * 16
            await ours.set_qdevice_extra_info(large)
            assert await changes(stream, 1) == [QdeviceExtraInfo(1, large)]
            assert await theirs.qdevice_extra_info(1) == large
            await ours.qdevice_unregister("disk")
            assert await changes(stream, 1) == [QdeviceExtraInfo(1, b"")]
            assert await theirs.qdevice_extra_info(1) == b""
            # What was taken back is no present state: the next event is a new one.
            async with theirs.track() as third:
                await ours.set_expected(3)
                kinds = [type(await third.receive()) for _ in range(3)]
                assert QdeviceExtraInfo not in kinds


@pytest.mark.corosync(nodes=2, qdevice_votes=1)
@pytest.mark.usefixtures("told")
async def test_a_transition_tells_it_again(corosync_cluster: Cluster) -> None:
    async with triocoro.open_votequorum() as votequorum, votequorum.track() as stream:
        await votequorum.qdevice_register("disk")
        await votequorum.set_qdevice_extra_info(b"full")
        assert await changes(stream, 1) == [QdeviceExtraInfo(1, b"full")]
        await corosync_cluster[2].restart()
        async with triocoro.open_votequorum(endpoint=corosync_cluster[2].endpoint) as newcomer:
            await until_told(newcomer, 1, b"full")
            assert await newcomer.qdevice_extra_info(1) == b"full"
        assert QdeviceExtraInfo(1, b"full") in await changes(stream, 1)


@pytest.mark.corosync(nodes=2, qdevice_votes=1)
@pytest.mark.usefixtures("told")
async def test_information_of_a_node_that_left_is_no_present_state(corosync_cluster: Cluster) -> None:
    """Nobody tells that it is gone: nodes tell only of what they have."""
    async with triocoro.open_votequorum() as votequorum, votequorum.track() as stream:
        async with triocoro.open_votequorum(endpoint=corosync_cluster[2].endpoint) as other:
            await other.qdevice_register("disk")
            await other.set_qdevice_extra_info(b"full")
            assert await changes(stream, 1) == [QdeviceExtraInfo(2, b"full")]
        await corosync_cluster[2].restart()
        await corosync_cluster.settled()
        assert await votequorum.qdevice_extra_info(2) == b""
        async with votequorum.track() as second:
            await votequorum.set_expected(3)
            kinds = [type(await second.receive()) for _ in range(3)]
            assert QdeviceExtraInfo not in kinds


@pytest.mark.corosync(nodes=2, qdevice_votes=1)
@pytest.mark.usefixtures("told")
async def test_extra_information_that_the_daemon_would_refuse_does_not_reach_the_library(
    corosync_cluster: Cluster,
) -> None:
    """The library would copy as many bytes as the daemon left in a field that it had not set."""
    async with triocoro.open_votequorum() as votequorum, triocoro.open_cmap() as cmap:
        for _ in range(100):
            with pytest.raises(NotExistError, match="has never seen a node 77"):
                await votequorum.qdevice_extra_info(77)
        await cmap.set("quorum.two_node", 1, type=CmapType.UINT8)
        for _ in range(100):
            with pytest.raises(AccessError):
                await votequorum.qdevice_extra_info()
            with pytest.raises(AccessError):
                await votequorum.set_qdevice_extra_info(b"x")
        assert len(corosync_cluster.nodes) == 2


@pytest.mark.corosync(nodes=1, qdevice_votes=1)
@pytest.mark.usefixtures("told", "corosync")
async def test_one_to_one() -> None:
    heard: list[QdeviceExtraInfo] = []

    async def hear(event: QdeviceExtraInfo) -> None:
        heard.append(event)
        await trio.lowlevel.checkpoint()

    handle = await lowlevel.votequorum_initialize(qdevice_extra_info=hear)
    try:
        await handle.trackstart(lowlevel.Track.CHANGES)
        await handle.qdevice_register("disk")
        await handle.set_qdevice_extra_info(b"full")
        while not heard:
            await handle.dispatch(lowlevel.Dispatch.ONE)
        assert heard == [QdeviceExtraInfo(1, b"full")]
        assert [await handle.get_qdevice_extra_info(nodeid) for nodeid in (0, 1)] == [b"full"] * 2
    finally:
        await handle.finalize()
