"""The command `demo`: runs an application on each node of a cluster, and kills and restarts a node."""

from __future__ import annotations

import string
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import click
import trio

from .._errors import CorosyncUnavailableError
from ..testing import Cluster, FakeCluster, NetnsCluster, missing_requirements
from .chat import GROUP, ChatMember
from .job import Job, Status
from .transcript import Transcript

MIN_NODES: Final = 2
MAX_NODES: Final = 16

_MESSAGES: Final = 3
"""Messages that each application sends in each round."""
_LIMIT: Final = 90.0
"""Seconds that the whole demonstration may take."""


def _check_nodes(_: click.Context, __: click.Parameter, number: int) -> int:
    if number < MIN_NODES:
        raise click.BadParameter(f"{number}: to agree on an order it takes at least {MIN_NODES} nodes")
    if number > MAX_NODES:
        raise click.BadParameter(f"{number}: a transcript of more than {MAX_NODES} nodes would be unreadable")
    return number


class _Demo:
    """The script of the demonstration: its steps, and the check of what the applications received."""

    def __init__(self, cluster: Cluster, transcript: Transcript) -> None:
        self.agreed = True
        """Whether all nodes have received the messages in the same order so far."""
        self._cluster = cluster
        self._transcript = transcript
        self._sent = 0
        self._members = {
            nodeid: ChatMember(nodeid, node.endpoint, transcript) for nodeid, node in cluster.nodes.items()
        }

    async def play(self) -> None:
        everyone = list(self._members)
        victim = everyone[-1]
        survivors = everyone[:-1]
        say = self._transcript

        async with trio.open_nursery() as nursery:
            say.title(f'An application on each node joins the group "{GROUP}".')
            for member in self._members.values():
                nursery.start_soon(member.run)
            await self._see_each_other(everyone)

            say.title(f"Each sends {_MESSAGES} messages, all at the same time.")
            await self._exchange(everyone)

            say.title(f"Node {victim} is killed.")
            await self._cluster[victim].kill()
            say.line("is dead", node=victim)
            await self._see_each_other(survivors)
            await self._exchange(survivors)

            say.title(f"Node {victim} starts again. Its application has been trying to reconnect all the time.")
            await self._cluster[victim].start()
            say.line("runs again", node=victim)
            await self._see_each_other(everyone)
            await self._exchange(everyone)

            nursery.cancel_scope.cancel()

    async def _see_each_other(self, nodeids: list[int]) -> None:
        """Wait until each of these nodes sees exactly these nodes in the group, and votequorum counts their votes."""

        def complete(member: ChatMember) -> bool:
            return (
                member.members == tuple(nodeids)
                and member.votes is not None
                and member.votes.quorate
                and member.votes.total_votes == len(nodeids)
            )

        await self._all(nodeids, lambda member: member.until(complete))

    async def _exchange(self, nodeids: list[int]) -> None:
        """Send from these applications at the same time, and check that all receive the same order."""
        begin = {nodeid: len(self._members[nodeid].heard) for nodeid in nodeids}
        total = len(nodeids) * _MESSAGES
        for _ in range(_MESSAGES):
            self._sent += 1
            for nodeid in nodeids:
                self._members[nodeid].say(f"{string.ascii_lowercase[nodeid - 1]}{self._sent}")

        await self._all(nodeids, lambda member: member.until(lambda it: len(it.heard) >= begin[it.nodeid] + total))
        orders = {nodeid: self._members[nodeid].heard[begin[nodeid] :] for nodeid in nodeids}
        for nodeid, order in orders.items():
            self._transcript.line(f"heard {' '.join(order)}", node=nodeid)
        if len(set(map(tuple, orders.values()))) != 1:
            self.agreed = False
            self._transcript.failure("these are different orders")
            return
        self._transcript.line(f"{total} messages, in the same order on {len(nodeids)} of {len(self._members)} nodes")

    async def _all(self, nodeids: list[int], wait: Callable[[ChatMember], Awaitable[None]]) -> None:
        async with trio.open_nursery() as nursery:
            for nodeid in nodeids:
                nursery.start_soon(wait, self._members[nodeid])


@click.command(
    "demo",
    short_help="Watch a cluster agree on an order, lose a node, and get it back.",
    epilog="""\b
Examples:
  triocoro demo
  triocoro demo --corosync=auto --nodes=5
""",
)
@click.option(
    "--corosync",
    "mode",
    type=click.Choice(["real", "fake", "auto"]),
    default="fake",
    show_default=True,
    help="Real daemons in network namespaces, the in-memory fake, or real ones where they can run.",
)
@click.option(
    "--nodes",
    callback=_check_nodes,
    type=int,
    default=3,
    show_default=True,
    metavar="N",
    help=f"How many, {MIN_NODES} to {MAX_NODES}.",
)
def command(mode: str, nodes: int) -> Job:
    """Watch several applications agree on an order, lose a node, and get it back.

    Starts a throwaway cluster with an application on each node. They join a process group and exchange messages; one
    node is killed, comes back, and rejoins. The exit status is 0 only if every node saw the same messages in the same
    order.
    """
    return partial(run_demo, mode=mode, nodes=nodes, transcript=Transcript(sys.stdout))


async def run_demo(*, mode: str, nodes: int, transcript: Transcript) -> Status:
    """Run the demonstration.

    Args:
        mode: the kind of cluster: "real", "fake", or "auto", which is real where real daemons can run.
        nodes: how many nodes it has.
        transcript: where to tell what happens.
    """
    missing = [] if mode == "fake" else missing_requirements()
    if missing and mode == "real":
        transcript.failure("--corosync=real is not possible here:\n" + "\n".join(f"  - {item}" for item in missing))
        return Status.USAGE
    if missing:
        first, *others = missing
        more = f" (and {len(others)} more, which --corosync=real lists)" if others else ""
        transcript.title(f"No real nodes can run here, so the fake shows the same. {_sentence(first)}{more}.")
    try:
        with trio.fail_after(_LIMIT):
            agreed = await _play(real=mode != "fake" and not missing, nodes=nodes, transcript=transcript)
    except trio.TooSlowError:
        transcript.failure(f"it took longer than {_LIMIT:.0f} s")
    except CorosyncUnavailableError as exc:
        transcript.failure(str(exc))
    else:
        return Status.YES if agreed else Status.NO
    return Status.NO


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


async def _play(*, real: bool, nodes: int, transcript: Transcript) -> bool:
    transcript.title(f"A cluster of {nodes} {'real' if real else 'fake'} nodes starts.")
    cluster_class = NetnsCluster if real else FakeCluster
    # With two nodes, one alone has no majority; votequorum's option two_node makes it quorate.
    async with cluster_class(nodes=nodes, two_node=nodes == MIN_NODES) as cluster:
        transcript.line("the cluster is up")
        demo = _Demo(cluster, transcript)
        await demo.play()
    if demo.agreed:
        transcript.title("Every node saw the same messages in the same order.")
    else:
        transcript.failure("not every node saw the same messages in the same order")
    return demo.agreed
