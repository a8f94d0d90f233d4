"""Real daemons in network namespaces: starting, failing, ending, and what is left of them."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from statistics import median

import pytest
import trio
from support.c_libraries import open_fds
from support.confined import descriptors_left
from support.external_programs import ask, inside
from support.fixtures.figures import Bound
from support.traces import names_in, namespaces_of, nothing_left, processes_in, state_of, supervisor_of, wait_until
from trio.testing import MockClock

import triocoro
from triocoro.testing import ClusterOptions, ClusterSettings, NetnsCluster, Node
from triocoro.testing._cluster.addresses import Addresses
from triocoro.testing._cluster.corosync_conf import corosync_conf
from triocoro.testing._cluster.network import Network
from triocoro.testing._netns import cluster as netns_cluster, readiness, requirements
from triocoro.testing._netns.nft import filter_rules
from triocoro.testing._netns.node_processes import NodeProcesses
from triocoro.testing._netns.supervisor import MAX_FDS

pytestmark = pytest.mark.corosync_real_only(reason="it is about daemons in network namespaces")

START_BOUNDS = {3: 1.5, 5: 2.5}
"""Seconds in which so many nodes are quorate, from nothing."""


# --- looking around ---------------------------------------------------------------------------------------------------


class Barrier:
    """Lets tasks go on when all have come."""

    def __init__(self, parties: int) -> None:
        self._parties = parties
        self._lot = trio.lowlevel.ParkingLot()

    async def __call__(self) -> None:
        if len(self._lot) == self._parties - 1:
            self._lot.unpark_all()
            await trio.lowlevel.checkpoint()
        else:
            await self._lot.park()


async def members_seen_by(node: Node) -> set[int]:
    """What votequorum says on a node."""
    async with triocoro.open_votequorum(endpoint=node.endpoint) as votequorum, votequorum.track() as changes:
        async for change in changes:
            if isinstance(change, triocoro.VotequorumNodelist):
                return set(change.nodes)
    raise AssertionError


# --- starting ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nodes", START_BOUNDS)
def test_nodes_are_quorate_soon(nodes: int, bound: Bound) -> None:
    times: list[float] = []
    for _ in range(3):
        start = time.monotonic()
        with NetnsCluster(nodes=nodes):
            times.append(time.monotonic() - start)
    bound(f"{nodes} real nodes, from nothing to quorate: seconds, median of three", median(times), START_BOUNDS[nodes])


async def test_the_network_carries_from_the_start() -> None:
    """The kernel takes its time with a port that has the interface index of its other end."""
    async with NetnsCluster(nodes=3) as cluster:
        enter = inside(cluster[1])
        enter[enter.index("--target") + 1] = str(supervisor_of(cluster[1].namespace_pid))
        ports = await trio.run_process([*enter, "ip", "-o", "link", "show", "master", "bridge0"], capture_stdout=True)
    pairs = re.findall(r"^(\d+): node\d+@\D*(\d+):", ports.stdout.decode(), re.MULTILINE)
    assert len(pairs) == 3, ports.stdout
    assert all(port != peer for port, peer in pairs), ports.stdout


async def test_every_node_sees_all_of_them() -> None:
    async with NetnsCluster(nodes=3) as cluster:
        for node in cluster.nodes.values():
            assert node.running
            assert cluster.reachable(node.nodeid) == {1, 2, 3}
            async with triocoro.open_votequorum(endpoint=node.endpoint) as votequorum:
                info = await votequorum.info()
            assert (info.nodeid, info.total_votes, info.expected_votes, info.quorate) == (node.nodeid, 3, 3, True)


async def test_options_reach_votequorum() -> None:
    async with NetnsCluster(nodes=2, two_node=True, wait_for_all=False) as cluster:
        with cluster[2].as_default():
            async with triocoro.open_votequorum() as votequorum:
                flags = (await votequorum.info()).flags
    assert triocoro.VotequorumFlag.TWONODE in flags
    assert triocoro.VotequorumFlag.WAIT_FOR_ALL not in flags


def test_blocks_outside_of_a_run_and_inside() -> None:
    async def main() -> int | None:
        with NetnsCluster(nodes=1) as cluster:
            return cluster[1].pid

    with nothing_left(), NetnsCluster(nodes=1) as cluster:
        assert state_of(cluster[1].pid) in "SR"
    with nothing_left():
        assert trio.run(main)


async def test_starts_under_a_clock_that_jumps(autojump_clock: MockClock) -> None:
    start = time.monotonic()
    async with NetnsCluster(nodes=2) as cluster:
        await cluster[2].kill()
        await cluster[2].start()
        assert cluster[2].running
    assert trio.current_time() < 1 + time.monotonic() - start
    assert autojump_clock.autojump_threshold == 0


async def test_clusters_do_not_see_each_other() -> None:
    async def hold(cluster: NetnsCluster) -> None:
        async with cluster:
            await both()
            for node in cluster.nodes.values():
                assert await members_seen_by(node) == set(cluster.nodes)
            await both()
            if cluster is three:
                await cluster[1].kill()
                await cluster.settled()
            await both()
            assert await members_seen_by(cluster[2]) == ({2, 3} if cluster is three else {1, 2})

    three, two = NetnsCluster(nodes=3), NetnsCluster(nodes=2)
    both = Barrier(2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold, three)
        nursery.start_soon(hold, two)


def test_is_used_once() -> None:
    cluster = NetnsCluster(nodes=1)
    with cluster:
        pass
    with pytest.raises(RuntimeError, match="used once"), cluster:
        pass


def test_bad_options() -> None:
    with pytest.raises(ValueError, match="nodes"):
        NetnsCluster(nodes=0)
    # The kernel passes on so many fds at once.
    with pytest.raises(ValueError, match=f"must be <= {MAX_FDS}"):
        NetnsCluster(nodes=MAX_FDS + 1)


# What of a cluster's options is a key in each node's map.
_CONFIGURED: list[tuple[ClusterSettings, dict[str, triocoro.CmapValue]]] = [
    (
        {
            "wait_for_all": True,
            "last_man_standing": True,
            "last_man_standing_window": 1234,
            "auto_tie_breaker": True,
            "auto_tie_breaker_node": "2 1",
            "allow_downscale": True,
        },
        {
            "quorum.two_node": 0,
            "quorum.wait_for_all": 1,
            "quorum.last_man_standing": 1,
            "quorum.last_man_standing_window": 1234,
            "quorum.auto_tie_breaker": 1,
            "quorum.auto_tie_breaker_node": "2 1",
            "quorum.allow_downscale": 1,
        },
    ),
    (
        {
            "votes": {2: 4},
            "expected_votes": 8,
            "qdevice_votes": 3,
            "qdevice_timeout": 2345,
            "qdevice_sync_timeout": 3456,
            "token": 1000,
        },
        {
            "nodelist.node.0.quorum_votes": 1,
            "nodelist.node.1.quorum_votes": 4,
            "quorum.expected_votes": 8,
            "quorum.device.model": "net",
            "quorum.device.votes": 3,
            "quorum.device.timeout": 2345,
            "quorum.device.sync_timeout": 3456,
            "totem.token": 1000,
        },
    ),
]


@pytest.mark.parametrize("settings,keys", _CONFIGURED, ids=["features", "numbers"])
async def test_the_options_reach_the_daemons(settings: ClusterSettings, keys: dict[str, triocoro.CmapValue]) -> None:
    async with NetnsCluster(nodes=2, **settings) as cluster, triocoro.open_cmap(endpoint=cluster[2].endpoint) as cmap:
        assert {key: await cmap.get(key) for key in keys} == keys


async def test_a_cluster_with_large_files_and_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is of more than a packet can carry; that of many nodes is so, too."""
    use_conf(monkeypatch, lambda conf: conf + f"# {'x' * 100}\n" * 10_000)

    def long_rules(network: Network, addresses: Addresses, nodeid: int) -> list[str]:
        return [*filter_rules(network, addresses, nodeid), *[f"# {'x' * 100}"] * 10_000]

    monkeypatch.setattr(netns_cluster, "filter_rules", long_rules)
    async with NetnsCluster(nodes=2) as cluster:
        await cluster.isolate(2)
        await cluster.settled()
        assert await members_seen_by(cluster[1]) == {1}


