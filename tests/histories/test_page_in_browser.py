"""The page of a history in Chromium: make browser."""

from __future__ import annotations

import itertools
import os
import shutil
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio
from support.browser import Page, open_page
from support.fixtures.figures import Bound
from support.timeline_pages import (
    primary_of_the_first_version,
    record_a_long_history,
    record_a_lost_message,
    record_a_lost_write,
    record_a_rolling_restart,
)

from triocoro.recipes._member import Member
from triocoro.testing import Cluster, ClusterOptions, History, seeded_run, timeline_page

_SCREENSHOTS = os.environ.get("TRIOCORO_SCREENSHOTS")
"""The folder to leave the screenshots in; empty for none; `None`: there is no browser to be used."""

pytestmark = [
    pytest.mark.skipif(_SCREENSHOTS is None, reason="it needs Chromium: make browser"),
    pytest.mark.deadline(60),
]


@asynccontextmanager
async def showing(history: History, folder: Path, **arguments: Any) -> AsyncGenerator[Page, None]:
    """A browser with the page of a history, from a file."""
    program = shutil.which("chromium")
    assert program is not None, "chromium is not on PATH"
    file = folder / "history.html"
    file.write_text(timeline_page(history, **arguments), encoding="utf-8")
    async with open_page(program, f"file://{file}", folder / "profile") as page:
        await page.until_text("Timeline")
        await page.size(1300, 1000)
        yield page


async def drawn(page: Page) -> None:
    await page.run("new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")


async def look(page: Page, name: str, folder: Path) -> None:
    """Keep a screenshot, and see that something was drawn."""
    await drawn(page)
    for canvas in ("lanes", "overview", "axis"):
        pixels = f"$('{canvas}').getContext('2d').getImageData(0, 0, $('{canvas}').width, $('{canvas}').height).data"
        assert await page.run(f"new Set(new Uint32Array({pixels}.buffer)).size") > 2
    assert await page.run("document.documentElement.scrollWidth <= innerWidth")
    await page.screenshot(Path(_SCREENSHOTS or folder) / f"{name}.png")


async def test_what_a_user_does(corosync_cluster: Cluster, tmp_path: Path) -> None:
    history = await record_a_lost_message(corosync_cluster)
    failure = "AssertionError: node 2 has not got the message\nline 17: assert 'to nobody' in received"
    async with showing(
        history,
        tmp_path,
        title="test_it <b>now</b>",
        outcome="failed",
        failure=failure,
        options=corosync_cluster.options,
    ) as page:
        why, more = failure.splitlines()
        await page.until_text("FAILED", "test_it <b>now</b>", why, "is cut off from all others", "is frozen")
        assert more not in await page.text()
        await page.run("document.querySelector('summary').click()")
        await page.until_text(more)
        await page.run("document.querySelector('summary').click()")
        assert await page.run("document.title") == "test_it <b>now</b>"
        await look(page, "lost-message", tmp_path)

        # Search finds the sending and its delivery; the address then leads to it.
        await page.press("/")
        for key in "nobody":
            await page.press(key)
        await page.until_text("2 found", "1 to 2 of 2 found")
        await page.press("Enter")
        await page.until_text("never received by node 2, chat; node 3, chat")
        address = await page.run("location.hash")
        entry = int(address.removeprefix("#entry-"))
        assert history[entry].arguments == {"payloads": (b"to nobody",)}  # type: ignore[union-attr]
        await look(page, "lost-message-chosen", tmp_path)
        await page.press("Escape")
        await page.press("Escape")
        assert await page.run("location.hash") == ""
        await page.run(f"location.hash = '{address}'")
        await page.until_text("never received by node 2, chat; node 3, chat")

        # The pointer shows what it is at; a drag moves, and keys zoom.
        box = await page.run(
            "(() => { const box = $('lanes').getBoundingClientRect(); return [box.x + X(chosen.x), box.y +"
            " middle(chosen.lane)]; })()"
        )
        await page.mouse("mouseMoved", *box)
        assert "sends “to nobody”" in await page.run("$('tip').hidden ? '' : $('tip').innerText")
        await page.press("0")
        whole = await page.run("view.scale")
        await page.press("+")
        await page.press("+")
        assert await page.run("view.scale") > whole * 2
        began = await page.run("view.from")
        await page.mouse("mousePressed", *box, button="left", clickCount=1)
        await page.mouse("mouseMoved", box[0] - 100, box[1], button="left")
        await page.mouse("mouseReleased", box[0] - 100, box[1], button="left")
        assert await page.run("view.from") != began
        await page.press("0")
        assert await page.run("view.scale") == whole

        await page.size(1300, 1000, dark=True)
        await look(page, "dark", tmp_path)
        await page.size(420, 900)
        await look(page, "narrow", tmp_path)


