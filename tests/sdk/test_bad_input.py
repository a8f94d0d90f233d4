"""Wrong arguments, wrong moments, wrong processes: each a clear error, and the connection as good as before."""

from __future__ import annotations

import array
import os
import pickle
import re
import select
import signal
import threading
import warnings
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, NoReturn, TypeVar, cast

import pytest
import trio
from support.proxy import FaultyEndpoint
from trio.testing import wait_all_tasks_blocked

import triocoro
from triocoro import (
    AccessError,
    Address,
    CmapMap,
    CmapTrack,
    CmapType,
    CorosyncUnavailableError,
    CsError,
    ExistError,
    Group,
    InvalidParamError,
    Message,
    MessageError,
    NameNotFoundError,
    NotExistError,
    RingId,
    lowlevel,
)
from triocoro._raw import RawCpg
from triocoro._services import CPG, CpgSpec, ServiceSpec
from triocoro.lowlevel import Dispatch, IterationType, Track
from triocoro.testing import Cluster, Node

RawT = TypeVar("RawT")

pytestmark = pytest.mark.deadline(20)

_BAD_NAMES: list[tuple[Any, type[Exception], str]] = [
    (b"", ValueError, "1 to 127 bytes, not 0"),
    ("", ValueError, "1 to 127 bytes, not 0"),
    (b"x" * 128, ValueError, "1 to 127 bytes, not 128"),
    ("é" * 64, ValueError, "1 to 127 bytes, not 128"),
    ("\ud800", ValueError, "surrogates not allowed"),
    (None, TypeError, "bytes or str, not NoneType"),
    (7, TypeError, "bytes or str, not int"),
    (bytearray(b"x"), TypeError, "bytes or str, not bytearray"),
    (["x"], TypeError, "bytes or str, not list"),
]

_BAD_PAYLOADS: list[tuple[Any, str]] = [
    ("text", "not str"),
    (None, "not NoneType"),
    (7, "not int"),
    ([1, 2], "not list"),
    ({"a": 1}, "not dict"),
]

_BAD_NUMBERS: list[tuple[Any, type[Exception], str]] = [
    (-1, ValueError, "not -1"),
    (2**32, ValueError, "not 4294967296"),
    (True, TypeError, "must be an int, not bool"),
    (1.0, TypeError, "must be an int, not float"),
    ("1", TypeError, "must be an int, not str"),
]


async def refused(error: type[BaseException], words: str, call: Callable[[], Awaitable[object]]) -> None:
    with pytest.raises(error, match=re.escape(words)):
        await call()


async def still_works(group: Group) -> None:
    message = await group.send_and_wait(b"still here")
    assert message == Message(group.address, b"still here")


async def opened(name: Any, **options: Any) -> None:
    async with triocoro.open_group(name, **options):
        pytest.fail("the group was opened")


async def _ignore(_: object) -> None:
    pass


# -- names -------------------------------------------------------------------------------------------------------------


async def test_bad_names(corosync: Node) -> None:
    del corosync
    handle = await lowlevel.cpg_initialize(confchg=_ignore)
    async with triocoro.open_cpg() as cpg, triocoro.open_group("good") as group:
        for name, error, words in _BAD_NAMES:
            await refused(error, words, partial(opened, name))
            await refused(error, words, partial(cpg.members, name))
            await refused(error, words, partial(handle.join, name))
            await refused(error, words, partial(handle.leave, name))
            await refused(error, words, partial(handle.membership_get, name))
            if name is not None:
                await refused(error, words, partial(handle.iteration, IterationType.ONE_GROUP, name))
        await still_works(group)
        assert await cpg.members("good") == (group.address,)
    await handle.join("good at last")
    await handle.dispatch(Dispatch.ONE)
    await handle.finalize()


async def test_longest_and_odd_names_work(corosync: Node) -> None:
    async with triocoro.open_cpg() as cpg:
        for name in (b"x" * 127, "é" * 63 + "e", b"\0", b"\xff\n \\", b"chat\0"):
            async with triocoro.open_group(name) as group:
                assert group.name == (name if isinstance(name, bytes) else name.encode())
                assert await cpg.members(name) == (group.address,)
                # Nothing is cut off, and the NUL counts.
                assert [member.group for member in await cpg.groups()] == [group.name]
                assert await cpg.members(group.name[:-1] or b"chat") == ()
                await still_works(group)
    assert corosync.running


