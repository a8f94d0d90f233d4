"""Bad names, payloads and numbers raise before they reach C, and the group goes on working."""

from __future__ import annotations

import array
import pickle
from functools import partial
from typing import Any, cast

import pytest
from support.refusals import ignore, opened, refused, still_works

import triocoro
from triocoro import (
    AccessError,
    CmapMap,
    CmapTrack,
    CmapType,
    CsError,
    ExistError,
    InvalidParamError,
    Message,
    MessageError,
    NameNotFoundError,
    NotExistError,
    RingId,
    lowlevel,
)
from triocoro.lowlevel import Dispatch, IterationType
from triocoro.testing import Cluster, Node

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

# -- names -------------------------------------------------------------------------------------------------------------


async def test_bad_names(corosync: Node) -> None:
    del corosync
    handle = await lowlevel.cpg_initialize(confchg=ignore)
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
    handle = await lowlevel.cpg_initialize(confchg=ignore)
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
            # corosync-quorumtool shows it.
            await refused(ValueError, "name must be printable, on one line", partial(register, "a\nb"))
            await refused(ValueError, "name must be printable, on one line", partial(register, "\x1b[2J"))
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
                partial(handle.track_add, key, CmapTrack.MODIFY, ignore),
                partial(handle.track_add, key, CmapTrack.ADD | CmapTrack.DELETE | CmapTrack.PREFIX, ignore),
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
    for option in ("receive", "totem_changes"):
        for wrong in ("no", 1, None):
            await refused(TypeError, f"{option} must be a bool, not", partial(opened, "g", **{option: wrong}))
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
    handle = await lowlevel.cpg_initialize(confchg=ignore)
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


class _Liar(int):
    """An int that claims to be within any bounds."""

    def __le__(self, _: object) -> bool:
        return True

    __lt__ = __ge__ = __gt__ = __le__


async def test_a_number_counts_for_what_it_is_whatever_its_class_says(corosync: Node) -> None:
    del corosync
    handle = await lowlevel.cpg_initialize()
    for size in (_Liar(10**30), _Liar(-1)):
        with pytest.raises(ValueError, match=f"not {int.__index__(size)}"):
            async with handle.zcb_alloc(size):
                pass
    await handle.finalize()


async def test_sessions_of_what_is_no_context_manager() -> None:
    def opener() -> Any:
        return 7

    async for session in triocoro.sessions(opener):
        with pytest.raises(TypeError, match="returns an async context manager"):
            async with session:
                pass
        break
