"""The lines at the head of a test run that say which Corosync it uses."""

from __future__ import annotations

from ._options import Mode


def lines(mode: Mode) -> list[str]:
    """The kind of clusters and, for real ones, the daemon, its privileges, and the client libraries."""
    if mode == "fake":
        return ["corosync: fake"]
    from triocoro.testing import describe_daemon, describe_libraries, describe_user

    return [f"corosync: real, {describe_daemon()}, as {describe_user()}", f"corosync libraries: {describe_libraries()}"]
