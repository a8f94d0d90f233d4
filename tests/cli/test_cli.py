"""`python -m triocoro`, as a process of its own."""

from __future__ import annotations

import io
import os
import pty
import re
import signal
import subprocess
from collections.abc import Callable
from functools import partial
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from typing import TextIO, TypeAlias

import pytest
import trio
from support.commands import COMMAND, ROOT, run

import triocoro
from triocoro import _cli
from triocoro._cli import demo, transcript
from triocoro._cli.demo import MAX_NODES, run_demo

Figure: TypeAlias = Callable[[str, str], None]


def lines_about(output: str, what: str) -> list[tuple[int, str]]:
    """The number of the node and the rest, of each line of a node that begins with `what`."""
    return [
        (int(node), rest) for node, rest in re.findall(rf"^ *\d+\.\d+  node (\d+) +{what} ?(.*)$", output, re.MULTILINE)
    ]


@pytest.mark.parametrize("nodes", [2, 3, 5])
def test_demo(corosync_mode: str, nodes: int, figure: Figure) -> None:
    result = run("demo", f"--corosync={corosync_mode}", f"--nodes={nodes}")
    assert result.stderr == ""
    assert result.returncode == 0
    output = result.stdout
    assert output.endswith("\nEvery node saw the same messages in the same order.\n")
    assert "\x1b" not in output
    took = max(map(float, re.findall(r"^ *(\d+\.\d+)  ", output, re.MULTILINE)))
    figure(f"demo, {nodes} {corosync_mode} nodes", f"{took:.1f} s")

    # Three rounds: all, the survivors, all again. What each node says that it heard is the same, and complete.
    everyone, survivors = set(range(1, nodes + 1)), set(range(1, nodes))
    heard = lines_about(output, "heard")
    assert len(heard) == nodes + (nodes - 1) + nodes
    for number, present in enumerate([everyone, survivors, everyone]):
        start = sum([nodes, nodes - 1, nodes][:number])
        part = heard[start : start + len(present)]
        assert {node for node, _ in part} == present
        assert len({order for _, order in part}) == 1
        words = part[0][1].split()
        rounds = range(3 * number + 1, 3 * number + 4)
        assert sorted(words) == sorted(f"{'abcdefgh'[node - 1]}{word}" for node in present for word in rounds)
        # Each sender's messages keep their order.
        for node in present:
            mine = [word for word in words if word[0] == "abcdefgh"[node - 1]]
            assert mine == sorted(mine)

    # The survivors saw it go and come back, and counted their votes anew.
    members = " ".join(map(str, sorted(survivors)))
    assert {node for node, _ in lines_about(output, rf"sees node {nodes} leave \(NODEDOWN\); members: {members}$")} == (
        survivors
    )
    needed = 1 if nodes == 2 else nodes // 2 + 1
    counted = f"counts {nodes - 1} of {nodes} votes, {needed} needed: quorate"
    assert {node for node, _ in lines_about(output, counted)} == survivors
    assert {node for node, _ in lines_about(output, "lost its connection to the group")} == {nodes}
    after = output.partition(f"Node {nodes} starts again")[2]
    assert {node for node, _ in lines_about(after, f"counts {nodes} of {nodes} votes, {needed} needed: quorate")} == (
        everyone
    )


@pytest.mark.corosync_fake_only(reason="it is about what runs where real nodes cannot")
@pytest.mark.parametrize("others", [[], ["a", "b"]])
def test_demo_where_no_real_node_can_run(monkeypatch: pytest.MonkeyPatch, others: list[str]) -> None:
    missing = ["the kernel forbids it: allow it", *others]
    monkeypatch.setattr(demo, "missing_requirements", lambda: missing)
    stream = io.StringIO()
    assert trio.run(partial(run_demo, mode="auto", nodes=2, transcript=transcript.Transcript(stream))) == 0
    more = " (and 2 more, which --corosync=real lists)" if others else ""
    first, second, *_ = filter(None, stream.getvalue().splitlines())
    assert first == f"No real nodes can run here, so the fake shows the same. The kernel forbids it: allow it{more}."
    assert second == "A cluster of 2 fake nodes starts."
    stream = io.StringIO()
    assert trio.run(partial(run_demo, mode="real", nodes=2, transcript=transcript.Transcript(stream))) == 2
    assert "".join(f"\n  - {item}" for item in missing) in stream.getvalue()


