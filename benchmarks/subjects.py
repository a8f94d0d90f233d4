"""The programs that are measured: how they are built, and the commands that run them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

from .workloads import GROUP, OURS, TRIO, C, Workload

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parent
BUILD: Final = ROOT / "build" / "bench"
"""Where the C program, trees of other commits and results go."""

_GIT: Final = ("git", "-c", "safe.directory=*")
"""The clone may belong to another user, as those that test runners make do."""


class CannotBuildError(Exception):
    """A subject cannot be built; the message says why."""


@attrs.frozen
class Subject:
    """Something that does workloads, by its name in the table."""

    name: str
    tree: Path = ROOT
    """The tree that triocoro is imported from."""

    def command(self, workload: Workload, group: str) -> list[str]:
        """The command of one member, or of the one process.

        Args:
            workload: what to do.
            group: the name of the group.
        """
        arguments = [group, *map(str, (workload.size, workload.count, workload.senders))]
        if self.name == C:
            # One message after the other is a batch in C, too.
            return [str(BUILD / "peer"), "trip" if workload.work == "trip" else "batch", *arguments]
        python = ["env", f"PYTHONPATH={self.tree}", sys.executable]
        if self.name == TRIO:
            return [*python, str(HERE / "local.py"), "wakeup" if workload.work == "wakeup" else "channel"]
        if workload.is_local:
            return [*python, str(HERE / "local.py"), workload.work]
        if workload.is_recipe:
            work = workload.work if self.name != GROUP else "trip" if workload.work == "safe" else "trips"
            return [*python, str(HERE / "recipe.py"), work, *arguments]
        program = "failover.py" if workload.is_failover else "peer.py"
        return [*python, str(HERE / program), workload.work, *arguments]

    def processes(self, workload: Workload) -> int:
        """How many processes do it, each on a node of its own."""
        return 1 if self.name == TRIO else workload.senders


def build_peer() -> Subject:
    """Compile the C program."""
    BUILD.mkdir(parents=True, exist_ok=True)
    source = HERE / "peer.c"
    command = ["cc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-o"]
    try:
        _run([*command, str(BUILD / "peer"), str(source), "-lcpg"])
    except FileNotFoundError:
        raise CannotBuildError("there is no C compiler: install gcc (a Debian package)") from None
    except CannotBuildError as error:
        hint = "it needs the header and the library of libcpg: install libcpg-dev (a Debian package)"
        raise CannotBuildError(f"{error}\nthe C program cannot be compiled; {hint}") from None
    return Subject(C)


def build_commit(revision: str) -> Subject:
    """Check another commit of ours out into a tree of its own, and build its extension module there."""
    commit = _run([*_GIT, "rev-parse", "--verify", "--short", f"{revision}^{{commit}}"])
    tree = BUILD / commit
    if not tree.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        _run([*_GIT, "worktree", "prune"])
        _run([*_GIT, "worktree", "add", "--detach", str(tree), commit])
    _run([sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"], cwd=tree)
    return Subject(commit, tree)


def subjects_of(workload: Workload, available: Mapping[str, Subject], base: Subject | None) -> list[Subject]:
    """The subjects that do a workload, ours first.

    Args:
        workload: the workload.
        available: the subjects by their names.
        base: another commit of ours to compare with, in place of all others.
    """
    names: Sequence[str] = ([OURS] if workload.measures_us else []) + ([] if base else list(workload.references))
    found = [available[name] for name in names]
    return [*found, base] if base and found else found


def current_commit() -> str:
    """The commit of the tree, with a "+" if something was changed."""
    return _run([*_GIT, "rev-parse", "--short", "HEAD"]) + ("+" if _run([*_GIT, "status", "--porcelain"]) else "")


def _run(command: Sequence[str], cwd: Path = ROOT) -> str:
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise CannotBuildError(f"{' '.join(command)}:\n{result.stderr or result.stdout}")
    return result.stdout.strip()
