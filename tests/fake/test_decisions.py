"""Who is quorate when nodes go and come, by what votequorum(5) is told to do: the same decisions, real and fake.

The table was taken from real clusters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, get_type_hints

import attrs
import pytest
import trio
from support.external_programs import ask
from trio.testing import MockClock

import triocoro
from pytest_corosync.plugin import ClusterFactory
from triocoro import VotequorumNodelist
from triocoro.testing import Cluster, ClusterOptions, ClusterSettings, FakeCluster, NetnsCluster, Node
from triocoro.testing._cluster import options

_BOUND = 40
"""Seconds for what takes a few at most."""


@attrs.frozen
class Decision:
    """What a node makes of the votes; in the table, without numbers where the time may or may not have passed."""

    quorate: bool
    expected: int | None = None
    quorum: int | None = None
    total: int | None = None

    def agrees(self, other: Decision) -> bool:
        return other == self or other == Decision(self.quorate)


@attrs.frozen
class Step:
    """Something is done to nodes, and then this is what those that are up have decided."""

    verb: str
    nodes: tuple[int, ...]
    decisions: Mapping[int, Decision]


def by_all(nodes: tuple[int, ...], quorate: bool, *numbers: int) -> dict[int, Decision]:  # noqa: FBT001 - in a table
    """These nodes have decided the same: whether quorate, and the votes expected, needed and present."""
    return dict.fromkeys(nodes, Decision(quorate, *numbers))


def all_up(count: int, quorate: bool, *numbers: int) -> Step:  # noqa: FBT001 - as above
    nodes = tuple(range(1, count + 1))
    return Step("start", nodes, by_all(nodes, quorate, *numbers))


def killed(node: int, others: tuple[int, ...], quorate: bool, *numbers: int) -> Step:  # noqa: FBT001 - as above
    return Step("kill", (node,), by_all(others, quorate, *numbers))


def stopped(node: int, others: tuple[int, ...], quorate: bool, *numbers: int) -> Step:  # noqa: FBT001 - as above
    return Step("stop", (node,), by_all(others, quorate, *numbers))


def window(nodes: tuple[int, ...], quorate: bool, *numbers: int) -> Step:  # noqa: FBT001 - as above
    """The time of last_man_standing passes."""
    return Step("window", (), by_all(nodes, quorate, *numbers))


_YES, _NO = True, False

_SHORT = 300
"""Milliseconds that pass within a test."""
_LONG = 600_000
"""Milliseconds that do not."""

_SCENARIOS: dict[str, tuple[int, ClusterSettings, Sequence[Step]]] = {
    "two_node": (
        2,
        {"two_node": True},
        [
            all_up(2, _YES, 2, 1, 2),
            killed(2, (1,), _YES, 2, 1, 1),
            Step("kill", (1,), {}),
            # Alone again, it waits for the other one.
            Step("start", (1,), by_all((1,), _NO, 2, 1, 1)),
            all_up(2, _YES, 2, 1, 2),
        ],
    ),
    "wait_for_all": (
        3,
        {"wait_for_all": True},
        [
            all_up(3, _YES, 3, 2, 3),
            killed(3, (1, 2), _YES, 3, 2, 2),
            killed(2, (1,), _NO, 3, 2, 1),
            # Quorum was lost: the majority is not enough again.
            Step("start", (2,), by_all((1, 2), _NO, 3, 2, 2)),
            all_up(3, _YES, 3, 2, 3),
        ],
    ),
    "last_man_standing": (
        4,
        {"last_man_standing": True, "wait_for_all": True, "last_man_standing_window": _SHORT},
        [
            all_up(4, _YES, 4, 3, 4),
            killed(4, (1, 2, 3), _YES),
            window((1, 2, 3), _YES, 3, 2, 3),
            killed(3, (1, 2), _YES),
            window((1, 2), _YES, 2, 2, 2),
            killed(2, (1,), _NO, 2, 2, 1),
            # The node that stayed expects two votes; the one that starts expects four.
            Step("start", (2,), {1: Decision(_YES, 2, 2, 2), 2: Decision(_NO, 4, 3, 2)}),
            all_up(4, _YES, 4, 3, 4),
        ],
    ),
    "last_man_standing, all within the window": (
        3,
        {"last_man_standing": True, "last_man_standing_window": _LONG},
        [
            all_up(3, _YES, 3, 2, 3),
            killed(3, (1, 2), _YES, 3, 2, 2),
            killed(2, (1,), _NO, 3, 2, 1),
            all_up(3, _YES, 3, 2, 3),
        ],
    ),
    "auto_tie_breaker": (
        4,
        {"auto_tie_breaker": True},
        [
            all_up(4, _YES, 4, 3, 4),
            killed(1, (2, 3, 4), _YES, 4, 3, 3),
            # The lowest of those that were quorate last counts, and that is node 2.
            killed(4, (2, 3), _YES, 4, 3, 2),
            killed(3, (2,), _NO, 4, 3, 1),
            all_up(4, _YES, 4, 3, 4),
        ],
    ),
    "auto_tie_breaker with the highest node": (
        4,
        {"auto_tie_breaker": True, "auto_tie_breaker_node": "highest"},
        [
            all_up(4, _YES, 4, 3, 4),
            killed(4, (1, 2, 3), _YES, 4, 3, 3),
            # By then, node 3 is the highest.
            killed(1, (2, 3), _YES, 4, 3, 2),
        ],
    ),
    "auto_tie_breaker with a list": (
        4,
        {"auto_tie_breaker": True, "auto_tie_breaker_node": "2 1"},
        [
            all_up(4, _YES, 4, 3, 4),
            killed(2, (1, 3, 4), _YES, 4, 3, 3),
            killed(4, (1, 3), _YES, 4, 3, 2),
            Step("start", (2,), by_all((1, 2, 3), _YES, 4, 3, 3)),
            # This time, the first of the list was there before: so it may be elsewhere.
            killed(2, (1, 3), _NO, 4, 3, 2),
        ],
    ),
    "last_man_standing and auto_tie_breaker": (
        3,
        {
            "last_man_standing": True,
            "wait_for_all": True,
            "auto_tie_breaker": True,
            "last_man_standing_window": _SHORT,
        },
        [
            all_up(3, _YES, 3, 2, 3),
            killed(3, (1, 2), _YES),
            window((1, 2), _YES, 2, 2, 2),
            killed(2, (1,), _YES),
            # Down to the very last one.
            window((1,), _YES, 1, 1, 1),
            all_up(3, _YES, 3, 2, 3),
        ],
    ),
    "allow_downscale": (
        4,
        {"allow_downscale": True},
        [
            all_up(4, _YES, 4, 3, 4),
            # Fewer are expected, yet as many are needed: quorum does not go below what was configured.
            stopped(4, (1, 2, 3), _YES, 3, 3, 3),
            stopped(3, (1, 2), _NO, 2, 3, 2),
            all_up(4, _YES, 4, 3, 4),
        ],
    ),
    "votes and expected_votes": (
        3,
        {"votes": {1: 3}, "expected_votes": 6},
        [
            all_up(3, _YES, 6, 4, 5),
            killed(3, (1, 2), _YES, 6, 4, 4),
            killed(2, (1,), _NO, 6, 4, 3),
            all_up(3, _YES, 6, 4, 5),
        ],
    ),
}


@pytest.fixture
def clock(corosync_mode: str) -> MockClock | None:
    """The fake's time passes at once; daemons' time does not."""
    return MockClock(autojump_threshold=0) if corosync_mode == "fake" else None


async def told_by_quorumtool(node: Node) -> Decision:
    # 2 is what it exits with where there is no quorum.
    text = await ask(node, "corosync-quorumtool", "-s", statuses=(0, 2))
    told = dict(re.findall(r"^([A-Z][^:\n]*): +(\w+)", text, re.MULTILINE))
    return Decision(
        told["Quorate"] == "Yes", int(told["Expected votes"]), int(told["Quorum"]), int(told["Total votes"])
    )


async def rings(cluster: Cluster) -> set[VotequorumNodelist]:
    """The rings that nodes are in."""
    found: set[VotequorumNodelist] = set()
    for node in cluster.nodes.values():
        if node.running:
            async with triocoro.open_votequorum(endpoint=node.endpoint) as votequorum, votequorum.track() as changes:
                nodelist = await changes.receive()
                assert isinstance(nodelist, VotequorumNodelist)
                found.add(nodelist)
    return found


async def answers(node: Node, mode: str) -> list[Decision]:
    """What a node has decided, as votequorum, quorum and, where there is one, Corosync's own tool tell it."""
    async with (
        triocoro.open_votequorum(endpoint=node.endpoint) as votequorum,
        triocoro.open_quorum(endpoint=node.endpoint) as quorum,
    ):
        info = await votequorum.info()
        decision = Decision(info.quorate, info.expected_votes, info.quorum, info.total_votes)
        told = [decision, attrs.evolve(decision, quorate=await quorum.is_quorate())]
        if mode == "real":
            told.append(await told_by_quorumtool(node))
        return told


