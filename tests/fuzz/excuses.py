"""What is not determined, although all is quiet.

What nodes expect, after they met in a way that may vary.

Nodes that meet, or thaw, do so at once or in steps (facts 73 to 75 in docs/facts.md). What they expect then depends on
it, and on who speaks first (facts 71 and 72), unless all is plain before: all expect the same, quorum is the majority
of that, and there are no more votes.

How the members of a node go that is stopped, with a daemon that has too little to do at its end (fact 89).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fuzz.program import Step, node_of
from triocoro import NodeState, Reason

EXPECTATIONS = frozenset({"expected votes", "highest expected", "quorum", "flags", "quorate"})
"""What an observation has of it."""


def goes_in_haste(step: Step, member: str, ours: object, theirs: object) -> bool:
    """Whether a member of the node that was stopped went with its node, and not before it."""
    during: Step = step.get("during") or step
    return (
        during["do"] in {"stop", "restart"}
        and (ours, theirs) == (["left", Reason.PROCDOWN.name], ["left", Reason.NODEDOWN.name])
        and node_of(member) == during["node"]
    )


class Excuses:
    """Follows the run of a program on the fake."""

    def __init__(self) -> None:
        self.varies = False
        """Whether the steps so far leave open what nodes expect."""
        self._rings: Sequence[Sequence[int]] = ()
        # What each node says of each other one, when it was last asked.
        self._infos: dict[str, Mapping[str, Mapping[str, Any]]] = {}
        self._ended: set[str] = set()

    def follow(self, step: Step, seen: Mapping[str, Any]) -> None:
        """This was seen after that step."""
        during: Step = step.get("during") or step
        if during["do"] in {"stop", "kill"}:
            # What it expected is gone with it.
            self._infos.pop(str(during["node"]), None)
            self._ended.add(str(during["node"]))
        rings: Sequence[Sequence[int]] = seen.get("rings", self._rings)
        thaws = during["do"] == "thaw"
        if not self._is_plain() and (thaws or _meet(self._rings, rings)):
            self.varies = True
        self._rings = rings
        for key, node in seen.items():
            if key.startswith("node "):
                nodeid = key.removeprefix("node ")
                self._infos[nodeid] = dict(_infos(node))
                self._ended.discard(nodeid)

    def agree_again(self) -> None:
        """Real nodes expect the same as those of the fake after that step."""
        self.varies = False

    def _is_plain(self) -> bool:
        infos = [
            (about, info)
            for node in self._infos.values()
            for about, info in node.items()
            # What is noted of nodes elsewhere counts only of those that were frozen before anybody asked them.
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


def _meet(before: Sequence[Sequence[int]], after: Sequence[Sequence[int]]) -> bool:
    """Whether there is a ring now whose nodes were not all in one ring before."""
    return not all(any(set(ring) <= set(old) for old in before) for ring in after)
