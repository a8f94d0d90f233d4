"""The lines at the head of a test run that say which Corosync it uses."""

from __future__ import annotations

import os
import pwd

from ._options import Mode


def lines(mode: Mode) -> list[str]:
    """The kind of clusters and, for real ones, the daemon, its privileges, and the client libraries."""
    if mode == "fake":
        return ["corosync: fake"]
    from triocoro.testing import describe_daemon, describe_libraries

    return [f"corosync: real, {describe_daemon()}, as {_user()}", f"corosync libraries: {describe_libraries()}"]


def _user() -> str:
    uid = os.geteuid()
    if uid == 0:
        return "root"
    try:
        name = f"{pwd.getpwuid(uid).pw_name} ({uid})"
    except KeyError:  # the user has no entry in /etc/passwd, as in many containers
        name = str(uid)
    return f"user {name} in a user namespace"
