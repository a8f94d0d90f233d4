"""Somebody else's application: its package (tests/downstream) is installed, and its tests run, as a user would."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

import triocoro

PACKAGE = Path(__file__).parent.parent / "downstream"
USER = 54_321
"""The id of an ordinary user; it need not have a name."""
BOUND = 120
"""Seconds for what takes ten."""

HIDE = """
set -e
stage=$1; shift
while [ "$1" != -- ]; do
    closed=$1; shift
    mount -t tmpfs -o mode=755 none "$stage"
    while [ "$1" != / ]; do
        mkdir -p "$stage/${1#"$closed"}"
        mount --rbind "$1" "$stage/${1#"$closed"}"
        shift
    done
    shift
    mount --rbind "$stage" "$closed"
    umount --lazy "$stage"
done
shift
exec "$@"
"""
"""Put in place of a folder, in this mount namespace, one that all may enter, with nothing in it but what is named."""


@attrs.frozen
class Installed:
    """The package, copied to a folder that everybody may enter, and installed there."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """Nothing of ours but the mark by which conftest.py finds what is left behind."""
        return {
            "HOME": str(self.folder),
            "PATH": os.environ.get("PATH", os.defpath),
            # With another build of Corosync, its libraries.
            **({"LD_LIBRARY_PATH": libraries} if (libraries := os.environ.get("LD_LIBRARY_PATH")) else {}),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": str(self.folder / "site"),
            "TMPDIR": str(self.folder),
            "TRIOCORO_TEST_RUN": os.environ["TRIOCORO_TEST_RUN"],
        }


@pytest.fixture
def installed() -> Iterator[Installed]:
    # Not tmp_path, which is closed to others, as the folder in TMPDIR may be.
    with tempfile.TemporaryDirectory(prefix="triocoro-downstream-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        source = folder / "source"
        # A copy, since who builds it writes into it.
        shutil.copytree(PACKAGE, source, ignore=shutil.ignore_patterns("__pycache__"))
        found = Installed(folder)
        # --no-deps: triocoro is here already, and this is no matter of the network.
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
        run([*pip, "--no-deps", "--no-build-isolation", "--target", str(folder / "site"), str(source)], found)
        shutil.rmtree(source / "src")  # what has been installed is what gets tested
        yield found


def run(command: list[str], installed: Installed) -> str:
    result = subprocess.run(
        command,
        env=installed.environment,
        cwd=installed.folder / "source",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=BOUND,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


def test_as_a_user_would(installed: Installed, corosync_mode: str) -> None:
    output = run([sys.executable, "-m", "pytest", f"--corosync={corosync_mode}"], installed)
    assert f"corosync: {corosync_mode}" in output
    assert " passed in " in output.splitlines()[-1]  # nothing else, such as skipped ones


@pytest.mark.corosync_real_only(reason="the fake asks nothing of the kernel")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user; without root, the other test is this")
def test_as_an_ordinary_user(installed: Installed) -> None:
    for path in (installed.folder, *installed.folder.rglob("*")):
        os.chown(path, USER, USER)
    ids = (f"--reuid={USER}", f"--regid={USER}", "--clear-groups")
    powers = ("--no-new-privs", "--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all")
    command = ["setpriv", *ids, *powers, "--", sys.executable, "-m", "pytest", "--corosync=real"]
    output = run([*reachable(installed.folder), *command], installed)
    assert "corosync: real" in output
    assert " passed in " in output.splitlines()[-1]  # nothing else, such as skipped ones


def reachable(folder: Path) -> list[str]:
    """The command that runs another one where everybody can enter the folders of the interpreter and of triocoro.

    Those are often in root's home, which is closed.
    """
    site = Path(triocoro.__file__).parent.parent
    inside: dict[str, list[str]] = {}
    for path in dict.fromkeys((Path(sys.prefix), Path(sys.base_prefix), site)):
        for ancestor in reversed(path.parents):
            if not ancestor.stat().st_mode & stat.S_IXOTH:
                inside.setdefault(str(ancestor), []).append(str(path))
                break
    if not inside:
        return []
    (folder / "stage").mkdir()
    arguments = [word for closed, paths in inside.items() for word in (closed, *paths, "/")]
    return ["unshare", "--mount", "sh", "-c", HIDE, "sh", str(folder / "stage"), *arguments, "--"]
