"""The project as a whole: what importing needs, what the wheel holds, and what is documented."""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent.parent

CC = str(sysconfig.get_config_var("CC") or "cc").split()[0]
HEADER = Path(sysconfig.get_path("include"), "Python.h")

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
    assert "install" in message


@pytest.mark.parametrize("name", ["triocoro", "triocoro.testing", "triocoro.lowlevel"])
def test_import_brings_no_corosync(name: str) -> None:
    python(f"import sys, {name}\nassert not [m for m in sys.modules if m.startswith('triocoro._corosync')]")


def test_plugin_brings_no_triocoro() -> None:
    """pytest loads the plugin in every project where triocoro is installed: it must be cheap there."""
    python("import sys, pytest_corosync.plugin\nassert not {'trio', 'triocoro', 'cffi'} & set(sys.modules)")


def build_wheel(tmp_path: Path, **environment: str) -> Path:
    source = tmp_path / "source"
    # A copy of what git would give, since a build writes into its tree.
    files = subprocess.run(
        # The clone may belong to another user, as it does where a CI runner made it.
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, files.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps", "--wheel-dir"]
    result = subprocess.run(
        [*pip, str(tmp_path), str(source)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    (wheel,) = tmp_path.glob("*.whl")
    return wheel


def test_wheel(tmp_path: Path) -> None:
    """One wheel for all versions of Python from 3.10 on, linked against nothing of Corosync, with its types."""
    if sys.version_info >= (3, 15):
        pytest.skip("from 3.15 on, modules for all versions have another suffix: releases are built with Python 3.10")
    if shutil.which(CC) is None or not HEADER.exists():
        pytest.skip(f"there is no {CC}, or no {HEADER}: only the fake's wheel can be built here")
    wheel = build_wheel(tmp_path)
    name, _, python_tag, abi_tag, platform = wheel.stem.split("-")
    assert (name, python_tag, abi_tag) == ("triocoro", "cp310", "abi3")
    assert "linux" in platform
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extract("triocoro/_corosync/_shim.abi3.so", tmp_path)
    assert {"triocoro/py.typed", "pytest_corosync/py.typed", "triocoro/_corosync/_shim.pyi"} <= names
    assert {path.partition("/")[0].partition("-")[0] for path in names} == {"triocoro", "pytest_corosync"}

    needed = subprocess.run(
        ["objdump", "-p", str(tmp_path / "triocoro/_corosync/_shim.abi3.so")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    libraries = {line.split()[1] for line in needed.splitlines() if line.split()[:1] == ["NEEDED"]}
    assert {library.partition(".")[0] for library in libraries} <= {"libc", "libpthread", "libdl"}


def test_without_a_compiler_there_is_a_wheel_of_the_fake(tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path, CC="/no/compiler")
    assert wheel.stem.endswith("-py3-none-any")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert not [name for name in names if name.endswith(".so")]
    assert {"triocoro/testing/_fake/cluster.py", "pytest_corosync/plugin.py"} <= names


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


@pytest.mark.parametrize("environment", [{}, {"CI": "true"}, {"REAL": "required"}], ids=str)
@pytest.mark.parametrize("missing", [[], ["a: do b"], ["a: do b", "c"]], ids=len)
def test_a_real_suite_that_cannot_run_is_no_silent_skip(
    tmp_path: Path, missing: list[str], environment: dict[str, str]
) -> None:
    log = tmp_path / "parts"
    for name, script in {
        "make": f'for last; do :; done; echo "$last" >> {log}',
        "python": "\n".join(f"echo '{line}'" for line in missing),
    }.items():
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        program.chmod(0o755)
    clean = {name: value for name, value in os.environ.items() if name not in ("CI", "REAL")}
    result = subprocess.run(
        [ROOT / "tools" / "test.sh"],
        env={**clean, "MAKE": str(tmp_path / "make"), "BIN": str(tmp_path), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert log.read_text(encoding="utf-8").split() == (["lint", "fake"] if missing else ["lint", "fake", "real"])
    failed = bool(missing and environment)
    assert result.returncode == (1 if failed else 0)
    assert ("make test: failed: real\n" in result.stderr) == failed
    last = result.stderr.splitlines()[-1:]
    assert last == ([f"make test: the real suite was NOT RUN: {'; '.join(missing)}"] if missing else [])