async def decisions(cluster: Cluster, mode: str) -> dict[int, list[Decision]]:
    """What each node that is up answers while they are all in one ring.

    On a busy machine, daemons may lose each other for a moment, and decide about that. In a transition, too, they
    answer: so it must be over after we have looked which one it was.
    """
    while True:
        before = await rings(cluster)
        await cluster.settled()
        found = {nodeid: await answers(node, mode) for nodeid, node in cluster.nodes.items() if node.running}
        after = await rings(cluster)
        if before == after and [ring.nodes for ring in after] in ([], [tuple(found)]):
            return found


def agree(found: Mapping[int, Sequence[Decision]], expected: Mapping[int, Decision]) -> bool:
    return found.keys() == expected.keys() and all(
        decision.agrees(expected[nodeid]) for nodeid, told in found.items() for decision in told
    )


async def take(step: Step, cluster: Cluster, mode: str) -> None:
    """Do it, and wait until the time has passed that the step is about."""
    async with trio.open_nursery() as nursery:
        for nodeid in step.nodes:
            nursery.start_soon(getattr(cluster[nodeid], step.verb))
    if step.verb == "window":
        # votequorum does not report when the window ends.
        while not agree(await decisions(cluster, mode), step.decisions):  # noqa: ASYNC110 - as said
            await trio.sleep(0.05)


