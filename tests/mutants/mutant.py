"""What a mutant is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from triocoro.testing import Rule


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
    cluster: Mapping[str, Any] = attrs.field(factory=lambda: {"nodes": 3})
    """The options of the recorded cluster."""

    @property
    def full_module(self) -> str:
        """The module with all its packages."""
        return f"triocoro.testing._fake.{self.module}"
