"""What a mutant is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from triocoro.testing import Rule

if TYPE_CHECKING:
    from triocoro.testing import ClusterSettings


@attrs.frozen
class Mutant:
    """The fake with one thing wrong."""

    wrong: str
    """What, in a sentence."""
    module: str
    """Where, in triocoro.testing._fake."""
    old: str
    """A text that is in the module once."""
    new: str
    """What stands there instead."""
    caught_by: Rule | str
    """The rule that a recording of chaos breaks; or the id of a test that fails."""
    nodes: int = 3
    """How many nodes the recorded cluster has."""
    settings: ClusterSettings = attrs.field(factory=lambda: {})
    """And how it is configured."""