async def test_text_and_bytes_name_the_same_group(corosync: Node) -> None:
    async with triocoro.open_cpg() as cpg:
        async with triocoro.open_group("grüße") as group:
            assert group.name == b"gr\xc3\xbc\xc3\x9fe"
            assert await cpg.members(group.name) == await cpg.members("grüße") == (group.address,)
            await refused(ExistError, "is a member of group", lambda: opened(b"gr\xc3\xbc\xc3\x9fe"))
        assert await cpg.members("grüße") == ()
    assert corosync.running


# -- payloads ----------------------------------------------------------------------------------------------------------


async def test_bad_payloads(corosync: Node) -> None:
    del corosync
    handle = await lowlevel.cpg_initialize(confchg=_ignore)
    await handle.join("low")
    async with triocoro.open_group("g") as group:
        assert await group.receive() == group.view
        for payload, words in _BAD_PAYLOADS:
            text = f"bytes, bytearray or memoryview, {words}"
            for call in (
                partial(group.send, payload),
                partial(group.send, b"good", payload),
                partial(group.send_and_wait, payload),
                partial(group.send_batch, [b"good", payload]),
                partial(handle.mcast_joined, payload),
            ):
                await refused(TypeError, text, call)
            with pytest.raises(TypeError, match=text):
                group.send_nowait(payload)
        single: list[Any] = [b"abc", bytearray(b"abc"), memoryview(b"abc"), "abc"]
        for one in single:
            await refused(
                TypeError,
                "iterable of messages; to send one message use send",
                partial(group.send_batch, one),
            )
        await refused(TypeError, "not iterable", lambda: group.send_batch(cast("Any", 3)))
        await refused(TypeError, "not NoneType", lambda: group.send_batch(cast("Any", [None])))
        released = memoryview(b"gone")
        released.release()
        await refused(ValueError, "released memoryview", lambda: group.send(released))
        await still_works(group)
        # None of it was sent, not even the good halves.
        assert await group.receive() == Message(group.address, b"still here")
    await handle.finalize()


async def test_all_kinds_of_buffers_work(corosync: Node) -> None:
    class Text(bytes):
        pass

    numbers = array.array("I", [1, 2, 2**32 - 1])
    mutable = bytearray(b"before")
    matrix = memoryview(bytes(range(12))).cast("B", (3, 4))
    sent: list[tuple[bytes, tuple[bytes | bytearray | memoryview, ...]]] = [
        (b"", ()),
        (b"", (b"",)),
        (b"", (b"", bytearray(), memoryview(b""))),
        (b"ab\0c", (b"a", bytearray(b"b\0"), memoryview(b"c"))),
        (b"ace", (memoryview(b"abcdef")[::2],)),
        (b"fedcba!", (memoryview(b"abcdef")[::-1], b"!")),
        (numbers.tobytes(), (memoryview(numbers),)),
        (bytes(range(12)), (matrix,)),
        (b"text", (Text(b"text"),)),
        (b"before", (mutable,)),
        # The C library would abort the process from 64 on.
        (bytes(range(100)), tuple(bytes([number]) for number in range(100))),
        (b"x" * 1000, (b"x",) * 1000),
    ]
    async with triocoro.open_group("g") as group:
        await group.receive()
        for expected, buffers in sent:
            message = await group.send_and_wait(*buffers)
            assert (message.payload, type(message.payload)) == (expected, bytes)
        await group.send(mutable)
        mutable[:] = b"after!"
        await group.send_batch([mutable, memoryview(b"abcdef")[::2], b""])
        got: list[bytes] = []
        while len(got) < len(sent) + 4:
            events = await group.receive_batch()
            assert all(isinstance(event, Message) for event in events)
            got.extend(cast("Message", event).payload for event in events)
        assert got == [*(expected for expected, _ in sent), b"before", b"after!", b"ace", b""]
    assert corosync.running


# -- numbers -----------------------------------------------------------------------------------------------------------