# --- failing to start -------------------------------------------------------------------------------------------------


def use_conf(monkeypatch: pytest.MonkeyPatch, edit: Callable[[str], str]) -> None:
    def edited(options: ClusterOptions, addresses: Addresses, name: str) -> str:
        return edit(corosync_conf(options, addresses, name))

    monkeypatch.setattr(netns_cluster, "corosync_conf", edited)


def use_program(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    """Put another corosync first on PATH; it says the same of its version."""
    program = folder / "corosync"
    version = f'[ "$1" != -v ] || exec {requirements.find_program("corosync")} -v'
    program.write_text(f"#!/bin/sh\n{version}\n{script}\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_a_bad_configuration_is_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    use_conf(monkeypatch, lambda conf: conf.replace("transport: knet", "transport: pigeons"))
    start = time.monotonic()
    with nothing_left(), pytest.raises(triocoro.CorosyncUnavailableError) as caught, NetnsCluster(nodes=2):
        pass
    assert time.monotonic() - start < readiness.LIMIT / 3
    text = str(caught.value)
    assert "corosync ended during the start, with exit status" in text
    assert "it said: [MAIN  ] Invalid transport type" in text
    assert "its log ends:" in text


async def test_a_bad_configuration_is_reported_at_once_inside_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    use_conf(monkeypatch, lambda conf: conf.replace("version: 2", "version: 3"))
    with pytest.raises(triocoro.CorosyncUnavailableError, match=r"node 1 of \S+: corosync ended during the start"):
        async with NetnsCluster(nodes=1):
            pass


def test_another_program_can_be_tried_and_its_crash_is_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use_program(monkeypatch, tmp_path, "echo 'no life in me' >&2; kill -SEGV $$")
    cluster = NetnsCluster(nodes=1)
    with nothing_left(), pytest.raises(triocoro.CorosyncUnavailableError) as caught, cluster:
        pass
    assert str(caught.value).splitlines() == [
        f"node 1 of {cluster.name}: corosync ended during the start, by SIGSEGV",
        "  its log ends:",
        "    no life in me",
    ]


def test_the_time_limit_says_who_sees_what(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    corosync = requirements.find_program("corosync")
    use_program(monkeypatch, tmp_path, f'if ip addr | grep -q 192.0.2.2/; then exec sleep 60; fi; exec {corosync} "$@"')
    # Long enough for node 1 to be there on a busy machine, too.
    monkeypatch.setattr(readiness, "LIMIT", 5)
    with nothing_left(), pytest.raises(triocoro.CorosyncUnavailableError) as caught, (cluster := NetnsCluster(nodes=2)):
        pass
    first, second = (f"node {nodeid} of {cluster.name}" for nodeid in (1, 2))
    text = str(caught.value)
    assert text.startswith(f"not so after 5 seconds: every node is in a cluster of [1, 2]\n{first}: ")
    assert f"\n{first}: its cluster is [1]\n" in text
    assert f"\n{second}: no client can connect to it\n" in text


async def test_a_daemon_that_insists_on_encryption_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def describe(_: str) -> str:
        return "Built-in features: dbus enforce_encryption pie\n"

    monkeypatch.setattr(requirements, "describe_corosync", describe)
    async with (
        NetnsCluster(nodes=2) as cluster,
        triocoro.open_cmap(endpoint=cluster[1].endpoint) as one,
        triocoro.open_cmap(triocoro.CmapMap.STATS, endpoint=cluster[1].endpoint) as statistics,
    ):
        assert [await one.get(f"totem.crypto_{what}") for what in ("cipher", "hash")] == ["aes256", "sha256"]
        keyfile = str(await one.get("totem.keyfile"))
        keys = [await ask(node, "cat", keyfile) for node in cluster.nodes.values()]
        assert keys[0] == keys[1]
        assert len(keys[0]) == 128
        assert await statistics.get("stats.knet.handle.tx_crypt_packets") != 0


async def test_a_folder_that_the_daemon_needs_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As after `make install` with a prefix."""
    absent = tmp_path / "var" / "run"

    def lock_folder(_: requirements.Programs) -> Path:
        return absent

    monkeypatch.setattr(requirements.Programs, "lock_folder", lock_folder)
    with nothing_left(), pytest.raises(triocoro.CorosyncUnavailableError) as caught, NetnsCluster(nodes=1):
        pass
    assert f"keeps its lock file, is not there: mkdir -p {absent}" in str(caught.value)
    absent.mkdir(parents=True)
    assert requirements.missing_requirements() == []
    async with NetnsCluster(nodes=1) as cluster:
        assert cluster[1].running


def test_a_daemon_that_does_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_program(monkeypatch, tmp_path, "exec sleep 60")
    monkeypatch.setattr(readiness, "LIMIT", 0.3)
    with nothing_left(), pytest.raises(triocoro.CorosyncUnavailableError) as caught, (cluster := NetnsCluster(nodes=1)):
        pass
    assert str(caught.value).splitlines() == [
        "not so after 0.3 seconds: every node is in a cluster of [1]",
        f"node 1 of {cluster.name}: no client can connect to it",
        (
            f"  the last attempt failed: cannot connect to {cluster[1].label}: no Corosync daemon answers there; start"
            " it, then try again (votequorum_initialize: CS_ERR_LIBRARY: the connection to the daemon is broken, or the"
            " daemon does not run)"
        ),
        "  its log is empty",
    ]


async def test_a_daemon_without_a_quorum_provider_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    async def connects(self: readiness.Readiness, members: frozenset[int] | None) -> None:
        """Not by votequorum, which is not there."""
        (node,) = self._nodes
        assert members == {1}
        while True:
            with suppress(triocoro.CorosyncUnavailableError):
                async with triocoro.open_quorum(endpoint=node.endpoint):
                    return
            await trio.sleep(0.01)

    use_conf(monkeypatch, lambda conf: conf.replace("provider: corosync_votequorum", ""))
    monkeypatch.setattr(readiness.Readiness, "wait", connects)
    async with NetnsCluster(nodes=1) as cluster:
        with pytest.raises(
            triocoro.CorosyncUnavailableError, match=f"^cannot connect to {cluster[1].label}:"
        ) as caught:
            async with triocoro.open_votequorum(endpoint=cluster[1].endpoint):
                pass
        assert "runs without votequorum: its configuration lacks quorum { provider: corosync_v" in str(caught.value)


def test_what_does_not_pass_ends_the_start_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from triocoro._corosync import _libraries, _votequorum

    library = _libraries.Library(_libraries.VOTEQUORUM.index, "libabsent.so.8", "libvotequorum8")
    monkeypatch.setattr(_votequorum.CorosyncVotequorum, "library", library)
    start = time.monotonic()
    words = "install the package libvotequorum8"
    with nothing_left(), pytest.raises(triocoro.CorosyncUnavailableError, match=words), NetnsCluster(nodes=2):
        pass
    assert time.monotonic() - start < readiness.LIMIT / 3


def test_a_start_at_the_limit_of_descriptors_leaks_none() -> None:
    """It fails at one place after the other, the more descriptors there are."""
    kinds = triocoro.NoResourcesError, triocoro.CorosyncUnavailableError
    fds = open_fds()
    for left in range(20):
        with pytest.raises(kinds, match="RLIMIT_NOFILE"), descriptors_left(left), NetnsCluster(nodes=3):
            pass
        assert (left, open_fds()) == (left, fds)
    with NetnsCluster(nodes=3):
        pass


def test_an_interrupt_that_wakes_nobody_ends_the_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One that comes just before a wait does not; nor does one that another thread takes."""
    use_program(monkeypatch, tmp_path, "exec sleep 60")
    monkeypatch.setattr(readiness, "LIMIT", 9)
    set_daemon = NodeProcesses.set_daemon

    def interrupt(machine: NodeProcesses, pidfd: int) -> None:
        set_daemon(machine, pidfd)
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    monkeypatch.setattr(NodeProcesses, "set_daemon", interrupt)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        start = time.monotonic()
        with nothing_left(), pytest.raises(KeyboardInterrupt), NetnsCluster(nodes=1):
            pass
        assert time.monotonic() - start < readiness.LIMIT / 3
    finally:
        signal.signal(signal.SIGINT, handler)


def test_this_machine_lacks_nothing() -> None:
    assert requirements.missing_requirements() == []


@pytest.mark.parametrize(
    "name, says, package",
    [
        ("ip", "BusyBox v1.35.0 multi-call binary.\n\nUsage: ip [OPTIONS] address|route|link [ARGS]", "iproute2"),
        ("ip", "-batch: applet not found", "iproute2"),
        ("unshare", "unshare: unrecognized option '--kill-child'\nTry 'unshare --help'.", "util-linux"),
    ],
)
def test_programs_that_lack_an_option_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, says: str, package: str
) -> None:
    program = tmp_path / name
    program.write_text(f"#!/bin/sh\ncat >&2 <<'END'\n{says}\nEND\nexit 1\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    (missing,) = requirements.missing_requirements()
    assert missing.startswith(f"{program} does not know all options that a cluster needs")
    assert f"install the package {package}" in missing


def test_missing_requirements_are_listed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(requirements, "_SBIN", ())
    with nothing_left(), pytest.raises(triocoro.CorosyncUnavailableError) as caught, NetnsCluster():
        pass
    text = str(caught.value)
    assert "the program corosync is neither on PATH" in text
    assert "install the package iproute2" in text
    assert "util-linux" in text


# --- daemons come and go ----------------------------------------------------------------------------------------------


async def test_kill_and_start_again() -> None:
    async with NetnsCluster(nodes=3) as cluster:
        node = cluster[3]
        first = node.pid
        assert first is not None
        network, namespace = namespaces_of(first)
        await node.kill()
        assert not node.running
        assert node.pid is None
        assert wait_until(lambda: not processes_in(namespace) & {first})  # the supervisor has reaped it
        assert cluster.reachable(1) == {1, 2}
        assert cluster.reachable(3) == frozenset()
        await cluster.settled()
        assert await members_seen_by(cluster[1]) == {1, 2}

        await node.start()
        second = node.pid
        assert second not in {None, first}
        assert namespaces_of(second) == (network, namespace)
        async with triocoro.open_votequorum(endpoint=node.endpoint) as votequorum:
            assert (await votequorum.info()).nodeid == 3
        await node.start()
        assert node.pid == second
        await cluster.settled()
        assert await members_seen_by(cluster[1]) == {1, 2, 3}
        assert node.log.count("Corosync Cluster Engine") == 2

        await node.kill()
        await node.kill()  # there is nothing to do


async def test_killing_again_and_again_does_not_fill_the_shared_memory() -> None:
    async with NetnsCluster(nodes=1) as cluster:
        node = cluster[1]
        for _ in range(3):
            await node.kill()
            await node.start()
        blackboxes = [name for name in names_in(f"/proc/{node.pid}/root/dev/shm") if "blackbox-header" in name]
        assert len(blackboxes) == 1


async def test_stop_says_goodbye() -> None:
    async with NetnsCluster(nodes=2) as cluster:
        node = cluster[2]
        async with trio.open_nursery() as nursery:  # two may stop it
            nursery.start_soon(node.stop)
            nursery.start_soon(node.stop)
        assert not node.running
        await cluster.settled()
        assert await members_seen_by(cluster[1]) == {1}
        assert "Node was shut down by a signal" in node.log
        await node.stop()


async def test_freeze_and_thaw() -> None:
    async with NetnsCluster(nodes=2) as cluster:
        node = cluster[2]
        await node.freeze()
        assert state_of(node.pid) == "T"
        assert node.running
        await node.freeze()
        await node.thaw()
        assert state_of(node.pid) in "SR"
        await node.thaw()

        await node.freeze()
        await node.stop()
        assert not node.running
        await node.thaw()


async def test_two_starts_at_once_are_one() -> None:
    async with NetnsCluster(nodes=1) as cluster:
        await cluster[1].kill()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cluster[1].start)
            nursery.start_soon(cluster[1].start)
        assert cluster[1].running
        assert cluster[1].log.count("Corosync Cluster Engine") == 2


async def test_a_daemon_that_does_not_start_again_says_why() -> None:
    async with NetnsCluster(nodes=1) as cluster:
        node = cluster[1]
        await node.kill()
        conf = trio.Path(f"/proc/{node.namespace_pid}/root/run/triocoro/corosync.conf")
        good = await conf.read_text()
        await conf.write_text(good.replace("knet", "pigeons"))
        with pytest.raises(
            triocoro.CorosyncUnavailableError, match=r"node 1 of \S+: corosync ended during the start"
        ) as caught:
            await node.start()
        assert not node.running
        assert "it said: [MAIN  ] Invalid transport type" in str(caught.value)
        assert "version" not in str(caught.value)

        await conf.write_text(good.replace("version: 2", "version: 3"))
        with pytest.raises(triocoro.CorosyncUnavailableError, match="can only parse version 2") as caught:
            await node.start()
        # What an earlier daemon said is no reason; it is in the log all the same.
        assert "Invalid transport type" not in str(caught.value)
        assert "Invalid transport type" in node.log


def test_a_position_in_a_log_is_checked() -> None:
    node = NetnsCluster(nodes=1)[1]
    for wrong in (-1, 2**64):
        with pytest.raises(ValueError, match=f"size must be 0 to {2**63 - 1}, not {wrong}"):
            node.log_since(wrong)
    assert node.log_since(0) == ""
