"""The lines at the head of a test run that say what it runs against."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ._options import Mode

_LIMIT: Final = 10.0
"""Seconds that `corosync -v` may take."""


def lines(mode: Mode) -> list[str]:
    """What the clusters are, and what they are made of."""
    if mode == "fake":
        return ["corosync: fake"]
    return [f"corosync: real, {_daemon()}, as {_privileges()}", f"corosync libraries: {', '.join(_libraries())}"]


def _daemon() -> str:
    from triocoro.testing._netns import requirements

    program = requirements.find_program("corosync")
    if program is None:
        return "not installed"
    try:
        output = subprocess.run([program, "-v"], capture_output=True, text=True, check=False, timeout=_LIMIT).stdout
    except OSError as error:
        return f"{program} (cannot be executed: {error.strerror})"
    except subprocess.TimeoutExpired:
        return f"{program} (does not tell its version within {_LIMIT:g} seconds)"
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


def _libraries() -> Iterator[str]:
    """The names of the files that the loader finds; they end in the versions."""
    from triocoro import CorosyncUnavailableError

    try:
        from triocoro._corosync._libraries import LIBRARIES
    except ImportError:
        yield "none, since triocoro's extension module cannot be loaded"
        return
    for library in LIBRARIES:
        try:
            library.load()
        except CorosyncUnavailableError:
            yield f"no {library.soname}"
        else:
            mapped = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
            found = re.search(rf"/({re.escape(library.soname)}[\d.]*)$", mapped, re.MULTILINE)
            yield found[1] if found else library.soname