@pytest.mark.corosync(nodes=3)
async def test_nodes_and_votes(corosync_cluster: Cluster) -> None:
    """What is no number of votes or no id of a node, and what the daemon refuses."""
    del corosync_cluster
    handle = await lowlevel.votequorum_initialize()
    async with triocoro.open_votequorum() as votequorum:
        before = await votequorum.info()
        for number, error, words in _BAD_NUMBERS:
            for call in (
                partial(votequorum.info, number),
                partial(votequorum.set_expected, number),
                partial(votequorum.set_votes, number, 1),
                partial(votequorum.set_votes, 1, number),
                partial(handle.getinfo, number),
                partial(handle.setexpected, number),
                partial(handle.setvotes, number, 1),
                partial(handle.setvotes, 1, number),
                partial(handle.trackstart, number),
            ):
                await refused(error, words, call)
        for register in (votequorum.qdevice_register, handle.qdevice_register):
            await refused(UnicodeEncodeError, "surrogates not allowed", partial(register, "\udcff"))
        # In the C API 0 is oneself, or the quorum device; `None` is clearer.
        await refused(ValueError, "nodeid must be 1 to", lambda: votequorum.info(0))
        await refused(ValueError, "nodeid must be 1 to", lambda: votequorum.set_votes(0, 1))
        await refused(ValueError, "expected_votes must be 1 to", lambda: votequorum.set_expected(0))
        await refused(NotExistError, "has never seen a node 99", lambda: votequorum.info(99))
        await refused(NotExistError, "has never seen a node 4294967295", lambda: votequorum.info(2**32 - 1))
        await refused(NameNotFoundError, "has never seen a node 99", lambda: votequorum.set_votes(99, 1))
        for number in (1, 2, 6, 2**31):
            await refused(
                InvalidParamError,
                f"expected votes of {number} are refused",
                partial(votequorum.set_expected, number),
            )
        await refused(NotExistError, "votequorum_getinfo", lambda: handle.getinfo(99))
        await refused(NameNotFoundError, "votequorum_setvotes", lambda: handle.setvotes(99, 1))
        await refused(InvalidParamError, "votequorum_setexpected", lambda: handle.setexpected(0))
        assert await votequorum.info() == await handle.getinfo(0) == before
    await handle.finalize()


@pytest.mark.corosync(nodes=2, qdevice_votes=1)
async def test_refusals_of_a_quorum_device_say_why(corosync_cluster: Cluster) -> None:
    del corosync_cluster
    async with triocoro.open_votequorum() as votequorum, triocoro.open_cmap() as cmap:
        await refused(NotExistError, "no quorum device is registered", lambda: votequorum.qdevice_unregister("disk"))
        await cmap.set("quorum.two_node", 1, type=CmapType.UINT8)
        await refused(AccessError, "rules a quorum device out", lambda: votequorum.qdevice_register("disk"))
        await cmap.set("quorum.two_node", 0)
        await votequorum.qdevice_register("disk")
        await refused(ExistError, "of another name is registered", lambda: votequorum.qdevice_register("lamp"))
        await refused(InvalidParamError, "has another name", lambda: votequorum.qdevice_unregister("lamp"))
        ring = RingId(1, 2**64 - 1)
        poll = partial(votequorum.qdevice_poll, "disk", cast_vote=True, ring_id=ring)
        await refused(MessageError, "poll again with the latest one", poll)


async def test_texts_of_the_statistics_cannot_be_tracked(corosync: Node) -> None:
    """The daemon would overwrite its own memory, wherever the name of a process is longer than a number."""
    handle = await lowlevel.cmap_initialize(CmapMap.STATS)
    async with triocoro.open_cmap(CmapMap.STATS) as stats, triocoro.open_cmap() as cmap:
        texts = [key for key, value in await stats.items("stats.") if isinstance(value, str)]
        assert texts
        for key in texts:
            for call in (
                stats.track(key).__aenter__,
                stats.track(key, prefix=True).__aenter__,
                partial(handle.track_add, key, CmapTrack.MODIFY, _ignore),
                partial(handle.track_add, key, CmapTrack.ADD | CmapTrack.DELETE | CmapTrack.PREFIX, _ignore),
            ):
                await refused(ValueError, f"{key!r} cannot be tracked: it is a text", call)
            # In the other map it would be a key like any other.
            async with cmap.track(key):
                pass
    await handle.finalize()
    assert corosync.running