@pytest.mark.corosync_fake_only(reason="the browser sees no difference")
async def test_text_is_text(tmp_path: Path) -> None:
    history = History(clock=lambda: 0.0)
    history.note("<img src=x onerror='document.title = 1'></script><script>document.title = 2</script>")
    async with showing(history, tmp_path, title="<script>document.title = 3</script>") as page:
        await page.until_text("<img src=x onerror='document.title = 1'>")
        assert await page.run("document.title") == "<script>document.title = 3</script>"
        assert await page.run("document.images.length") == 0
    async with showing(History(), tmp_path) as page:
        await page.until_text("0 entries")


def take_picture(history: History, folder: Path, name: str, script: str, **arguments: Any) -> None:
    """Take the picture of a page for the documentation, without its table and keys."""

    async def main() -> None:
        options = ClusterOptions(nodes=3)
        async with showing(history, folder, outcome="failed", options=options, **arguments) as page:
            await page.until_text(arguments["title"])
            await page.run("$('scroll').closest('section').hidden = $('keys').hidden = true, null")
            await page.size(1000, await page.run("Math.ceil($('legend').getBoundingClientRect().bottom) + 16"))
            await page.run(script or "null")
            await drawn(page)
            await page.screenshot(Path(_SCREENSHOTS or folder) / f"{name}.webp")

    trio.run(main)


@pytest.mark.corosync_fake_only(reason="the browser sees no difference")
def test_the_picture_of_the_documentation(tmp_path: Path) -> None:
    """docs/timeline.webp is a copy of it."""
    history = seeded_run(record_a_lost_write, 1, seed=1)
    read = history.operations()[-1]
    assert (read.name, read.result) == ("get", "blue")
    failure = "FAILS in line 31: AssertionError: assert 'blue' == 'red'"
    take_picture(history, tmp_path, "timeline", "", title="test_store.py::test_writes_stay", failure=failure)


@pytest.mark.corosync_fake_only(reason="the browser sees no difference")
def test_the_picture_of_a_bug_in_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/recipes/first-version.webp is a copy of it."""
    monkeypatch.setattr(Member, "primary", primary_of_the_first_version)
    history = seeded_run(record_a_rolling_restart, seed=1)
    failure = "FAILS in line 9: trio.TooSlowError: the second program on node 2 is never primary"
    script = "look(total * 0.75, leastScale() * 1.9), null"  # the restarts
    title = "test_log.py::test_programs_restart_one_after_the_other"
    take_picture(history, tmp_path, "first-version", script, title=title, failure=failure)


@pytest.mark.corosync_fake_only(reason="the browser sees no difference")
def test_10_000_events_of_five_nodes(tmp_path: Path, bound: Bound) -> None:
    history = seeded_run(record_a_long_history, 1, 10_000, seed=1)

    async def measure() -> None:
        began = time.perf_counter()
        arguments: dict[str, Any] = {"options": ClusterOptions(nodes=5), "title": "a long history"}
        size = len(timeline_page(history, **arguments))
        bound("the page of 10,000 entries is made: seconds", time.perf_counter() - began, 2)
        bound("it has: MB", size / 1e6, 3)
        async with showing(history, tmp_path, **arguments) as page:
            await drawn(page)
            await look(page, "long", tmp_path)
            loaded = await page.run("performance.getEntriesByType('navigation')[0].duration")
            bound("it is loaded and drawn: seconds", loaded / 1000, 2)
            for name, script in (
                ("as a whole", "drawLanes()"),
                ("at a tenth", "look(total / 2, leastScale() * 10), drawLanes()"),
                ("with arrows", "look(total / 2, 8), drawLanes()"),
            ):
                await page.run(script or "null")
                took = await page.run(
                    "(() => { const began = performance.now(); for (let i = 0; i < 20; i += 1) {"
                    " for (const draw of [drawOverview, drawAxis, drawLanes]) draw();"
                    # Chromium draws when it must.
                    " $('lanes').getContext('2d').getImageData(0, 0, 1, 1);"
                    " } return (performance.now() - began) / 20; })()"
                )
                bound(f"it is drawn {name}: milliseconds", took, 60)
                await look(page, f"long-{name.rpartition(' ')[2]}", tmp_path)
            took = await page.run(
                "(() => { const began = performance.now(); search('message 17'); return performance.now() - began; })()"
            )
            bound("it is searched: milliseconds", took, 200)

    trio.run(measure)


@pytest.mark.corosync_fake_only(reason="the browser sees no difference")
def test_5_000_operations(tmp_path: Path, bound: Bound) -> None:
    times = itertools.count()
    history = History(clock=lambda: next(times) / 1000)
    random = Random(1)
    for number in range(5_000):
        client = f"client {random.randint(1, 10)}"
        with history.operation("put", random.randint(1, 5), number, client=client, node=1) as operation:
            operation.result = "ok"

    async def main() -> None:
        async with showing(history, tmp_path) as page:
            took = await page.run(
                "(() => { const began = performance.now(); drawLanes();"
                " $('lanes').getContext('2d').getImageData(0, 0, 1, 1); return performance.now() - began; })()"
            )
            bound("5,000 operations are drawn: milliseconds", took, 200)
            await look(page, "operations", tmp_path)
            await page.run("look(100, 12), null")
            await look(page, "operations-near", tmp_path)

    trio.run(main)
