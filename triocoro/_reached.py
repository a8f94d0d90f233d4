"""Places in a program that test runs should come by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

listeners: Final[list[Callable[[str, int | None], None]]] = []
"""Called with each place that is reached, and the node that it is about; empty but in tests. They raise nothing."""


def reached(place: str, *, node: int | None = None) -> None:
    """Note that the program has come by this place, for tests: has the case that it is for ever been tested?

    The histories of clusters that are being recorded get a `triocoro.testing.Note`. `triocoro.testing.Places` counts
    the places; the pytest plugin reports these counts, and the places that no test has reached. It finds those in the
    source, so write the text as a literal. Outside of tests this does nothing, and takes some 50 nanoseconds.

    ::

        if merging and leader is None:
            reached("takeover during merge")

    Args:
        place: a short text for people.
        node: the id of the node that it is about.
    """
    for listen in listeners:
        listen(place, node)