async def test_errors_of_the_daemon_carry_their_code(corosync: Node) -> None:
    del corosync
    async with triocoro.open_votequorum() as votequorum:
        with pytest.raises(NotExistError) as caught:
            await votequorum.info(99)
        assert (caught.value.code, caught.value.function) == (CsError.NOT_EXIST, "votequorum_getinfo")
        assert "node 1" in str(caught.value)
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301


async def test_options_of_a_group(corosync: Node) -> None:
    del corosync
    for bound, error, words in (
        (0, ValueError, "max_buffered_bytes must be at least 1, not 0"),
        (-1, ValueError, "max_buffered_bytes must be at least 1, not -1"),
        (True, TypeError, "max_buffered_bytes must be an int, not bool"),
        (1e6, TypeError, "max_buffered_bytes must be an int, not float"),
        ("1", TypeError, "max_buffered_bytes must be an int, not str"),
        (None, TypeError, "max_buffered_bytes must be an int, not NoneType"),
    ):
        await refused(error, words, partial(opened, "g", max_buffered_bytes=bound))
    async with triocoro.open_group("g", max_buffered_bytes=1) as group, triocoro.open_votequorum() as votequorum:
        async with votequorum.track() as changes:
            for number, error, words in (
                (0, ValueError, "max_events must be at least 1, not 0"),
                (-1, ValueError, "max_events must be at least 1, not -1"),
                (True, TypeError, "max_events must be an int, not bool"),
                (1.5, TypeError, "max_events must be an int, not float"),
                (None, TypeError, "max_events must be an int, not NoneType"),
            ):
                most = cast("Any", number)
                await refused(error, words, partial(group.receive_batch, max_events=most))
                await refused(error, words, partial(changes.receive_batch, max_events=most))
        # Nothing was taken; and one event may be larger than the bound.
        assert await group.receive() == group.view
        await still_works(group)


async def test_end_of_a_group_that_has_not_received_all(corosync: Node) -> None:
    """Whoever leaves need not receive: not the news of the own leave either, which comes before the daemon's reply."""
    del corosync
    for _again in range(20):
        async with triocoro.open_group("g", max_buffered_bytes=1) as group:
            await group.receive()
            await still_works(group)
            assert group.statistics().stream.buffered_events == 1


async def test_receive_in_a_group_for_sending_only(corosync: Node) -> None:
    del corosync
    async with triocoro.open_group("g", receive=False) as group:
        for call in (group.receive, group.receive_batch, lambda: anext(group)):
            await refused(RuntimeError, "receive=False, to send only", call)
        await still_works(group)


async def test_arguments_of_lowlevel(corosync: Node) -> None:
    del corosync
    handle = await lowlevel.cpg_initialize(confchg=_ignore)
    await refused(ValueError, "0 is not a valid Dispatch", lambda: handle.dispatch(cast("Any", 0)))
    await refused(ValueError, "5 is not a valid Dispatch", lambda: handle.dispatch(cast("Any", 5)))
    await refused(ValueError, "0 is not a valid IterationType", lambda: handle.iteration(cast("Any", 0)))
    await refused(ValueError, "IterationType.ONE_GROUP", lambda: handle.iteration(IterationType.ONE_GROUP))
    await refused(ValueError, "IterationType.ONE_GROUP", lambda: handle.iteration(IterationType.ALL, "g"))
    await refused(NotExistError, "not in group b'g'", lambda: handle.leave("g"))
    await handle.join("g")
    await handle.dispatch(Dispatch.ONE)
    await refused(NotExistError, "not in group b'h'", lambda: handle.leave("h"))
    await refused(ExistError, "cpg_join", lambda: handle.join("g"))
    await refused(ExistError, "cpg_join", lambda: handle.join("h"))
    await handle.leave("g")
    await refused(NotExistError, "not in group b'g'", lambda: handle.leave("g"))
    # The C library would never return from joining another group.
    await refused(ExistError, "use a new one", lambda: handle.join("g"))
    await refused(ExistError, "use a new one", lambda: handle.join("h"))
    await handle.dispatch(Dispatch.ONE)
    assert await handle.membership_get("g") == ()
    await handle.finalize()


