"""The lines at the head of a test run that say what it runs against."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from ._options import Mode

if TYPE_CHECKING:
    from triocoro._corosync._libraries import Library


def lines(mode: Mode) -> list[str]:
    """What the clusters are, and what they are made of."""
    if mode == "fake":
        return ["corosync: fake"]
    return [f"corosync: real, {_daemon()}, as {_privileges()}", f"corosync libraries: {_libraries()}"]


def _daemon() -> str:
    from triocoro.testing._netns import requirements

    program = requirements.find_program("corosync")
    if program is None:
        return "not installed"
    try:
        output = requirements.describe_corosync(program)
    except OSError as error:
        return f"{program} (cannot be executed: {error.strerror})"
    except subprocess.TimeoutExpired as error:
        return f"{program} (does not tell its version within {error.timeout:g} seconds)"
    found = re.search(r"version '([^']*)'", output)
    return f"{program} {found[1] if found else '(unknown version)'}"


def _privileges() -> str:
    uid = os.geteuid()
    if uid == 0:
        return "root"
    try:
        name = f"{pwd.getpwuid(uid).pw_name} ({uid})"
    except KeyError:  # as in many a container
        name = str(uid)
    return f"user {name} in a user namespace"


def _libraries() -> str:
    """The files that the loader finds, by folders: versions of Corosync share file names, which end in the ABI's."""
    try:
        from triocoro._corosync._libraries import LIBRARIES
    except ImportError:
        return "none, since triocoro's extension module cannot be loaded"
    folders: dict[str, list[str]] = {}
    for library in LIBRARIES:
        folder, name = _found(library)
        folders.setdefault(folder, []).append(name)
    return "; ".join(", ".join(names) + (folder and f" in {folder}") for folder, names in folders.items())


def _found(library: Library) -> tuple[str, str]:
    """The folder and the name of the file that the loader finds for a library; no folder where it finds none."""
    from triocoro import CorosyncUnavailableError

    try:
        library.load()
    except CorosyncUnavailableError:
        return "", f"no {library.soname}"
    mapped = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    found = re.search(rf" (/.*)/({re.escape(library.soname)}[\d.]*)$", mapped, re.MULTILINE)
    return (found[1], found[2]) if found else ("", library.soname)
