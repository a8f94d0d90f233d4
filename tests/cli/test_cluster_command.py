"""`triocoro cluster`."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
from support.commands import COMMAND, ROOT, invoke, run

pytestmark = pytest.mark.corosync_real_only(reason="it starts real nodes")


def test_a_program_in_a_node() -> None:
    done = run("cluster", "--nodes=2", "--shell=2", "--", "corosync-quorumtool", "-s")
    assert done.returncode == 0, done.stderr
    assert "Quorate:          Yes" in done.stdout
    assert "Node ID:          2" in done.stdout


def test_the_status_is_that_of_the_program() -> None:
    assert run("cluster", "--nodes=1", "--shell=1", "--", "sh", "-c", "exit 7").returncode == 7


def test_a_program_runs_where_the_command_does(tmp_path: Path) -> None:
    """In its folder, so that relative paths lead to the same files, and only what it prints is printed."""
    (tmp_path / "here").write_text("it is", encoding="utf-8")
    command = [*COMMAND, "cluster", "--nodes=1", "--shell=1", "--", "cat", "here"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "it is", "")


def test_a_shell_is_told_where_it_is() -> None:
    done = run("cluster", "--nodes=1", "--shell=1", SHELL="/bin/true")
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"A shell in node 1 of the cluster \S+, which ends with it\.\n", done.stdout)


def test_it_runs_until_it_is_interrupted() -> None:
    with subprocess.Popen(
        [*COMMAND, "cluster", "--nodes=1"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(5)]
        look = next(line for line in lines if "look into node 1: " in line).split(": ", 1)[1]
        assert "Quorate:" in subprocess.run(look.split(), capture_output=True, text=True, check=False).stdout
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "")
    assert subprocess.run(look.split(), capture_output=True, check=False).returncode != 0


@pytest.mark.parametrize("arguments", [["--shell=4"], ["--nodes=0"], ["true"]])
async def test_wrong_arguments(arguments: list[str]) -> None:
    assert (await invoke("cluster", *arguments)).status == 2