async def play(name: str, mode: str) -> str:
    """Have a cluster of its own go through a scenario; returns a complaint if that comes to something else."""
    nodes, settings, steps = _SCENARIOS[name]
    new = NetnsCluster if mode == "real" else FakeCluster
    async with new(nodes=nodes, **settings) as cluster:
        for number, step in enumerate(steps):
            found: dict[int, list[Decision]] = {}
            with trio.move_on_after(_BOUND):
                await take(step, cluster, mode)
                found = await decisions(cluster, mode)
            if not agree(found, step.decisions):
                logs = "".join(f"node {node.nodeid}:\n{node.log}\n" for node in cluster.nodes.values())
                return f"{name}, step {number}: expected {step}\nfound {found}\n{logs}"
    return ""


_TOGETHER = 4
"""The number of clusters at a time; mostly they wait until a killed node is noticed."""


@pytest.mark.parametrize(
    "names",
    [[*_SCENARIOS][start : start + _TOGETHER] for start in range(0, len(_SCENARIOS), _TOGETHER)],
    ids=" | ".join,
)
async def test_quorum_decisions(names: Sequence[str], corosync_mode: str, clock: MockClock | None) -> None:
    del clock
    complaints: list[str] = []

    async def play_one(name: str) -> None:
        complaints.append(await play(name, corosync_mode))

    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(play_one, name)
    if any(complaints):
        pytest.fail("\n".join(complaints), pytrace=False)
    assert len(complaints) == len(names)


@pytest.mark.parametrize(
    "settings",
    [
        {"expected_votes": 9},
        {"qdevice_votes": 3},
        {"wait_for_all": True, "expected_votes": 3},
        {"votes": {1: 0, 2: 0}},
    ],
    ids=str,
)
def test_a_cluster_that_cannot_be_quorate_starts(
    make_corosync_cluster: ClusterFactory, settings: ClusterSettings
) -> None:
    """Options that ask for more votes than there are are valid."""
    cluster = make_corosync_cluster(nodes=2, **settings)

    async def main() -> bool:
        with trio.fail_after(_BOUND):
            await cluster.settled()
            async with triocoro.open_quorum(endpoint=cluster[1].endpoint) as quorum:
                return await quorum.is_quorate()

    assert trio.run(main) is False


# -- what is no configuration ------------------------------------------------------------------------------------------


def test_the_options_are_declared_alike() -> None:
    """One class has their values, another one tells type checkers of them as arguments."""
    names = dict(
        vars(options)
    )  # the classes show their public path, where the names in their annotations are not defined
    fields = {field.alias: field.type for field in attrs.fields(attrs.resolve_types(ClusterOptions, names))}
    settings = get_type_hints(ClusterSettings, names)
    assert fields.pop("nodes") is int
    # Of any sequence of ids the options keep a copy.
    assert fields.pop("nodeids") == tuple[int, ...] | None
    assert settings.pop("nodeids") == Sequence[int] | None
    assert settings == fields


