"""Histories that keep the latest entries only, and what they say of the others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
from support.proxy import FaultyEndpoint

import triocoro
from triocoro._raw import MulticastStatus
from triocoro.testing import (
    Cluster,
    Delivery,
    Fault,
    History,
    Note,
    Return,
    UndecidedError,
    check,
    seeded_run,
    timeline,
)
from triocoro.testing._fake.lib.cpg import FakeCpg


def faults(*times: float) -> list[Fault]:
    return [Fault(time=time, verb="heal") for time in times]


def test_the_oldest_go() -> None:
    history = History(faults(1, 2, 3, 4), limit=3)
    assert list(history) == faults(2, 3, 4)
    assert history.dropped == 1
    history.fault("heal")
    assert len(history) == 3
    assert history.dropped == 2
    assert repr(history) == "<triocoro.testing.History of 3 entries after 2 that were dropped>"
    assert "dropped" not in repr(History(faults(1), limit=1))


def test_payloads_count() -> None:
    kib = Delivery(time=0, client="a", node=1, handle=1, event=triocoro.Message(triocoro.Address(1, 2), bytes(1024)))
    assert len(History([kib] * 10, limit=10)) == 5
    assert len(History([kib] * 10, limit=1)) == 1  # the latest stays


async def test_batches_go_together(corosync_cluster: Cluster) -> None:
    history = History(limit=100)
    corosync_cluster.record(history)
    async with triocoro.open_group("g") as group:
        for _ in range(4):
            await group.send_batch([b"x"] * 80)
        while not isinstance(await group.receive(), triocoro.Message):
            pass
        for _ in range(319):
            await group.receive()
    assert len(history) <= 100
    assert history.dropped + len(history) > 320


@pytest.mark.parametrize("limit, error", [(0, ValueError), (-1, ValueError), ("3", TypeError), (1.5, TypeError)])
def test_bad_limits(limit: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        History(limit=limit)  # type: ignore[arg-type]


def test_nothing_is_claimed_about_the_rest() -> None:
    history = History(faults(1, 2, 3), limit=2)
    with pytest.raises(UndecidedError, match=r"lost its first 1 entries.* a larger limit"):
        check(history)
    with pytest.raises(UndecidedError, match="lost its first 1 entries"):
        history.operations()
    assert "dropped its first 1 entries" in timeline(history)


def test_copies_know_it(tmp_path: Path) -> None:
    history = History(faults(1, 2, 3), limit=2)
    assert history.to_json_lines().splitlines()[0] == '{"dropped":1}'
    history.save(tmp_path / "history")
    loaded = History.load(tmp_path / "history")
    assert loaded == history
    assert loaded != History(list(history))
    assert loaded.dropped == History.merge([history, History(faults(9))]).dropped == history.normalised().dropped == 1
    assert History.merge([loaded, history]).dropped == 2


@pytest.mark.parametrize("text", ['{"dropped":-1}', '{"dropped":1}\n{"dropped":1}', '{"dropped":1,"x":2}'])
def test_bad_first_lines(text: str) -> None:
    with pytest.raises(ValueError, match="no line of a history"):
        History.from_json_lines(text)


def test_times_are_virtual_where_there_is_such_time() -> None:
    history = History()

    async def main() -> None:
        history.note("a")
        await trio.sleep(10)
        history.note("b")

    seeded_run(main, seed=1)
    history.note("after the run")
    assert [entry.time for entry in history] == [0, 10, 10]


def test_times_of_several_runs_agree() -> None:
    history = History()

    async def main() -> None:
        await trio.lowlevel.checkpoint()
        history.note("in a run")

    history.note("before")
    trio.run(main)
    trio.run(main)
    history.note("after")
    times = [entry.time for entry in history]
    assert times == sorted(times)
    assert times[-1] - times[0] < 100


def test_the_history_may_be_read_at_any_time() -> None:
    history = History(limit=3)
    seen = []
    for number in range(6):
        history.note(str(number))
        seen.append([entry.text for entry in history])  # type: ignore[union-attr]
    assert seen == [["0"], ["0", "1"], ["0", "1", "2"], ["1", "2", "3"], ["2", "3", "4"], ["3", "4", "5"]]


async def test_losses_that_the_sdk_finds_are_recorded(corosync_cluster: Cluster) -> None:
    """Nobody receives: the report is the SDK's own."""
    history = History()
    faulty = FaultyEndpoint(corosync_cluster[1].endpoint)
    faulty.faults.drop = lambda payload: payload == b"lost"
    endpoint = history.endpoint(corosync_cluster[1], client="one", via=faulty)
    with pytest.raises(triocoro.MessageLostError):
        async with triocoro.open_group("g", receive=False, endpoint=endpoint) as group:
            await group.send_batch([b"first", b"lost"])
            await group.send_and_wait(b"last")
    lost = [entry.event for entry in history if isinstance(entry, Delivery) and entry.handle == 0]
    assert lost == [triocoro.MessageLost(b"lost")]
    assert check(history) == []


@pytest.mark.corosync_fake_only(reason="its sending can be watched from within")
async def test_a_message_is_recorded_before_anything_that_it_causes(
    corosync_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in another thread, which may receive it before `multicast` has returned here."""
    history = History()
    corosync_cluster.record(history)
    send = FakeCpg.multicast

    def multicast(self: FakeCpg, payloads: Sequence[bytes]) -> tuple[int, MulticastStatus]:
        done = send(self, payloads)
        history.note("received")
        assert isinstance(history[-1], Note)  # it has been read meanwhile
        return done

    monkeypatch.setattr(FakeCpg, "multicast", multicast)
    async with triocoro.open_group("g") as group:
        await group.send(b"x")
    kinds = [getattr(entry, "function", type(entry)) for entry in history]
    place = kinds.index("multicast")
    assert kinds[place : place + 3] == ["multicast", Return, Note]
