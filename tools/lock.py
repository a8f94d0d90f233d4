#!/usr/bin/env python3
"""Pin the packages that development needs: resolve pyproject.toml with pip, and write tools/constraints.txt.

    make lock, or: tools/lock.py PYTHON...

Each PYTHON is an interpreter of a version that the project supports; the script itself needs 3.11 or later. Where these
versions get different releases of a package, its lines have markers.
"""

import json
import re
import subprocess
import sys
import tempfile
from itertools import groupby
from pathlib import Path

import tomllib

PROJECT = Path(__file__).resolve().parents[1]
CONSTRAINTS = PROJECT / "tools" / "constraints.txt"
HEADER = "# Written by `make lock`, which is how newer releases come in (CONTRIBUTING.md).\n"


def requirements() -> list[str]:
    """The requirements to build, run and check the project, as pyproject.toml states them."""
    settings = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    project = settings["project"]
    extras = [name for extra in project["optional-dependencies"].values() for name in extra]
    return [*settings["build-system"]["requires"], *project["dependencies"], *extras]


def resolve(python: str) -> dict[str, str]:
    """The release of each package, by its normalized name, that pip would install for this interpreter."""
    with tempfile.TemporaryDirectory() as target:  # Debian's pip wants one, though nothing is installed
        command = [python, "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed", f"--target={target}"]
        command += ["--disable-pip-version-check", "--only-binary=:all:", "--report=-", *requirements()]
        report = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    releases = (package["metadata"] for package in report["install"])
    return {re.sub(r"[-_.]+", "-", release["name"]).lower(): release["version"] for release in releases}


def version(python: str) -> tuple[int, int]:
    """The interpreter's version, such as (3, 10)."""
    code = "import sys; print(*sys.version_info[:2])"
    major, minor = subprocess.run([python, "-c", code], stdout=subprocess.PIPE, check=True).stdout.split()
    return int(major), int(minor)


def constraints(resolved: dict[tuple[int, int], dict[str, str]]) -> list[str]:
    """A line for each package, or several with markers if not all versions of Python get the same release."""
    lines: list[str] = []
    for name in sorted({name for releases in resolved.values() for name in releases}):
        having = [(python, resolved[python][name]) for python in sorted(resolved) if name in resolved[python]]
        runs = [(release, [python for python, _ in run]) for release, run in groupby(having, key=lambda pair: pair[1])]
        for i, (release, _) in enumerate(runs):
            bounds: list[str] = []
            if i > 0:
                bounds.append('python_version >= "{}.{}"'.format(*runs[i][1][0]))
            if i + 1 < len(runs):
                bounds.append('python_version < "{}.{}"'.format(*runs[i + 1][1][0]))
            lines.append(f"{name}=={release}" + (" ; " + " and ".join(bounds) if bounds else ""))
    return lines


def main(pythons: list[str]) -> None:
    """Resolve for each interpreter, and write the file."""
    if not pythons:
        sys.exit("lock: give the interpreters to resolve for")
    resolved: dict[tuple[int, int], dict[str, str]] = {}
    for python in pythons:
        key = version(python)
        print(f"lock: resolving for Python {key[0]}.{key[1]}")
        resolved[key] = resolve(python)
    CONSTRAINTS.write_text(HEADER + "".join(f"{line}\n" for line in constraints(resolved)))
    print(f"lock: wrote {CONSTRAINTS.relative_to(PROJECT)}: see what has changed with git diff, and run make test")


if __name__ == "__main__":
    main(sys.argv[1:])
