"""Every wait for real daemons says what it waited for, and what it saw, when it was in vain."""

from __future__ import annotations

import os
import signal
import socket
import time

import pytest
import trio
from support.traces import nothing_left, supervisor_of

import triocoro
from triocoro.testing import NetnsCluster
from triocoro.testing._netns import node as netns_node, supervisor_process
from triocoro.testing._netns.node_processes import DaemonProcess, NodeProcesses

pytestmark = pytest.mark.corosync_real_only(reason="the fake waits for nothing")


async def test_a_daemon_that_does_not_stop_is_an_error_with_its_log(monkeypatch: pytest.MonkeyPatch) -> None:
    async with NetnsCluster(nodes=1) as cluster:
        monkeypatch.setattr(netns_node, "_PATIENCE", 0)
        with pytest.raises(trio.TooSlowError) as caught:
            await cluster[1].stop()
    first, second, *log = str(caught.value).splitlines()
    assert first == f"{cluster[1].label}: corosync has not ended within 0 seconds of SIGTERM and SIGCONT"
    assert second == "  its log ends:"
    assert log


async def test_freezing_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    async with NetnsCluster(nodes=1) as cluster:
        monkeypatch.setattr(netns_node, "_PATIENCE", 0.1)
        monkeypatch.setattr(DaemonProcess, "frozen", False)
        with pytest.raises(trio.TooSlowError) as caught:
            await cluster[1].freeze()
    text, _, states = str(caught.value).rpartition(": ")
    assert text == (
        f"node 1 of {cluster.name}: corosync has not stood still within 0.1 seconds of SIGSTOP;"
        " its threads are in these states"
    )
    assert set(states) == {"T"}


async def test_asking_the_supervisor_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    with nothing_left():
        async with NetnsCluster(nodes=2) as cluster:
            os.kill(supervisor_of(cluster[1].namespace_pid), signal.SIGSTOP)
            monkeypatch.setattr(supervisor_process, "_PATIENCE", 0.1)
            with pytest.raises(triocoro.CorosyncUnavailableError) as caught:
                await cluster.isolate(2)
            assert str(caught.value) == (
                "cannot change the cluster's network: its supervisor has not answered within 0.1 seconds"
            )
            # Nor is it asked again.
            with pytest.raises(triocoro.CorosyncUnavailableError, match="has not answered an earlier request"):
                await cluster.heal()


def test_interrupted_before_the_supervisor_has_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with nothing_left():
        with NetnsCluster(nodes=1) as cluster:
            with monkeypatch.context() as patch:
                patch.setattr(socket, "recv_fds", interrupted)
                with pytest.raises(KeyboardInterrupt):
                    cluster.keep()
            # The answer that is still to come must not be taken for one to this.
            with pytest.raises(triocoro.CorosyncUnavailableError) as caught:
                cluster.keep(kept=False)
            start = time.monotonic()
        assert time.monotonic() - start < supervisor_process._PATIENCE / 3
    assert str(caught.value) == (
        "cannot keep the cluster, or stop keeping it: its supervisor has not answered an earlier request;"
        " leave the cluster's block, and make another one"
    )


async def test_the_supervisor_has_ended() -> None:
    with nothing_left():
        async with NetnsCluster(nodes=2) as cluster:
            os.kill(supervisor_of(cluster[1].namespace_pid), signal.SIGKILL)
            with pytest.raises(
                triocoro.CorosyncUnavailableError, match="cannot change the cluster's network: its supervisor"
            ):
                await cluster.isolate(2)


def test_the_supervisor_ends_during_a_start(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = NetnsCluster(nodes=2)
    set_daemon = NodeProcesses.set_daemon

    def end_supervisor(machine: NodeProcesses, pidfd: int) -> None:
        set_daemon(machine, pidfd)
        if machine.nodeid == 2:
            os.kill(supervisor_of(cluster[2].namespace_pid), signal.SIGKILL)

    monkeypatch.setattr(NodeProcesses, "set_daemon", end_supervisor)
    with nothing_left(), pytest.raises(triocoro.CorosyncUnavailableError) as caught, cluster:
        pass
    first, *_ = str(caught.value).splitlines()
    assert first.startswith("cannot learn how a daemon has ended: its supervisor ")
