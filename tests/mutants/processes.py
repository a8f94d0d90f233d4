"""Runs tests in a process of their own, with a wrong version of a module."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from mutants import hook

ROOT = Path(__file__).parents[2]
_BOUND = 60
"""Seconds for a process that takes a few on an idle machine."""


def run(mutant: tuple[str, str, str] | None, *tests: str) -> subprocess.CompletedProcess[str]:
    """Run tests on the fake in a new process, with the mutant if there is one: its module, the old and the new text."""
    plugins = ["pytest_trio.plugin", "pytest_corosync.plugin", "mutants.hook", "no:cacheprovider"]
    options = [argument for plugin in plugins for argument in ("-p", plugin)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests"), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "LONG": ""}
    if mutant is not None:
        environment[hook.VARIABLE] = json.dumps(mutant)
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--corosync=fake", "-q", *tests],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=_BOUND,
    )
