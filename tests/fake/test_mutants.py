"""Mutation tests: each deliberate defect of the fake is found by a history checker or by a test of the suite.

docs/conformance.md says how to add one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from mutants import caught_by_checkers, caught_by_suite, hook
from mutants.mutant import Mutant
from support.fixtures.long import long

from triocoro.testing import FakeCluster, History, Rule, Violation, check

pytestmark = pytest.mark.corosync_fake_only(reason="a real Corosync cannot be mutated")

_ROOT = Path(__file__).parent.parent.parent
_SEED = 1
"""The seed of the recorded runs; any other works too."""
_BOUND = 60
"""Seconds for a process that takes at most two on an idle machine."""

_BY_CHECKERS = caught_by_checkers.MUTANTS
_BY_SUITE = caught_by_suite.MUTANTS
_EVERY = 4
"""One of so many mutants is looked at always, the others by `make long`."""
_CLUSTERS = {json.dumps(mutant.cluster): mutant.cluster for mutant in _BY_CHECKERS.values()}


def names(mutants: Iterable[str]) -> list[Any]:
    """The names of mutants, most of them marked as long."""
    return [each for number, name in enumerate(mutants) for each in (long(name) if number % _EVERY else [name])]


def python(mutant: Mutant | None, *args: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a new process, with the mutant if there is one."""
    # Other plugins of pytest take more time to load than a test does.
    environment = {**os.environ, "PYTHONPATH": str(_ROOT / "tests"), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "LONG": ""}
    if mutant is not None:
        environment[hook.VARIABLE] = json.dumps([mutant.full_module, mutant.old, mutant.new])
    return subprocess.run(
        [sys.executable, *args], cwd=_ROOT, env=environment, capture_output=True, text=True, check=False, timeout=_BOUND
    )


def recorded(mutant: Mutant | None, cluster: Mapping[str, Any]) -> list[Violation]:
    """Record a chaos run on a cluster and return the violations that the checkers find."""
    result = python(mutant, "-m", "mutants.record", json.dumps(cluster), str(_SEED))
    assert result.returncode == 0, result.stderr
    return check(History.from_json_lines(result.stdout), options=FakeCluster(**cluster).options)


def run_pytest(mutant: Mutant | None, *tests: str) -> subprocess.CompletedProcess[str]:
    """Run tests on the fake in a new process, with the mutant if there is one."""
    plugins = ["pytest_trio.plugin", "pytest_corosync.plugin", "mutants.hook", "no:cacheprovider"]
    options = [argument for plugin in plugins for argument in ("-p", plugin)]
    return python(mutant, "-m", "pytest", *options, "--corosync=fake", "-q", *tests)


@pytest.mark.parametrize("name", names(_BY_CHECKERS))
def test_the_checkers_find_it(name: str) -> None:
    mutant = _BY_CHECKERS[name]
    assert mutant.caught_by in {violation.rule for violation in recorded(mutant, mutant.cluster)}


@pytest.mark.parametrize("name", names(_BY_SUITE))
def test_the_suite_finds_it(name: str) -> None:
    mutant = _BY_SUITE[name]
    result = run_pytest(mutant, str(mutant.caught_by))
    # Exit codes 2 to 5 would mean that the test did not run.
    assert result.returncode == 1, result.stdout + result.stderr
    assert f"FAILED {mutant.caught_by}" in result.stdout


@pytest.mark.parametrize("cluster", _CLUSTERS.values(), ids=_CLUSTERS)
def test_nothing_is_wrong_with_a_recording_of(cluster: Mapping[str, Any]) -> None:
    assert recorded(None, cluster) == []


def test_the_tests_pass_with_the_fake() -> None:
    result = run_pytest(None, *sorted({str(mutant.caught_by) for mutant in _BY_SUITE.values()}))
    assert result.returncode == 0, result.stdout + result.stderr


def test_nothing_is_wrong_with_a_mutant_in_name_only() -> None:
    """Replacing a module at import time is not what makes the mutants fail."""
    mutant = Mutant("Nothing.", "exec.cpg", "The CPG service of one daemon", "The CPG service of a daemon", "")
    assert recorded(mutant, mutant.cluster) == []


@pytest.mark.parametrize("mutant", [*_BY_CHECKERS.values(), *_BY_SUITE.values()], ids=[*_BY_CHECKERS, *_BY_SUITE])
def test_each_mutant_finds_its_text_in_its_module(mutant: Mutant) -> None:
    """A change of the fake must be followed by its mutants."""
    spec = find_spec(mutant.full_module)
    assert spec is not None
    assert spec.origin is not None
    mutated = hook.mutated(Path(spec.origin).read_text(encoding="utf-8"), mutant.old, mutant.new)
    compile(mutated, mutant.full_module, "exec")


@pytest.mark.parametrize("old", ["class", "no such text"], ids=["it is there too often", "it is not there"])
def test_a_mutant_that_does_not_fit_is_an_error(old: str) -> None:
    mutant = Mutant("It does not fit.", "exec.cpg", old, "", Rule.FIFO)
    result = python(mutant, "-m", "mutants.record", json.dumps(mutant.cluster), str(_SEED))
    assert result.returncode == 1
    assert "the text of a mutant must be in its module once" in result.stderr


def test_there_are_enough_of_them_for_each_rule() -> None:
    """SELF_DELIVERY has no mutant: the SDK reports an own message that is not delivered as lost.

    LINEARIZABILITY is about applications.
    """
    expected = {*Rule} - {Rule.SELF_DELIVERY, Rule.LINEARIZABILITY}
    assert {mutant.caught_by for mutant in _BY_CHECKERS.values()} == expected
    assert not set(_BY_CHECKERS) & set(_BY_SUITE)
    assert len(_BY_CHECKERS) >= 10
    assert len(_BY_CHECKERS) + len(_BY_SUITE) >= 20