# -- the same group twice ----------------------------------------------------------------------------------------------


async def test_second_membership_of_one_process(corosync: Node) -> None:
    async with triocoro.open_group("g") as group:
        with pytest.raises(ExistError) as caught:
            await opened("g")
        text = str(caught.value)
        for words in (f"process {os.getpid()}", "member of group b'g'", "node 1", "once on each node"):
            assert words in text
        assert caught.value.code is CsError.EXIST
        handle = await lowlevel.cpg_initialize()
        await refused(ExistError, "cpg_join", lambda: handle.join("g"))
        await handle.finalize()
        await still_works(group)
        async with triocoro.open_cpg() as cpg:
            assert await cpg.members("g") == (group.address,)
    for _again in range(5):
        async with triocoro.open_group("g") as group:
            assert group.view.members == (Address(corosync.nodeid, os.getpid()),)
    # Left in a hurry: the daemon may not know of it when the next one joins.
    for _again in range(5):
        with trio.CancelScope() as scope:
            async with triocoro.open_group("g"):
                scope.cancel()
                await trio.lowlevel.checkpoint()
        async with triocoro.open_group("g") as group:
            await still_works(group)


async def test_joining_again_while_the_daemon_works_off_the_leave(corosync: Node) -> None:
    """Our own leave is under way, on a daemon that stood still: joining waits for it, and is not refused."""
    for _again in range(5):
        ready = await corosync.endpoint.connect(CPG)

        class Ready:
            """The node, but connecting takes no time."""

            label = corosync.endpoint.label
            pid = corosync.endpoint.pid
            identity = corosync.endpoint.identity

            async def connect(self, service: ServiceSpec[RawT, object], *, raw: RawCpg = ready) -> RawT:
                assert isinstance(service, CpgSpec)
                return cast("RawT", raw)

        with trio.CancelScope() as scope:
            async with triocoro.open_group("g"):
                await corosync.freeze()
                scope.cancel()
        async with trio.open_nursery() as nursery:

            async def join() -> None:
                async with triocoro.open_group("g", endpoint=Ready()) as group:
                    await still_works(group)

            nursery.start_soon(join)
            await wait_all_tasks_blocked()
            await corosync.thaw()


# -- after the end -----------------------------------------------------------------------------------------------------


async def test_use_of_a_group_after_its_end(corosync: Node) -> None:
    words = f"this connection to {corosync.endpoint.label} was closed"
    async with triocoro.open_group("a") as left:
        pass
    async with triocoro.open_group("b") as closed, triocoro.open_group("c") as group:
        await closed.aclose()
        for ended in (left, closed):
            for call in (
                partial(ended.send, b"x"),
                partial(ended.send, bytes(2**21)),
                partial(ended.send_batch, [b"x"]),
                partial(ended.send_batch, []),
                partial(ended.send_and_wait, b"x"),
                ended.receive,
                ended.receive_batch,
            ):
                await refused(trio.ClosedResourceError, words, call)
            with pytest.raises(trio.ClosedResourceError, match=re.escape(words)):
                ended.send_nowait(b"x")
            await ended.aclose()
            assert ended.name in (b"a", b"b")
            assert ended.view.members == (ended.address,)
            assert ended.statistics().sent == 0
            assert "triocoro.Group" in repr(ended)
        # As Trio's channels have it: the end of the loop, and no error, is for what the other side ends.
        with pytest.raises(trio.ClosedResourceError):
            await anext(left)
        await still_works(group)


