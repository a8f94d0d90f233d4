"""The installed Corosync in a few words: its daemon, and its client libraries."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from ..._errors import CorosyncUnavailableError
from . import requirements

if TYPE_CHECKING:
    from ..._corosync._libraries import Library


def describe_daemon() -> str:
    """The path and the version of the daemon that a `NetnsCluster` would run, or why there is none.

    An example is "/usr/sbin/corosync 3.1.7".
    """
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


def describe_libraries() -> str:
    """The files of Corosync's client libraries that the loader finds, or which are missing.

    An example is "libcpg.so.4.1.0, libcmap.so.4.1.0 in /usr/lib/x86_64-linux-gnu". File names are all there is: the
    libraries do not tell their version, and several versions of Corosync share a file name.
    """
    try:
        from ..._corosync._libraries import LIBRARIES
    except ImportError:
        return "none, since triocoro's extension module cannot be loaded"
    folders: dict[str, list[str]] = {}
    for library in LIBRARIES:
        folder, name = _found(library)
        folders.setdefault(folder, []).append(name)
    return "; ".join(", ".join(names) + (folder and f" in {folder}") for folder, names in folders.items())


def _found(library: Library) -> tuple[str, str]:
    """The folder and the name of the file that the loader finds for a library; no folder if it finds none."""
    try:
        library.load()
    except CorosyncUnavailableError:
        return "", f"no {library.soname}"
    mapped = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    found = re.search(rf" (/.*)/({re.escape(library.soname)}[\d.]*)$", mapped, re.MULTILINE)
    return (found[1], found[2]) if found else ("", library.soname)
