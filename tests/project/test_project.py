"""The project as a whole: what importing needs, and what is documented."""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent.parent

WITHOUT_EXTENSION = """
import sys

BLOCKED = {"triocoro._corosync._shim", "_cffi_backend", "cffi", "cffi.api"}

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name in BLOCKED:
            raise ImportError(f"{name} is not here", name=name)

sys.meta_path.insert(0, Blocker())
"""

USE_THE_FAKE = """
import trio
import triocoro, triocoro.lowlevel, triocoro.testing

async def main():
    async with triocoro.testing.FakeCluster(nodes=3) as cluster:
        async with triocoro.open_group("chat", endpoint=cluster[1].endpoint) as group:
            message = await group.send_and_wait(b"hello")
            assert message == triocoro.Message(group.address, b"hello")
        async with triocoro.open_votequorum(endpoint=cluster[2].endpoint) as votequorum:
            assert (await votequorum.info()).total_votes == 3

trio.run(main)
assert not BLOCKED & set(sys.modules)
"""

USE_THE_REAL = """
import trio
import triocoro

async def main():
    try:
        async with triocoro.open_cpg():
            raise AssertionError
    except triocoro.CorosyncUnavailableError as exc:
        print(exc)

trio.run(main)
"""


def python(code: str) -> str:
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return result.stdout


def test_fake_needs_no_extension() -> None:
    python(WITHOUT_EXTENSION + USE_THE_FAKE)


def test_without_extension_a_real_connection_is_a_clear_error() -> None:
    message = python(WITHOUT_EXTENSION + USE_THE_REAL)
    assert "extension module" in message
    assert "install a wheel for this platform; or a C compiler and Python's headers" in message


@pytest.mark.parametrize("name", ["triocoro", "triocoro.testing", "triocoro.lowlevel", "triocoro.recipes"])
def test_import_brings_no_corosync(name: str) -> None:
    python(f"import sys, {name}\nassert not [m for m in sys.modules if m.startswith('triocoro._corosync')]")


def test_plugin_brings_no_triocoro() -> None:
    """pytest loads the plugin in every project where triocoro is installed: it must be cheap there."""
    python("import sys, pytest_corosync.plugin\nassert not {'trio', 'triocoro', 'cffi'} & set(sys.modules)")


def public_modules() -> list[ModuleType]:
    found: list[ModuleType] = []
    for package in ("triocoro", "pytest_corosync"):
        module = importlib.import_module(package)
        found.append(module)
        found += [
            importlib.import_module(info.name)
            for info in pkgutil.walk_packages(module.__path__, f"{package}.")
            if not any(part.startswith("_") for part in info.name.split("."))
        ]
    return found


def undocumented(owner: str, thing: object) -> list[str]:
    """The public names in `thing`, itself included, that have no docstring."""
    found = [] if inspect.getdoc(thing) else [owner]
    if inspect.isclass(thing) and not issubclass(thing, BaseException):
        # Each is looked up in the class, so that what implements a documented protocol inherits its docstring.
        found += [
            f"{owner}.{name}"
            for name, member in vars(thing).items()
            if not name.startswith("_")
            and (isinstance(member, property | staticmethod | classmethod) or inspect.isfunction(member))
            and not inspect.getdoc(getattr(thing, name))
        ]
    return found


@pytest.mark.parametrize("module", public_modules(), ids=lambda module: module.__name__)
def test_public_names_are_documented(module: ModuleType) -> None:
    assert module.__doc__
    missing: list[str] = []
    for name, value in vars(module).items():
        if name.startswith("_") or inspect.ismodule(value):
            continue
        ours = getattr(value, "__module__", "").partition(".")[0] in ("triocoro", "pytest_corosync")
        if ours and (inspect.isclass(value) or inspect.isfunction(value)):
            missing += undocumented(f"{module.__name__}.{name}", value)
    assert not missing


def run_make_test(folder: Path, make: str, python: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `make test` with these shell scripts in place of make and Python."""
    for name, script in {"make": make, "python": python}.items():
        program = folder / name
        program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        program.chmod(0o755)
    clean = {name: value for name, value in os.environ.items() if name not in ("CI", "REAL")}
    return subprocess.run(
        [ROOT / "tools" / "test.sh"],
        env={**clean, "MAKE": str(folder / "make"), "BIN": str(folder), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("environment", [{}, {"CI": "true"}, {"REAL": "required"}], ids=str)
@pytest.mark.parametrize("missing", [[], ["a: do b"], ["a: do b", "c"]], ids=len)
def test_a_real_suite_that_cannot_run_is_no_silent_skip(
    tmp_path: Path, missing: list[str], environment: dict[str, str]
) -> None:
    log = tmp_path / "parts"
    make = f'for last; do :; done; echo "$last" >> {log}'
    result = run_make_test(tmp_path, make, "\n".join(f"echo '{line}'" for line in missing), **environment)
    first, *others = log.read_text(encoding="utf-8").split()
    assert (first, sorted(others)) == ("fake", ["lint"] if missing else ["lint", "real"])
    failed = bool(missing and environment)
    assert result.returncode == (1 if failed else 0)
    assert ("make test: failed: real\n" in result.stderr) == failed
    last = result.stderr.splitlines()[-1:]
    assert last == ([f"make test: the real suite was NOT RUN: {'; '.join(missing)}"] if missing else [])


@pytest.mark.parametrize("part", ["lint", "fake", "real"])
def test_a_part_that_fails_does_not_hide_the_others(tmp_path: Path, part: str) -> None:
    result = run_make_test(tmp_path, f'for last; do :; done; echo "what $last says"; [ "$last" != {part} ]', "")
    assert sorted(result.stdout.splitlines()) == ["what fake says", "what lint says", "what real says"]
    assert result.stderr == f"make test: failed: {part}\n"
    assert result.returncode == 1