async def test_use_of_queries_after_their_end(corosync: Node) -> None:
    words = f"this connection to {corosync.endpoint.label} was closed"
    async with triocoro.open_cpg() as cpg, triocoro.open_votequorum() as votequorum, votequorum.track() as changes:
        pass

    async def track() -> None:
        async with votequorum.track():
            pytest.fail("tracking began")

    for call in (
        cpg.local_nodeid,
        cpg.groups,
        lambda: cpg.members("g"),
        votequorum.info,
        lambda: votequorum.set_expected(1),
        lambda: votequorum.set_votes(1, 1),
        votequorum.wait_quorate,
        track,
    ):
        await refused(trio.ClosedResourceError, words, call)
    with pytest.raises(trio.ClosedResourceError, match=re.escape(words)):
        _ = cpg.max_atomic_message_size
    for receive in (changes.receive, changes.receive_batch):
        await refused(trio.ClosedResourceError, "this stream was closed", receive)
    await changes.aclose()
    assert changes.statistics().buffered_events == 0


async def test_use_of_a_stream_after_its_end(corosync: Node) -> None:
    del corosync
    async with triocoro.open_votequorum() as votequorum, votequorum.track() as other:
        async with votequorum.track() as left, votequorum.track() as closed:
            await closed.aclose()
        for call in (left.receive, left.receive_batch, closed.receive, closed.receive_batch):
            await refused(trio.ClosedResourceError, "this stream was closed", call)
        assert len(await other.receive_batch()) == 2
        assert (await votequorum.info()).nodeid == 1


async def test_use_of_handles_after_finalize(corosync: Node) -> None:
    words = f"this connection to {corosync.endpoint.label} was closed"
    cpg = await lowlevel.cpg_initialize(context="mine")
    votequorum = await lowlevel.votequorum_initialize()
    quorum = await lowlevel.quorum_initialize()
    cmap = await lowlevel.cmap_initialize()
    cfg = await lowlevel.cfg_initialize()
    tracker = await cmap.track_add("some.key", CmapTrack.ADD, _ignore)
    async with cpg.zcb_alloc(10):
        await cpg.finalize()
    await votequorum.finalize()
    await quorum.finalize()
    await cmap.finalize()
    await cfg.finalize()
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: cpg.join("g"),
        lambda: cpg.mcast_joined(b"x"),
        lambda: cpg.mcast_joined(bytes(2**21)),
        lambda: cpg.membership_get("g"),
        cpg.local_get,
        lambda: cpg.iteration(IterationType.ALL),
        lambda: votequorum.getinfo(0),
        lambda: votequorum.setexpected(1),
        lambda: votequorum.setvotes(1, 1),
        lambda: votequorum.trackstart(Track.CHANGES),
        votequorum.trackstop,
        lambda: votequorum.qdevice_register("disk"),
        quorum.getquorate,
        lambda: quorum.trackstart(Track.CHANGES),
        lambda: cmap.get("some.key"),
        lambda: cmap.set("some.key", 1, CmapType.UINT8),
        cmap.items,
        lambda: cmap.track_add("some.key", CmapTrack.ADD, _ignore),
        lambda: cmap.track_delete(tracker),
        cfg.local_get,
        cfg.trackstart,
        lambda: cpg.zcb_alloc(10).__aenter__(),
        *(partial(cpg.dispatch, kind) for kind in Dispatch),
        *(partial(votequorum.dispatch, kind) for kind in Dispatch),
        *(partial(cmap.dispatch, kind) for kind in Dispatch),
    ]
    for call in calls:
        await refused(trio.ClosedResourceError, words, call)
    for read in (
        cpg.flow_control_state_get,
        cpg.max_atomic_msgsize_get,
        lambda: cpg.fd,
        lambda: votequorum.fd,
    ):
        with pytest.raises(trio.ClosedResourceError, match=re.escape(words)):
            read()
    # What is ours alone stays.
    assert cpg.context == "mine"
    await cpg.finalize()
    await votequorum.finalize()


# -- no daemon ---------------------------------------------------------------------------------------------------------


async def test_no_daemon(corosync: Node) -> None:
    async def in_block(manager: Any) -> None:
        async with manager:
            pytest.fail("connected")

    await corosync.stop()
    for call in (
        lambda: in_block(triocoro.open_group("g")),
        lambda: in_block(triocoro.open_cpg()),
        lambda: in_block(triocoro.open_votequorum()),
        lowlevel.cpg_initialize,
        lowlevel.votequorum_initialize,
    ):
        with pytest.raises(CorosyncUnavailableError) as caught:
            await call()
        for words in ("cannot connect to node 1", "no Corosync daemon answers", "start it", "_initialize"):
            assert words in str(caught.value)
        assert caught.value.code is CsError.LIBRARY
    await corosync.start()
    async with triocoro.open_group("g") as group:
        await still_works(group)


