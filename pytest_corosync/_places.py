"""The places that the session has reached, and those that it has not."""

from __future__ import annotations

import os
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from triocoro.testing import Places

_PLACES: Final[pytest.StashKey[Places]] = pytest.StashKey()
_COUNTS: Final[pytest.StashKey[Counter[str]]] = pytest.StashKey()
"""How often each place was reached in the processes that have ended."""
_SOURCE: Final = pytest.StashKey[dict[str, str]]()
"""Where the places are in the source that these processes had imported."""
_KEY: Final = "corosync_places"
"""The key in an xdist worker's output."""


def watch(config: pytest.Config) -> None:
    """Count from now on, if anything has imported triocoro."""
    if _PLACES in config.stash or "triocoro" not in sys.modules:
        return
    from triocoro import testing

    places = config.stash[_PLACES] = testing.Places()
    stack = ExitStack()
    stack.enter_context(places.counting())
    config.add_cleanup(stack.close)


def finish(config: pytest.Config) -> None:
    """Take stock at the end of the session; a worker of xdist reports to its controller."""
    if _PLACES not in config.stash:
        return
    places = config.stash[_PLACES]
    found = dict(places.counts), places.in_source()
    output: dict[str, Any] | None = getattr(config, "workeroutput", None)
    if output is not None:
        output[_KEY] = found
    else:
        _add(config, *found)


def finish_worker(config: pytest.Config, output: dict[str, Any]) -> None:
    """Take over what a worker has found; one that has crashed has found nothing."""
    if _KEY in output:
        _add(config, *output[_KEY])


def _add(config: pytest.Config, counts: dict[str, int], source: dict[str, str]) -> None:
    config.stash.setdefault(_COUNTS, Counter()).update(counts)
    config.stash.setdefault(_SOURCE, {}).update(source)


def summarise(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """List the places with their counts, and those that were never reached with their lines.

    Places in the source of others, such as triocoro's own, are left out: the user cannot do anything about them.
    """
    source = config.stash.get(_SOURCE, dict[str, str]())
    others = {place for place, where in source.items() if not Path(where).is_relative_to(config.rootpath)}
    counts = {place: count for place, count in config.stash.get(_COUNTS, Counter[str]()).items() if place not in others}
    missed = {place: where for place, where in source.items() if place not in counts and place not in others}
    if not counts and not missed:
        return
    terminalreporter.section("corosync places")
    for place, count in sorted(counts.items()):
        terminalreporter.line(f"{count:>7}  {place}")
    for place, where in sorted(missed.items()):
        path, _, line = where.rpartition(":")
        terminalreporter.line(f"  never  {place}  ({os.path.relpath(path, config.invocation_params.dir)}:{line})")
