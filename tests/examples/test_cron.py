"""examples/cron.py on clusters that break: a leader that fails, steps down, or comes back."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
import trio
from cron import Cron, Run, Runs

from triocoro.testing import Cluster, random_schedule

Crons = dict[int, Cron]
RunCrons = Callable[..., AbstractAsyncContextManager[Crons]]
Ran = list[tuple[int, float]]

pytestmark = pytest.mark.deadline(60)


@pytest.fixture
def ran() -> Ran:
    """Which node ran the job, and when."""
    return []


@pytest.fixture
def run_crons(corosync_cluster: Cluster, ran: Ran) -> RunCrons:
    @asynccontextmanager
    async def run(*nodeids: int) -> AsyncGenerator[Crons, None]:
        async with trio.open_nursery() as nursery:
            crons: Crons = {}
            for nodeid in nodeids or corosync_cluster.nodes:

                async def job(nodeid: int = nodeid) -> str:
                    await trio.lowlevel.checkpoint()
                    assert leading(crons) in ([], [nodeid]), "two lead at the same time"
                    ran.append((nodeid, trio.current_time()))
                    return f"by {nodeid}"

                crons[nodeid] = Cron(str(nodeid), {"job": job}, interval=0.05)
                with corosync_cluster[nodeid].as_default():
                    await nursery.start(crons[nodeid].run)
            yield crons
            nursery.cancel_scope.cancel()

    return run


def done(cron: Cron) -> int:
    return sum(run.outcome is not None for run in cron.replica.machine.runs)


def leading(crons: Crons) -> list[int]:
    return [nodeid for nodeid, cron in crons.items() if cron.leader is not None and cron.leader.remaining()]


async def progress(crons: Crons, *nodeids: int) -> set[int]:
    """Wait until the nodes know of two more finished runs; return whom they take for the leader."""
    goal = max(done(crons[nodeid]) for nodeid in nodeids) + 2
    for nodeid in nodeids:
        cron = crons[nodeid]
        await cron.replica.wait(lambda _: cron.replica.primary and done(cron) >= goal)  # noqa: B023
    return {int(crons[nodeid].replica.machine.runs[-1].node) for nodeid in nodeids}


async def everywhere(crons: Crons, *nodeids: int) -> int:
    """Wait until the nodes know of two more finished runs, and of the same leader; return the leader."""
    (leader,) = await progress(crons, *(nodeids or crons))
    return leader


def others(crons: Crons, nodeid: int) -> list[int]:
    return [other for other in crons if other != nodeid]


def same(crons: Crons) -> None:
    length = min(len(cron.replica.machine.runs) for cron in crons.values()) - 1
    assert len({tuple(cron.replica.machine.runs[:length]) for cron in crons.values()}) == 1


def test_a_former_leader_changes_nothing() -> None:
    state = Runs()
    assert state.apply(b'[[8, 1], 0, "job", "1", null]') == b"1"
    assert state.apply(b'[[12, 5], 0, "job", "2", null]') == b"2"
    state.apply(b'[[8, 1], 1, "job", "1", "late"]')
    state.apply(b'[[8, 1], 0, "job", "1", null]')
    assert state.runs == [Run("job", "1", None), Run("job", "2", None)]
    assert state.apply(b'[[12, 5], 2, "job", "2", "done"]') == b"2"
    again = Runs()
    again.restore(state.snapshot())
    again.apply(b'[[8, 1], 0, "job", "1", null]')
    assert again.runs == state.runs == [Run("job", "1", None), Run("job", "2", "done")]


async def test_one_leads(run_crons: RunCrons) -> None:
    async with run_crons() as crons:
        leader = await everywhere(crons)
        assert leading(crons) == [leader]
        same(crons)


@pytest.mark.parametrize("how", ["kill", "stop", "freeze", "isolate"])
async def test_failover(corosync_cluster: Cluster, run_crons: RunCrons, how: str) -> None:
    async with run_crons() as crons:
        old = await everywhere(crons)
        rest = others(crons, old)
        if how == "isolate":
            await corosync_cluster.isolate(old)
        else:
            await getattr(corosync_cluster[old], how)()
        await corosync_cluster.settled()
        new = await everywhere(crons, *rest)
        assert new in rest
        assert leading(crons) == [new]


async def test_a_leader_in_the_minority_steps_down(corosync_cluster: Cluster, run_crons: RunCrons, ran: Ran) -> None:
    async with run_crons() as crons:
        old = await everywhere(crons)
        rest = others(crons, old)
        at = len(ran)
        await corosync_cluster.partition({old}, rest)
        new = await everywhere(crons, *rest)
        assert leading(crons) == [new]
        stopped = max((when for nodeid, when in ran[at:] if nodeid == old), default=0)
        started = min(when for nodeid, when in ran[at:] if nodeid == new)
        assert stopped < started, "both ran jobs at the same time"
        await corosync_cluster.heal()
        await corosync_cluster.settled()
        assert await everywhere(crons) == new
        same(crons)


async def test_freeze_and_thaw(corosync_cluster: Cluster, run_crons: RunCrons) -> None:
    async with run_crons() as crons:
        old = await everywhere(crons)
        await corosync_cluster[old].freeze()
        await corosync_cluster.settled()
        new = await everywhere(crons, *others(crons, old))
        await corosync_cluster[old].thaw()
        await corosync_cluster.settled()
        assert await everywhere(crons) == new
        same(crons)


@pytest.mark.parametrize("who", ["leader", "follower"])
async def test_a_daemon_restarts(corosync_cluster: Cluster, run_crons: RunCrons, who: str) -> None:
    async with run_crons() as crons:
        leader = await everywhere(crons)
        await corosync_cluster[leader if who == "leader" else others(crons, leader)[0]].restart()
        await corosync_cluster.settled()
        await everywhere(crons)
        same(crons)


async def test_an_application_that_starts_again_gets_the_state(corosync_cluster: Cluster, run_crons: RunCrons) -> None:
    async def job() -> str:
        await trio.lowlevel.checkpoint()
        return "by the first one"

    async def no_job() -> str:
        raise AssertionError("it does not lead")

    async with run_crons(1, 2) as crons, trio.open_nursery() as nursery:
        with corosync_cluster[3].as_default():
            first = Cron("3", {"job": job}, interval=0.05)
            async with trio.open_nursery() as life:
                await life.start(first.run)
                await everywhere({**crons, 3: first}, *crons)
                life.cancel_scope.cancel()
            again = Cron("3", {"job": no_job})
            await nursery.start(again.run)
        everybody = {**crons, 3: again}
        assert await everywhere(everybody) in crons
        same(everybody)
        nursery.cancel_scope.cancel()


@pytest.mark.corosync(nodes=5)
async def test_five(corosync_cluster: Cluster, run_crons: RunCrons) -> None:
    async with run_crons() as crons:
        old = await everywhere(crons)
        rest = others(crons, old)
        await corosync_cluster.partition({old, rest[0]}, rest[1:])
        await corosync_cluster.settled()
        new = await everywhere(crons, *rest[1:])
        assert leading(crons) == [new]


@pytest.mark.corosync_seeds(5, latency=0.01, jitter=0.02)
async def test_faults_at_random_times(corosync_cluster: Cluster, run_crons: RunCrons) -> None:
    await survive_faults(corosync_cluster, run_crons)


@pytest.mark.long
@pytest.mark.deadline(1800)
@pytest.mark.corosync_seeds(500, latency=0.01, jitter=0.02)
async def test_faults_at_random_times_with_many_seeds(corosync_cluster: Cluster, run_crons: RunCrons) -> None:
    await survive_faults(corosync_cluster, run_crons)


async def survive_faults(corosync_cluster: Cluster, run_crons: RunCrons) -> None:
    """Whatever happens, one leads in the end, and all have the same results."""
    async with run_crons() as crons:
        await everywhere(crons)
        async with corosync_cluster.nemesis(random_schedule(seconds=20, minority=False)) as over:
            await over.wait()
        await corosync_cluster.settled()
        with trio.fail_after(60):  # the lease of the one before may just end
            while await progress(crons, *crons) != {*leading(crons)}:
                pass
        assert len(leading(crons)) == 1
        same(crons)
