"""What a real cluster needs of this machine, and what of it is missing."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess

import attrs

from ..._errors import CorosyncUnavailableError

_SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")
_PACKAGES = {"corosync": "corosync", "ip": "iproute2 (or iproute)", "unshare": "util-linux"}
_BRIDGE = "link add probe0 type bridge\nlink add probe1 type veth peer name probe2\n"


@attrs.frozen
class Programs:
    """The programs that a cluster runs, as absolute paths with symbolic links followed: parts of /run get hidden."""

    corosync: str
    ip: str
    unshare: str

    def namespaces(self, *kinds: str) -> list[str]:
        """The command that runs another one in new namespaces, as root or, in a user namespace, as who we are."""
        user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        return [self.unshare, *user, *kinds, "--propagation", "private", "--"]

    def private_directories(self) -> list[str]:
        """What each node needs to itself. Where the daemon keeps its lock is compiled in."""
        directories = ["/run", "/dev/shm"]
        with open(self.corosync, "rb") as file:
            found = re.search(rb"(/[\x20-\x7e]*)/corosync\.pid\0", file.read())
        if found is not None:
            lock = os.path.realpath(found[1].decode())
            if os.path.isdir(lock) and not f"{lock}/".startswith("/run/"):
                directories.append(lock)
        return directories


def find_program(name: str) -> str | None:
    """The path of a program on PATH or in the sbin folders, which an ordinary user's PATH lacks."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *_SBIN))
    found = shutil.which(name, path=path)
    return None if found is None else os.path.realpath(found)


def find_programs() -> Programs | None:
    """All programs, or `None` if one is missing."""
    corosync, ip, unshare = (find_program(name) for name in _PACKAGES)
    if corosync is None or ip is None or unshare is None:
        return None
    return Programs(corosync, ip, unshare)


def missing() -> list[str]:
    """What the machine lacks to run real clusters, each with what to do about it; empty if nothing."""
    found = [
        f"the program {name} is neither on PATH nor in {', '.join(_SBIN)}: install the package {package}"
        for name, package in _PACKAGES.items()
        if find_program(name) is None
    ]
    programs = find_programs()
    if programs is not None:
        found += _namespaces(programs)
    return [*found, *_client()]


def _namespaces(programs: Programs) -> list[str]:
    """Try what a cluster does to the kernel."""
    command = [*programs.namespaces("--net", "--mount", "--pid", "--fork", "--kill-child"), programs.ip, "-batch", "-"]
    try:
        result = subprocess.run(
            command, input=_BRIDGE, capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return [f"cannot create namespaces: {error}"]
    if result.returncode == 0:
        return []
    reason = " ".join(result.stderr.split())
    if "unshare" in reason:
        who = "root needs CAP_SYS_ADMIN, which containers drop: docker run --privileged"
        if os.geteuid() != 0:
            who = (
                "allow user namespaces (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone,"
                " kernel.apparmor_restrict_unprivileged_userns), or run as root"
            )
        return [f"no permission to create namespaces ({reason}): {who}"]
    return [f"the kernel has no bridge or veth devices ({reason}): modprobe bridge veth"]


def _client() -> list[str]:
    """Look for our own half, and for the libraries that it loads."""
    try:
        importlib.import_module("triocoro._corosync")
    except ImportError as error:
        return [f"triocoro's extension module is not there ({error}): pip install triocoro, or build it: pip install -e ."]
    return []


def check_client() -> None:
    """Raise `CorosyncUnavailableError` if no client can be had in this process."""
    if _client():
        raise unavailable("")


def unavailable(symptom: str) -> CorosyncUnavailableError:
    """The error that says what is missing."""
    items = missing()
    lines = [symptom] if symptom else []
    if items:
        lines += ["real Corosync clusters need what is missing here:", *(f"- {item}" for item in items)]
    return CorosyncUnavailableError("\n".join(lines))