@pytest.mark.parametrize(
    "settings,message",
    [
        ({"votes": {4: 1}}, "votes must be of nodes 1 to 3"),
        ({"votes": {1: -1}}, "votes must not be negative"),
        ({"votes": {1: 510}}, "512 votes are too many"),
        ({"expected_votes": 510}, "510 votes are too many"),
        ({"qdevice_votes": 507}, "510 votes are too many"),
        ({"expected_votes": 0}, "'expected_votes' must be >= 1"),
        ({"nodes": 4, "two_node": True, "auto_tie_breaker": True}, "two_node and auto_tie_breaker exclude"),
        ({"auto_tie_breaker": True}, "needs wait_for_all where the number of votes is odd"),
        ({"nodes": 2, "votes": {1: 2}, "auto_tie_breaker": True, "wait_for_all": False}, "needs wait_for_all"),
        ({"auto_tie_breaker_node": "lowest"}, "auto_tie_breaker_node needs auto_tie_breaker"),
        *(
            (
                {"nodes": 2, "auto_tie_breaker": True, "auto_tie_breaker_node": node},
                "auto_tie_breaker_node must be 'lowest', 'highest', or ids",
            )
            for node in ("", "low", "3", "1, 2", "1 x", "02", "1\n2")
        ),
        ({"last_man_standing": True, "votes": {2: 2}}, "last_man_standing needs nodes of one vote each"),
        ({"last_man_standing_window": 100}, "last_man_standing_window needs last_man_standing"),
        ({"last_man_standing": True, "last_man_standing_window": 0}, "must be >= 1"),
        ({"allow_downscale": True, "expected_votes": 2}, "expected_votes are ignored with allow_downscale"),
        *(
            ({"nodes": 2, option: True, "qdevice_votes": 1}, f"no quorum device beside {option}")
            for option in ("two_node", "last_man_standing", "auto_tie_breaker", "allow_downscale")
        ),
        ({"nodes": 2, "expected_votes": 3, "qdevice_votes": 2}, "at least 2 more than qdevice_votes"),
        ({"qdevice_votes": -1}, "'qdevice_votes' must be >= 0"),
        ({"qdevice_timeout": 100}, "qdevice_timeout needs qdevice_votes"),
        ({"qdevice_sync_timeout": 100}, "qdevice_sync_timeout needs qdevice_votes"),
        ({"nodes": 254}, "'nodes' must be <= 253"),
        ({"token": 125}, "'token' must be >= 126"),
        ({"token": 2**32 - 1}, "'token' must be <= 3579139413"),
    ],
    ids=str,
)
def test_options_that_votequorum_would_refuse_or_ignore_are_errors(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClusterOptions(**settings)


@pytest.mark.parametrize("votes", [3, {1: "1"}, {"1": 1}, [1, 2, 3]], ids=str)
def test_votes_are_numbers_of_nodes(votes: Any) -> None:
    with pytest.raises(TypeError, match="votes must be a mapping of node ids to numbers"):
        ClusterOptions(votes=votes)


@pytest.mark.parametrize(
    "settings",
    [
        {"two_node": "yes"},
        {"wait_for_all": 1},
        {"last_man_standing": "no"},
        {"auto_tie_breaker": "no"},
        {"allow_downscale": 0},
        {"auto_tie_breaker": True, "auto_tie_breaker_node": 2},
        {"token": 500.5},
        {"token": "500"},
    ],
    ids=str,
)
def test_options_of_wrong_types(settings: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=f"'{list(settings)[-1]}' must be <class"):
        ClusterOptions(nodes=2, **settings)


def test_options_that_do_go_together() -> None:
    ClusterOptions(auto_tie_breaker=True, auto_tie_breaker_node="3 1", wait_for_all=True, last_man_standing=True)
    ClusterOptions(nodes=2, auto_tie_breaker=True, allow_downscale=True)
    ClusterOptions(nodes=2, expected_votes=3, qdevice_votes=1)
    votes = {1: 2}
    options = ClusterOptions(votes=votes)
    votes.clear()
    assert [options.votes_of(nodeid) for nodeid in (1, 2, 3)] == [2, 1, 1]
