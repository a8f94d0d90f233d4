"""Wrong arguments of recipes are refused, in words, before a daemon is waited for and before anything is sent."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import pytest
import trio
from support.machines import Map

from triocoro.recipes import open_leadership, open_lock, open_replica, open_safe_group
from triocoro.testing import Node

pytestmark = [
    pytest.mark.deadline(15),
    pytest.mark.corosync_fake_only(reason="arguments are checked before anything is sent"),
]


@pytest.mark.parametrize(
    "opened, error, message",
    [
        (partial(open_safe_group, ""), ValueError, "1 to 127 bytes, not 0"),
        (partial(open_safe_group, "x" * 128), ValueError, "1 to 127 bytes, not 128"),
        (partial(open_replica, cast("Any", 5), Map()), TypeError, "not int"),
        (partial(open_lock, cast("Any", None)), TypeError, "not NoneType"),
        (partial(open_lock, "lock", lock_delay=cast("Any", "3")), TypeError, "seconds as lock_delay, not '3'"),
        (partial(open_lock, "lock", lock_delay=True), TypeError, "seconds as lock_delay, not True"),
        (partial(open_leadership, "lock", lock_delay=float("inf")), ValueError, "finite number of seconds"),
        (partial(open_lock, "lock", lock_delay=float("nan")), ValueError, "finite number of seconds"),
        (partial(open_leadership, "lock", nodes=[]), ValueError, "at least one node"),
    ],
)
async def test_bad_input_is_refused_before_a_daemon_is_waited_for(
    corosync: Node, opened: Any, error: type[Exception], message: str
) -> None:
    await corosync.stop()
    with pytest.raises(error, match=message):
        async with opened(endpoint=corosync):
            pass


async def test_a_machine_whose_methods_are_async_is_refused(corosync: Node) -> None:
    class Waiting(Map):
        async def apply(self, command: bytes) -> bytes:  # type: ignore[override]
            await trio.lowlevel.checkpoint()
            return command

    machine: Any = Waiting()
    with pytest.raises(TypeError, match=r"a function that is not async, not .*Waiting\.apply"):
        async with open_replica("store", machine, endpoint=corosync):
            pass


async def test_arguments_that_are_wrong_are_refused_before_anything_is_sent(corosync: Node) -> None:
    async with open_replica("store", Map(), endpoint=corosync) as replica:
        await replica.wait_primary()
        for given, message in (("text", "as an id, not str"), (b"", "1 to 255 bytes, not of 0")):
            with pytest.raises((TypeError, ValueError), match=message):
                await replica.execute(b"", id=given)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"as a payload, not str$"):
            await replica.execute("text" * 1000)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="a function that is not async, not None"):
            await replica.read(None)  # type: ignore[arg-type]
        assert repr(replica) == "<triocoro.recipes.Replica store on node 1, primary>"
