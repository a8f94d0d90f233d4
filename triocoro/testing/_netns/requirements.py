"""The programs, permissions and libraries that a real cluster needs, and which of them are missing here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import attrs

from ..._errors import CorosyncUnavailableError
from ..._problem import Problem, ProblemKind

_SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")
_PACKAGES = {
    "corosync": "corosync",
    "ip": "iproute2 (Fedora, RHEL: iproute)",
    "nft": "nftables",
    "unshare": "util-linux",
}
# What programs print that do not know an option of theirs, or that are commands of a program for many.
_OPTION_UNKNOWN = re.compile(r"unrecognized option|invalid option|applet not found|BusyBox|Usage:")
_DEVICES = "link add probe0 type bridge\nlink add probe1 type veth peer name probe2\n"
_SHARED_MEMORY = "/dev/shm"

_EXCERPT = 100
"""Characters of a program's complaint to show."""

_DESCRIBE_LIMIT = 10.0
"""Seconds that `corosync -v` may take."""

_SYSCTL = Path("/proc/sys")
# The limits of namespaces for each user.
_LIMITS = ("user.max_net_namespaces", "user.max_mnt_namespaces", "user.max_pid_namespaces")
_LIMIT_REACHED = "No space left on device"
"""What the kernel says then."""
_LIMIT_FOR_USERS = "user.max_user_namespaces"  # root makes none of that kind
_ENOUGH = 10000
# Settings that can forbid namespaces to ordinary users: the value that forbids, and the one that allows.
_SWITCHES = (
    ("kernel.unprivileged_userns_clone", "0", "1"),  # Debian's kernels
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),  # Ubuntu's
)