async def test_a_daemon_that_is_about_to_end(corosync: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have removed its files already, of which the library says that they do not exist."""

    async def ending(*_: object, **__: object) -> NoReturn:
        await trio.lowlevel.checkpoint()
        raise NotExistError("it has no files any more", function="cpg_model_initialize")

    endpoint = FaultyEndpoint(corosync.endpoint)
    monkeypatch.setattr(endpoint, "connect", ending)
    with pytest.raises(CorosyncUnavailableError, match=r"node 1: no Corosync daemon answers there.*no files any more"):
        await lowlevel.cpg_initialize(endpoint=endpoint)


# -- fork --------------------------------------------------------------------------------------------------------------


def _in_child(function: Callable[[], object]) -> object:
    """What `function` returns in a forked child."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        # Forking a process with threads is what an application may do, wisely or not.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if not pid:
        try:
            os.write(writer, pickle.dumps(function()))
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        # It says all at once; unless it hangs, on a lock that was held when it was forked.
        if not select.select([pipe], [], [], 20)[0]:
            os.kill(pid, signal.SIGKILL)
        data = pipe.read()
    os.waitpid(pid, 0)
    return pickle.loads(data) if data else "the child said nothing"  # noqa: S301


async def test_use_in_a_forked_child(corosync: Node) -> None:
    handle = await lowlevel.cpg_initialize(confchg=_ignore)
    quorum_handle = await lowlevel.votequorum_initialize()
    cmap_handle = await lowlevel.cmap_initialize()
    async with (
        triocoro.open_group("g") as group,
        triocoro.open_cpg() as cpg,
        triocoro.open_votequorum() as votequorum,
        votequorum.track() as changes,
        triocoro.open_quorum() as quorum,
        triocoro.open_cmap() as cmap,
        cmap.track("forked.key") as cmap_changes,
        triocoro.open_cfg() as cfg,
        AsyncExitStack() as stack,
    ):
        end_of_buffer = handle.zcb_alloc(10)
        buffer = await stack.enter_async_context(end_of_buffer)
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "send": lambda: group.send(b"x"),
            "send, in fragments": lambda: group.send(bytes(2**21)),
            "send_batch": lambda: group.send_batch([b"x"]),
            "send_and_wait": lambda: group.send_and_wait(b"x"),
            "receive": group.receive,
            "receive_batch": group.receive_batch,
            "aclose": group.aclose,
            "local_nodeid": cpg.local_nodeid,
            "members": lambda: cpg.members("g"),
            "groups": cpg.groups,
            "info": votequorum.info,
            "set_expected": lambda: votequorum.set_expected(1),
            "set_votes": lambda: votequorum.set_votes(1, 1),
            "wait_quorate": votequorum.wait_quorate,
            "stream.receive": changes.receive,
            "stream.aclose": changes.aclose,
            "join": lambda: handle.join("h"),
            "mcast_joined": lambda: handle.mcast_joined(b"x"),
            "membership_get": lambda: handle.membership_get("g"),
            "local_get": handle.local_get,
            "iteration": lambda: handle.iteration(IterationType.ALL),
            "finalize": handle.finalize,
            "getinfo": lambda: quorum_handle.getinfo(0),
            "setexpected": lambda: quorum_handle.setexpected(1),
            "setvotes": lambda: quorum_handle.setvotes(1, 1),
            "trackstart": lambda: quorum_handle.trackstart(Track.CHANGES),
            "trackstop": quorum_handle.trackstop,
            "votequorum finalize": quorum_handle.finalize,
            "is_quorate": quorum.is_quorate,
            "quorum.track": lambda: quorum.track().__aenter__(),
            "get": lambda: cmap.get("totem.token"),
            "set": lambda: cmap.set("forked.key", 1),
            "items": cmap.items,
            "cmap.track": lambda: cmap.track("forked.key").__aenter__(),
            "cmap stream.receive": cmap_changes.receive,
            "node_status": lambda: cfg.node_status(1),
            "try_shutdown": cfg.try_shutdown,
            "track_shutdown": lambda: cfg.track_shutdown().__aenter__(),
            "zcb_alloc": lambda: handle.zcb_alloc(10).__aenter__(),
            "zcb_mcast_joined": lambda: handle.zcb_mcast_joined(buffer),
            "end of zcb_alloc": lambda: end_of_buffer.__aexit__(None, None, None),
            "track_add": lambda: cmap_handle.track_add("forked.key", CmapTrack.ADD, _ignore),
            "cmap finalize": cmap_handle.finalize,
            **{f"dispatch {kind.name}": partial(handle.dispatch, kind) for kind in Dispatch},
        }
        reads: dict[str, Callable[[], object]] = {
            "send_nowait": lambda: group.send_nowait(b"x"),
            "max_atomic_message_size": lambda: cpg.max_atomic_message_size,
            "fd": lambda: handle.fd,
            "flow_control_state_get": handle.flow_control_state_get,
            "max_atomic_msgsize_get": handle.max_atomic_msgsize_get,
        }

        async def try_all() -> dict[str, str]:
            found: dict[str, str] = {}
            for name, read in reads.items():
                try:
                    found[name] = f"returned {read()!r}"
                except Exception as exc:  # noqa: BLE001 - the parent judges
                    found[name] = f"{type(exc).__name__}: {exc}"
            for name, call in calls.items():
                try:
                    with trio.fail_after(1):
                        found[name] = f"returned {await call()!r}"
                except Exception as exc:  # noqa: BLE001 - the parent judges
                    found[name] = f"{type(exc).__name__}: {exc}"
            return found

        def child() -> dict[str, str]:
            # On a thread of its own, where no Trio run seems to be under way.
            results: list[dict[str, str]] = []
            thread = threading.Thread(target=lambda: results.append(trio.run(try_all)))
            thread.start()
            thread.join()
            return results[0]

        found = _in_child(child)
        assert isinstance(found, dict)
        expected = (
            f"RuntimeError: this connection to {corosync.endpoint.label} was opened by process {os.getpid()} and cannot"
            " be used in its forked child"
        )
        wrong = {name: text for name, text in cast("dict[str, str]", found).items() if not text.startswith(expected)}
        assert wrong == {}
        assert len(cast("dict[str, str]", found)) == len(calls) + len(reads)

        # All that the parent has goes on, whatever the child did to its copies.
        assert await group.receive() == group.view
        await still_works(group)
        assert await group.receive() == Message(group.address, b"still here")
        assert await cpg.members("g") == (group.address,)
        assert (await votequorum.info()).nodeid == 1
        assert len(await changes.receive_batch()) == 2
        assert await quorum.is_quorate()
        await cmap.set("forked.key", 2)
        assert (await cmap_changes.receive()).new == 2
        assert await cfg.local_nodeid() == 1
        buffer[:] = b"0123456789"
        await handle.join("h")
        await handle.dispatch(Dispatch.ONE)
        await handle.mcast_joined(b"x")
        await quorum_handle.trackstart(Track.CHANGES)
        await handle.zcb_mcast_joined(buffer)
        await stack.aclose()
        await handle.finalize()
        await quorum_handle.finalize()
        await cmap_handle.finalize()


@pytest.mark.corosync_real_only(reason="what a forked child has of a fake is a copy of its own")
async def test_a_forked_child_can_open_its_own(corosync: Node) -> None:
    del corosync

    async def join() -> tuple[int, int, int]:
        async with triocoro.open_group("g") as group:
            return len(group.view.members), group.address.pid, os.getpid()

    def child() -> tuple[int, int, int]:
        results: list[tuple[int, int, int]] = []
        thread = threading.Thread(target=lambda: results.append(trio.run(join)))
        thread.start()
        thread.join()
        return results[0]

    async with triocoro.open_group("g") as group:
        members, address_pid, pid = cast("tuple[int, int, int]", await trio.to_thread.run_sync(_in_child, child))
        assert members == 2
        assert address_pid == pid != os.getpid()
        await still_works(group)
