"""What is not determined, although all is quiet: what nodes expect, after they met in a way that may vary.

See facts 72 to 75 (docs/facts.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fuzz.program import Step

EXPECTATIONS = frozenset({"expected votes", "highest expected", "quorum", "flags", "quorate"})
"""What an observation has of it."""


class Excuses:
    """Follows the two runs of a program."""

    def __init__(self) -> None:
        self.varies = False
        """Whether the last steps leave open what nodes expect."""
        self._rings: list[list[int]] = []
        self._alike = True

    def follow(self, step: Step, seen: Mapping[str, Any]) -> None:
        """This was seen on the fake after that step."""
        rings: list[list[int]] = seen.get("rings", self._rings)
        verbs = {step["do"], (step.get("during") or {}).get("do")}
        if not self._alike and ("thaw" in verbs or _meet_in_steps(self._rings, rings)):
            self.varies = True
        self._rings = rings
        expected = [
            info["expected votes"]
            for key, node in seen.items()
            if key.startswith("node ")
            for about, info in node.items()
            if about.startswith("info ") and isinstance(info, Mapping)
        ]
        if expected:
            self._alike = len(set(expected)) == 1

    def agree_again(self) -> None:
        """Both nodes expect the same after that step."""
        self.varies = False


def _meet_in_steps(before: Sequence[Sequence[int]], after: Sequence[Sequence[int]]) -> bool:
    """Whether nodes of three or more rings meet, or of two, of which somebody stays behind."""
    for ring in after:
        origins = [set(old) for old in before if set(old) & set(ring)]
        new = set(ring).difference(*map(set, before)) if before else set(ring)
        parts = len(origins) + len(new)
        left = any(old - set(ring) for old in origins)
        if parts > 2 or (parts > 1 and left):
            return True
    return False
