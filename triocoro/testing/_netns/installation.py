"""The installed Corosync in a few words: its daemon, and its client libraries."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

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
        found = find_libraries()
    except ImportError:
        return "none, since triocoro's extension module cannot be loaded"
    folders: dict[str, list[str]] = {}
    for soname, path in found.items():
        folder = str(path.parent) if path is not None and path.is_absolute() else ""
        folders.setdefault(folder, []).append(f"no {soname}" if path is None else path.name)
    return "; ".join(", ".join(names) + (folder and f" in {folder}") for folder, names in folders.items())


def find_libraries() -> dict[str, Path | None]:
    """The file that the loader finds for each of Corosync's client libraries; `None` if it finds none.

    Raises:
        ImportError: our extension module cannot be loaded.
    """
    from ..._corosync._libraries import LIBRARIES

    return {library.soname: _file_of(library) for library in LIBRARIES}


def describe_user() -> str:
    """As whom a `NetnsCluster` would run: "root", or an ordinary user.

    An example is "user alice (1000) in a user namespace".
    """
    from ..._corosync._causes import user_name

    uid = os.geteuid()
    if uid == 0:
        return "root"
    name = user_name(uid)
    return f"user {name if name == str(uid) else f'{name} ({uid})'} in a user namespace"


def _file_of(library: Library) -> Path | None:
    if library.try_to_load() is not None:
        return None
    mapped = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    found = re.search(rf" (/.*/{re.escape(library.soname)}[\d.]*)$", mapped, re.MULTILINE)
    return Path(found[1] if found else library.soname)