@pytest.mark.parametrize(
    "nodes,complaint",
    [
        ("1", "it takes at least 2 nodes"),
        ("-3", "it takes at least 2 nodes"),
        (str(MAX_NODES + 1), f"more than {MAX_NODES} nodes"),
        ("many", "'many' is not a valid integer"),
    ],
)
def test_demo_refuses_numbers_that_make_no_sense(nodes: str, complaint: str) -> None:
    result = run("demo", f"--nodes={nodes}")
    assert result.returncode == 2
    assert result.stderr.startswith("Usage: triocoro demo ")
    assert complaint in result.stderr


def test_demo_whose_reader_has_seen_enough(corosync_mode: str) -> None:
    command = [*COMMAND, "demo", f"--corosync={corosync_mode}", "--nodes=2"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        _, complaints = process.communicate(timeout=120)
    assert (process.returncode, complaints) == (0, "")


def test_a_command_is_needed() -> None:
    result = run()
    assert result.returncode == 2
    assert "Usage: triocoro [OPTIONS] COMMAND" in result.stderr


@pytest.mark.parametrize("missing", [["click"], ["rich"], ["click", "rich"]])
def test_without_the_extra(
    missing: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def find(package: str) -> ModuleSpec | None:
        return None if package in missing else find_spec(package)

    monkeypatch.setattr(_cli, "find_spec", find)
    assert _cli.main() == 2
    stdout, stderr = capsys.readouterr()
    assert stdout == ""
    (line,) = stderr.splitlines()
    assert line.startswith(f"triocoro: the command needs {' and '.join(missing)}, which cannot be found: pip install ")


def test_version() -> None:
    result = run("--version")
    assert (result.returncode, result.stdout) == (0, f"triocoro, version {triocoro.__version__}\n")


def test_an_unknown_command() -> None:
    result = run("nonsense")
    assert (result.returncode, result.stdout) == (2, "")
    assert "No such command 'nonsense'" in result.stderr


def test_help() -> None:
    result = run("demo", "--help")
    assert result.returncode == 0
    assert "--corosync [real|fake|auto]" in result.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_demo_interrupted(corosync_mode: str, number: signal.Signals) -> None:
    """Whenever the signal comes, the cluster is taken down (the check at the end of the run would find it)."""
    async with trio.open_nursery() as nursery:
        command = [*COMMAND, "demo", f"--corosync={corosync_mode}", "--nodes=8"]
        start = partial(trio.run_process, command, cwd=ROOT, stdout=subprocess.PIPE, check=False)
        process: trio.Process = await nursery.start(start)
        assert process.stdout is not None
        await process.stdout.receive_some()
        process.send_signal(number)
        with trio.fail_after(20):
            await process.wait()
        nursery.cancel_scope.cancel()
    # The fake may be through by then.
    assert process.returncode == 130 or (corosync_mode == "fake" and process.returncode == 0)


def test_transcript_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb"), os.fdopen(theirs, "w") as terminal:
        assert transcript.wants_colour(terminal)
        monkeypatch.setenv("NO_COLOR", "1")
        assert not transcript.wants_colour(terminal)
        monkeypatch.setenv("NO_COLOR", "")
        assert transcript.wants_colour(terminal)
        monkeypatch.setenv("TERM", "dumb")
        assert not transcript.wants_colour(terminal)


def test_transcript_elsewhere() -> None:
    stream = io.StringIO()
    to = transcript.Transcript(stream)
    to.title("Something begins.")
    to.line("it goes on")
    to.line("does it", node=12)
    to.failure("no")
    assert re.fullmatch(
        r"\nSomething begins\.\n *\d\.\d{3}          it goes on\n *\d\.\d{3}  node 12 does it\nfailed: no\n",
        stream.getvalue(),
    )


def test_transcript_has_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    def yes(_: TextIO) -> bool:
        return True

    monkeypatch.setattr(transcript, "wants_colour", yes)
    stream = io.StringIO()
    transcript.Transcript(stream).line("does it", node=1)
    assert "\x1b[36mnode 1  does it\x1b[0m" in stream.getvalue()
