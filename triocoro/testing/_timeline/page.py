"""`timeline_page`: a history as one HTML page that needs nothing from elsewhere."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping
from importlib import resources
from string import Template
from typing import Any, Final

import attrs

from .._checkers.violation import Violation
from .._cluster.options import ClusterOptions
from .._history.history import History, check_history
from .picture import draw
from .story import Story
from .telling import tell

_SHORT: Final = 120


def timeline_page(
    history: History,
    *,
    title: str = "A history",
    options: ClusterOptions | None = None,
    outcome: str = "",
    failure: str = "",
    violations: Iterable[Violation] = (),
) -> str:
    """Return a history as an HTML page: a lane for each node and client, with views, messages, operations and faults.

    The page holds everything that it needs. It can be opened from a file, and zoomed and searched there.

    Args:
        history: the history.
        title: the title of the page, such as the name of the test.
        options: the options of the cluster. With them, quorum is derived from the votes where no client asked for it.
        outcome: a word for the head of the page, such as ``passed`` or ``failed``.
        failure: why the test failed, if it did. The first line stands at the end of the test in the timeline, and all
            of it at the head of the page.
        violations: what `check` has found. They are listed, and their entries marked.

    Raises:
        TypeError: the history is none.
    """
    check_history(history)
    entries = list(history)
    short = failure.strip().partition("\n")[0]
    story = tell(history, options, failure=short or None)
    picture = draw(entries, story, violations)
    data: dict[str, Any] = {
        "title": title,
        "outcome": outcome,
        "facts": _facts(story, len(entries)),
        **attrs.asdict(picture, recurse=False),
        "failure": {"text": failure.strip(), "short": _cut(short), "x": picture.failure} if short else None,
    }
    parts = resources.files(__name__.rpartition(".")[0])

    def read(name: str) -> str:
        return parts.joinpath(name).read_text(encoding="utf-8").rstrip("\n")

    return Template(read("page.html")).substitute(
        title=html.escape(title.encode(errors="backslashreplace").decode()),
        css=read("page.css"),
        js=read("page.js"),
        data=_json(data),
    )


def _facts(story: Story, entries: int) -> list[str]:
    def counted(number: int, what: str) -> str:
        return f"{number:,} {what}{'' if number == 1 else 's'}"

    facts = [
        counted(len(story.nodes), "node"),
        counted(len(story.clients), "client"),
        counted(len(story.sendings), "message"),
        f"{entries:,} entries in {story.duration:.3f} s",
    ]
    if story.dropped:
        facts.append(f"the first {story.dropped:,} entries were dropped while it was recorded")
    return facts


def _cut(text: str) -> str:
    return text if len(text) <= _SHORT else f"{text[:_SHORT]}..."


def _json(data: Mapping[str, Any]) -> str:
    """JSON that HTML leaves alone: nothing in it can end its element."""
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")
