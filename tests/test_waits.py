"""Every wait for real daemons says what it waited for, and what it saw, when it was in vain."""

from __future__ import annotations

import os
import signal

import pytest
import trio
from traces import nothing_left, supervisor_of

import triocoro
from triocoro.testing import NetnsCluster
from triocoro.testing._netns import cluster as netns_cluster, hub
from triocoro.testing._netns.machine import Daemon

pytestmark = pytest.mark.corosync_real_only


async def test_stopping_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    async with NetnsCluster(nodes=1) as cluster:
        monkeypatch.setattr(netns_cluster, "_PATIENCE", 0)
        with pytest.raises(trio.TooSlowError) as caught:
            await cluster[1].stop()
    first, second, *log = str(caught.value).splitlines()
    assert first == "node 1: corosync has not ended within 0 seconds of SIGTERM and SIGCONT"
    assert second == "  its log ends:"
    assert log


async def test_freezing_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    async with NetnsCluster(nodes=1) as cluster:
        monkeypatch.setattr(netns_cluster, "_PATIENCE", 0.1)
        monkeypatch.setattr(Daemon, "frozen", False)
        with pytest.raises(trio.TooSlowError) as caught:
            await cluster[1].freeze()
    text, _, states = str(caught.value).rpartition(": ")
    assert text == (
        "node 1: corosync has not stood still within 0.1 seconds of SIGSTOP; its threads are in these states"
    )
    assert set(states) == {"T"}


async def test_asking_the_supervisor_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    with nothing_left():
        async with NetnsCluster(nodes=2) as cluster:
            os.kill(supervisor_of(cluster[1].namespace_pid), signal.SIGSTOP)
            monkeypatch.setattr(hub, "_PATIENCE", 0.1)
            with pytest.raises(triocoro.CorosyncUnavailableError) as caught:
                await cluster.isolate(2)
            assert str(caught.value) == (
                "cannot filter the cluster's nodes: their supervisor has not answered within 0.1 seconds"
            )
            # Nor is it asked again.
            with pytest.raises(triocoro.CorosyncUnavailableError, match=r"supervisor does not answer: .*Broken pipe"):
                await cluster.heal()


async def test_the_supervisor_has_ended() -> None:
    with nothing_left():
        async with NetnsCluster(nodes=2) as cluster:
            os.kill(supervisor_of(cluster[1].namespace_pid), signal.SIGKILL)
            with pytest.raises(
                triocoro.CorosyncUnavailableError, match="cannot filter the cluster's nodes: their supervisor"
            ):
                await cluster.isolate(2)
