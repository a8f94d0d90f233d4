"""What the source distribution and the wheel hold. `make package` builds the files of a release, and installs them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[2]
CC = str(sysconfig.get_config_var("CC") or "cc").split()[0]
HEADER = Path(sysconfig.get_path("include"), "Python.h")
GENERATED = {"PKG-INFO", "setup.cfg"}
"""Files that setuptools puts into a source distribution, beside a folder *.egg-info."""


def sources() -> set[str]:
    """The project's files, as git knows them, or the source distribution that we are in."""
    if (ROOT / ".git").exists():
        # The clone may belong to another user, as it does where a CI runner made it.
        git = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        output = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
        return {name for name in output.split("\0") if name and (ROOT / name).is_file()}
    return project_files((ROOT / "triocoro.egg-info/SOURCES.txt").read_text(encoding="utf-8").splitlines())


def project_files(names: list[str]) -> set[str]:
    """Without what setuptools generates."""
    return {name for name in names if name not in GENERATED and not name.startswith("triocoro.egg-info/")}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the project's files, since a build writes into its tree."""
    folder = tmp_path / "source"
    for name in sources():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


def run(command: list[str], **environment: str) -> None:
    result = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=300
    )
    assert result.returncode == 0, result.stderr


def build_wheel(source: Path, **environment: str) -> Path:
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps"]
    run([*pip, f"--wheel-dir={source.parent}", str(source)], **environment)
    (wheel,) = source.parent.glob("*.whl")
    return wheel


def test_the_source_distribution_holds_all_that_git_does(copy: Path) -> None:
    """The tests run from it, as distributions of Linux do."""
    # What git ignores, and a clone has.
    (copy / "triocoro/_corosync/_shim.c").touch()
    (copy / "triocoro/_corosync/_shim.abi3.so").touch()
    (copy / "tests/support/__pycache__").mkdir()
    (copy / "tests/support/__pycache__/groups.cpython-311.pyc").touch()
    build = "from setuptools.build_meta import build_sdist; import sys; build_sdist(sys.argv[1])"
    run(["env", f"--chdir={copy}", sys.executable, "-c", build, str(copy.parent)])
    (archive,) = copy.parent.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = [str(PurePosixPath(*PurePosixPath(member.name).parts[1:])) for member in opened if member.isfile()]
    assert project_files(names) == sources()


def test_wheel(copy: Path, tmp_path: Path) -> None:
    """One wheel for all versions of Python from 3.10 on, linked against nothing of Corosync, with its types."""
    if sys.version_info >= (3, 15):
        pytest.skip("from 3.15 on, modules for all versions have another suffix: releases are built with Python 3.10")
    if shutil.which(CC) is None or not HEADER.exists():
        pytest.skip(f"there is no {CC}, or no {HEADER}: only the fake's wheel can be built here")
    wheel = build_wheel(copy)
    name, _, python_tag, abi_tag, platform = wheel.stem.split("-")
    assert (name, python_tag, abi_tag) == ("triocoro", "cp310", "abi3")
    assert "linux" in platform
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extract("triocoro/_corosync/_shim.abi3.so", tmp_path)
    assert {"triocoro/py.typed", "pytest_corosync/py.typed", "triocoro/_corosync/_shim.pyi"} <= names
    assert {path.partition("/")[0].partition("-")[0] for path in names} == {"triocoro", "pytest_corosync"}
    (manual,) = {path for path in names if ".data/" in path}
    assert re.fullmatch(r"triocoro-[^/]+\.data/data/share/man/man1/triocoro\.1", manual)
    modules = {path for path in names - {manual} if ".dist-info/" not in path}
    assert {PurePosixPath(path).suffix for path in modules} == {".py", ".pyi", ".so", ".typed", ".html", ".css", ".js"}
    assert {f"triocoro/testing/_timeline/page.{suffix}" for suffix in ("html", "css", "js")} <= modules

    needed = subprocess.run(
        ["objdump", "-p", str(tmp_path / "triocoro/_corosync/_shim.abi3.so")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    libraries = {line.split()[1] for line in needed.splitlines() if line.split()[:1] == ["NEEDED"]}
    assert {library.partition(".")[0] for library in libraries} <= {"libc", "libpthread", "libdl"}


def test_without_a_compiler_there_is_a_wheel_of_the_fake(copy: Path) -> None:
    wheel = build_wheel(copy, CC="/no/compiler")
    assert wheel.stem.endswith("-py3-none-any")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert not [name for name in names if name.endswith((".so", ".c", ".h"))]
    assert {"triocoro/testing/_fake/cluster.py", "pytest_corosync/plugin.py"} <= names


@pytest.mark.parametrize("workflow", ["ci", "release"])
def test_the_workflows_test_each_supported_python(workflow: str) -> None:
    classifiers = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    supported = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', classifiers)
    text = (ROOT / f".github/workflows/{workflow}.yml").read_text(encoding="utf-8")
    (matrix,) = re.findall(r"^ +python: \[(.*)\]$", text, re.MULTILINE)
    assert re.findall(r'"(.*?)"', matrix) == supported
