"""The description of a mutant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from triocoro.testing import Rule


@attrs.frozen
class Mutant:
    """The fake with one thing wrong."""

    wrong: str
    """The defect, in one sentence."""
    module: str
    """The changed module, relative to triocoro.testing._fake."""
    old: str
    """A text that occurs exactly once in the module."""
    new: str
    """The replacement."""
    caught_by: Rule | str
    """The rule that a recorded chaos run breaks, or the id of the test that fails."""
    cluster: Mapping[str, Any] = attrs.field(factory=lambda: {"nodes": 3})
    """The options of the recorded cluster."""

    @property
    def full_module(self) -> str:
        """The full name of the module."""
        return f"triocoro.testing._fake.{self.module}"
