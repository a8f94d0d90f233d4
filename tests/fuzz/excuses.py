"""Differences that are excused, because they are not determined although the cluster is quiet.

The expected votes, after nodes have met in a way that may vary. Nodes that meet, or thaw, do so at once or in several
steps (facts 73 to 75 in docs/facts.md). Their expected votes then depend on the steps, and on which node speaks first
(facts 71 and 72). They do not vary if all was plain before: all nodes expect the same, quorum is the majority of that,
and there are no more votes than that.

The reason for which the members of a stopped node leave, with a daemon that may end before it has announced them
(fact 89).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fuzz.program import Step, node_of
from triocoro import NodeState, Reason

EXPECTED_VOTES_FIELDS = frozenset({"expected votes", "highest expected", "quorum", "flags", "quorate"})
"""The fields of an observation that depend on the expected votes."""


def left_with_node(step: Step, member: str, ours: object, theirs: object) -> bool:
    """Whether a member of the stopped node left with the node on the real cluster, and before it on the fake."""
    during: Step = step.get("during") or step
    return (
        during["do"] in {"stop", "restart"}
        and (ours, theirs) == (["left", Reason.PROCDOWN.name], ["left", Reason.NODEDOWN.name])
        and node_of(member) == during["node"]
    )


class Excuses:
    """Follows a program's run on the fake, and knows when the expected votes are not determined."""

    def __init__(self) -> None:
        self.expected_votes_vary = False
        """Whether the steps so far leave the expected votes open."""
        self._rings: Sequence[Sequence[int]] = ()
        # By node: what it said about each node when it was last asked.
        self._infos: dict[str, Mapping[str, Mapping[str, Any]]] = {}
        self._ended: set[str] = set()

    def follow(self, step: Step, observation: Mapping[str, Any]) -> None:
        """Take a step and its observation into account."""
        during: Step = step.get("during") or step
        if during["do"] in {"stop", "kill"}:
            # The node's expected votes are gone with it.
            self._infos.pop(str(during["node"]), None)
            self._ended.add(str(during["node"]))
        rings: Sequence[Sequence[int]] = observation.get("rings", self._rings)
        thaws = during["do"] == "thaw"
        if not self._is_plain() and (thaws or _nodes_met(self._rings, rings)):
            self.expected_votes_vary = True
        self._rings = rings
        for key, node in observation.items():
            if key.startswith("node "):
                nodeid = key.removeprefix("node ")
                self._infos[nodeid] = dict(_infos(node))
                self._ended.discard(nodeid)

    def agree_again(self) -> None:
        """Note that the real nodes expect the same votes again as those of the fake."""
        self.expected_votes_vary = False

    def _is_plain(self) -> bool:
        infos = [
            (about, info)
            for node in self._infos.values()
            for about, info in node.items()
            # Of nodes elsewhere, only those count that were frozen before they were ever asked.
            if info["state"] == NodeState.MEMBER.name or about not in self._infos.keys() | self._ended
        ]
        if not infos:
            return True
        expected: int = infos[0][1]["expected votes"]
        votes: dict[str, int] = {about: info["votes"] for about, info in infos}
        return (
            all(info["expected votes"] == expected and info["quorum"] == (expected + 2) // 2 for _, info in infos)
            and sum(votes.values()) <= expected
        )


def _infos(node: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for about, info in node.items():
        if about.startswith("info ") and not isinstance(info, str):
            yield about.removeprefix("info "), info


def _nodes_met(before: Sequence[Sequence[int]], after: Sequence[Sequence[int]]) -> bool:
    """Whether there is a ring now whose nodes were not all in one ring before."""
    return not all(any(set(ring) <= set(old) for old in before) for ring in after)