@attrs.frozen
class Programs:
    """The programs that a cluster runs; absolute, and without symbolic links, as nodes do not see the host's /run."""

    corosync: str
    ip: str
    nft: str
    unshare: str

    def in_namespaces(self, *command: str) -> list[str]:
        """The command that runs another one as root, and pid 1, of new namespaces."""
        user = () if os.geteuid() == 0 else ("--user", "--map-root-user")
        kinds = ("--net", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child")
        return [self.unshare, *user, *kinds, "--", *command]

    def enforces_encryption(self) -> bool:
        """Whether the daemon refuses to run without encryption, which is decided when it is built."""
        try:
            return "enforce_encryption" in describe_corosync(self.corosync).split()
        except (OSError, subprocess.TimeoutExpired):
            return False  # starting it will say why

    def lock_folder(self) -> Path | None:
        """The folder of the daemon's lock file, which is compiled in; `None` if it is below /run, as it mostly is."""
        found = re.search(rb"(/[\x20-\x7e]*)/corosync\.pid\0", Path(self.corosync).read_bytes())
        if found is None:
            return None
        folder = Path(os.fsdecode(found[1])).resolve()
        return None if folder.is_relative_to("/run") else folder

    def private_directories(self) -> list[str]:
        """The directories of which each node needs one of its own."""
        folder = self.lock_folder()
        if folder is not None and not folder.is_dir():
            raise unavailable("no real Corosync cluster can be started")
        return ["/run", _SHARED_MEMORY, *([] if folder is None else [str(folder)])]


def entering(pid: int, *command: str) -> list[str]:
    """The command that runs another one in the namespaces of a node's process, as root of the node."""
    user = () if os.geteuid() == 0 else ("--user", "--preserve-credentials")
    return ["nsenter", "--target", str(pid), *user, "--net", "--mount", "--", *command]


def find_program(name: str) -> str | None:
    """Look for a program on PATH and in the sbin folders, which an ordinary user's PATH lacks."""
    found = shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", os.defpath), *_SBIN)))
    return None if found is None else os.path.realpath(found)


def find_programs() -> Programs:
    """Look for all programs, and raise `CorosyncUnavailableError` if one is missing."""
    found = [find_program(name) for name in _PACKAGES]
    paths = [path for path in found if path is not None]
    if len(paths) < len(found):
        raise unavailable("no real Corosync cluster can be started")
    return Programs(*paths)


def missing_requirements() -> list[str]:
    """What this machine lacks to run real clusters, each with what to do about it; empty if nothing."""
    return [str(problem) for problem in find_problems()]


def find_problems() -> list[Problem]:
    """What this machine lacks to run real clusters."""
    absent = [
        Problem(
            "no-program",
            f"the program {name} is neither on PATH nor in {', '.join(_SBIN)}",
            f"install the package {package}",
        )
        for name, package in _PACKAGES.items()
        if find_program(name) is None
    ]
    if absent:
        return [*absent, *_missing_client()]
    programs = find_programs()
    return [*_missing_folder(programs), *_missing_permissions(programs), *_missing_client()]


def unavailable(symptom: str) -> CorosyncUnavailableError:
    """The error for a cluster that cannot be started, with what is missing."""
    # Looking takes longer than trying, so this is done only when something has failed.
    problems = find_problems()
    if not problems and _LIMIT_REACHED in symptom:
        # What has failed has given its namespaces back by now, so there is room for others again.
        problems = [_no_namespaces(_LIMIT_REACHED)]
    return CorosyncUnavailableError("\n".join([symptom, *(f"- {problem}" for problem in problems)]))


def describe_corosync(program: str) -> str:
    """Return the text that the daemon prints about its version and its build.

    Raises:
        OSError: the daemon cannot be executed.
        subprocess.TimeoutExpired: it prints nothing.
    """
    command = [program, "-v"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=_DESCRIBE_LIMIT).stdout


def _missing_folder(programs: Programs) -> list[Problem]:
    folder = programs.lock_folder()
    if folder is None or folder.is_dir():
        return []
    reason = f"the folder {folder}, where {programs.corosync} keeps its lock file, is not there"
    return [Problem("no-folder", reason, command=f"mkdir -p {folder}")]


def _missing_permissions(programs: Programs) -> list[Problem]:
    """Try to create the namespaces and devices that a cluster needs."""
    command = programs.in_namespaces(programs.ip, "-batch", "-")
    english = {**os.environ, "LC_ALL": "C"}
    try:
        result = subprocess.run(
            command, input=_DEVICES, env=english, capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return [Problem("other", f"namespaces cannot be created: {error}")]
    if result.returncode == 0:
        return []
    reason = " ".join(result.stderr.split())
    if _OPTION_UNKNOWN.search(reason):
        # The first one runs the second.
        name = "ip" if _knows_its_options(programs) else "unshare"
        lacking = f"{getattr(programs, name)} does not know all options that a cluster needs, as old ones and BusyBox's"
        remedy = f"install the package {_PACKAGES[name]}, so that its {name} comes first on PATH"
        return [Problem("no-program", f"{lacking} ({reason[:_EXCERPT]})", remedy)]
    if "unshare" in reason:
        return [_no_namespaces(reason)]
    kind, remedy = _remedy(reason, root=os.geteuid() == 0)
    return [Problem(kind, f"the kernel makes no bridge or veth devices ({reason})", remedy)]


def _no_namespaces(reason: str) -> Problem:
    kind, remedy = _remedy(reason, root=os.geteuid() == 0)
    return Problem(kind, f"namespaces cannot be created ({reason})", remedy)


def _knows_its_options(programs: Programs) -> bool:
    """Whether this unshare knows the options that `Programs.in_namespaces` gives it; it may still lack permissions."""
    command = programs.in_namespaces("true")
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return not _OPTION_UNKNOWN.search(result.stderr)


def _remedy(reason: str, *, root: bool) -> tuple[ProblemKind, str]:
    """What it means that the kernel refuses namespaces or devices, and what to do about it."""
    if _LIMIT_REACHED in reason:
        return _remedy_for_limits(root=root)
    if "unshare" not in reason and re.search("not permitted|denied", reason) is None:
        return "no-devices", "modprobe bridge veth"
    if root:
        return "no-capability", "give this container CAP_SYS_ADMIN and CAP_NET_ADMIN (docker run --privileged)"
    found = [
        f"{name} is {forbidding}, which forbids it: sysctl {name}={allowing}"
        for name, forbidding, allowing in _SWITCHES
        if _sysctl(name) == forbidding
    ]
    if found:
        return "user-namespaces-forbidden", "; ".join(found) + "; or run as root"
    names = ", ".join(name for name, _, _ in _SWITCHES)
    return (
        "user-namespaces-forbidden",
        f"run as root, or allow it; it is not {names}, but may be a container's seccomp filter or a security module",
    )


def _remedy_for_limits(*, root: bool) -> tuple[ProblemKind, str]:
    """What to do when a limit of namespaces is reached."""
    limits = _LIMITS if root else (*_LIMITS, _LIMIT_FOR_USERS)
    values = {name: int(_sysctl(name) or _ENOUGH) for name in limits}
    # The kernel does not show how much of a limit is used.
    found = [
        f"{name} is {value}, which {'may be too low' if value else 'forbids it'}: sysctl {name}={_ENOUGH}"
        + ("; or run as root" if name == _LIMIT_FOR_USERS else "")
        for name, value in values.items()
        if value < _ENOUGH
    ]
    remedy = "; ".join(found) or f"there are too many; see sysctl {' '.join(limits)}, also outside of a container"
    return "namespace-limit" if values.get(_LIMIT_FOR_USERS) != 0 else "user-namespaces-forbidden", remedy


def _sysctl(name: str) -> str | None:
    """The value of a setting; `None` where the kernel has no such setting."""
    try:
        return (_SYSCTL / name.replace(".", "/")).read_text(encoding="ascii").strip()
    except OSError:
        return None


def _missing_client() -> list[Problem]:
    """Look for our own extension module, and for the libraries that it loads."""
    try:
        from ..._corosync import _libraries
    except ImportError as error:
        from ..._corosync._endpoint import no_extension

        return [no_extension(error)]
    reasons = {library: library.try_to_load() for library in _libraries.LIBRARIES}
    absent = {library: reason for library, reason in reasons.items() if reason is not None}
    return [_libraries.absence(list(absent), next(iter(absent.values())))] if absent else []
