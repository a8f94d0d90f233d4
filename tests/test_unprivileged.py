"""Real clusters of an ordinary user, who may make user namespaces; and who may not.

`make unprivileged` runs all tests as such a user. These need none: root with another uid and without its capabilities,
in a user namespace of its own, is one to the kernel, yet may read what root may.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from triocoro.testing._netns import requirements

pytestmark = pytest.mark.corosync_real_only

_UID = 1000
_ELSEWHERE = ["unshare", "--user", f"--map-user={_UID}", f"--map-group={_UID}"]


def run_as_user(script: str, *arguments: str) -> str:
    """Run a Python program as an ordinary user; what it has printed."""
    user = [*_ELSEWHERE, "--", "setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
    return output_of([*(user if os.geteuid() == 0 else []), sys.executable, "-c", script, *arguments])


def run_where_forbidden(setting: str, script: str) -> str:
    """Run a Python program as an ordinary user in a user namespace in which a limit is 0; what it has printed."""
    forbid = f'echo 0 > /proc/sys/{setting.replace(".", "/")} && exec setpriv --inh-caps=-all "$@"'
    return output_of([*_ELSEWHERE, "--keep-caps", "--", "sh", "-c", forbid, "sh", sys.executable, "-c", script])


def output_of(command: list[str]) -> str:
    return subprocess.run(
        command, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60
    ).stdout


_IDENTITY = """\
import json, os, sys, threading
import trio, triocoro
from triocoro.testing import NetnsCluster

KINDS = ("user", "net", "mnt", "pid")


def namespaces(pid):
    return [os.readlink(f"/proc/{pid}/ns/{kind}") for kind in KINDS]


def identity():
    status = open("/proc/thread-self/status").read().splitlines()
    return namespaces("thread-self"), [line for line in status if line.startswith(("Uid:", "Gid:", "Cap"))]


async def main():
    before = identity()
    async with NetnsCluster(nodes=2) as cluster:
        async with triocoro.open_group("chat", endpoint=cluster[2].endpoint) as group:
            await group.send_and_wait(b"hello")
            on_worker = await trio.to_thread.run_sync(identity)
        await cluster.isolate(2)
        await cluster.settled()
        daemons = [namespaces(node.pid) for node in cluster.nodes.values()]
    print(json.dumps([before, identity(), on_worker, daemons]))


end = threading.Event()
for _ in range(int(sys.argv[1])):
    threading.Thread(target=end.wait).start()
try:
    trio.run(main)
finally:
    end.set()
"""


@pytest.mark.parametrize("threads", [0, 3])
def test_we_stay_who_and_where_we_are(threads: int) -> None:
    before, after, on_worker, daemons = json.loads(run_as_user(_IDENTITY, str(threads)))
    assert before == after == on_worker
    (user, *own), status = before
    assert "CapEff:\t0000000000000000" in status
    assert "Uid:\t0\t0\t0\t0" not in status
    # The daemons are in one user namespace, which is not ours, and each in a network of its own.
    (user_of_one, *rest_of_one), (user_of_two, *rest_of_two) = daemons
    assert user_of_one == user_of_two != user
    assert not set(own) & {*rest_of_one, *rest_of_two}
    assert len({*rest_of_one[:2], *rest_of_two[:2]}) == 4


_ERROR = """\
import triocoro
from triocoro.testing import NetnsCluster

try:
    with NetnsCluster(nodes=1):
        pass
except triocoro.CorosyncUnavailableError as error:
    print(error)
"""


@pytest.mark.parametrize("kind", ["user", "net", "mnt", "pid"])
def test_the_limit_that_forbids_namespaces_is_named(kind: str) -> None:
    setting = f"user.max_{kind}_namespaces"
    lines = run_where_forbidden(setting, _ERROR).splitlines()
    assert lines[0].startswith("cannot create the cluster's nodes: its supervisor ")
    assert lines[-1] == (
        "- namespaces cannot be created (unshare: unshare failed: No space left on device):"
        f" {setting} is 0, which forbids it: sysctl {setting}=10000; or run as root"
    )


def test_the_plugin_names_the_limit_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "test_nothing.py").write_text("def test(corosync): pass\n", encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    script = "import pytest; print('status', int(pytest.main(['--corosync=real', '-p', 'no:cacheprovider'])))"
    said = run_where_forbidden("user.max_user_namespaces", script)
    assert "--corosync=real is not possible here" in said
    assert "user.max_user_namespaces is 0, which forbids it" in said
    assert f"status {int(pytest.ExitCode.USAGE_ERROR)}" in said


@pytest.mark.parametrize(
    "setting,value,remedy",
    [
        ("kernel.unprivileged_userns_clone", "0", "1"),
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
        ("user.max_user_namespaces", "0", "10000"),
    ],
)
def test_whatever_setting_forbids_it_is_named(
    setting: str, value: str, remedy: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Not all of them are to be had on one machine."""
    harmless = {
        "kernel.unprivileged_userns_clone": "1",
        "kernel.apparmor_restrict_unprivileged_userns": "0",
        "user.max_user_namespaces": "96365",
    }
    for name, text in {**harmless, setting: value}.items():
        path = tmp_path / name.replace(".", "/")
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{text}\n", encoding="ascii")
    monkeypatch.setattr(requirements, "_SYSCTL", tmp_path)
    assert requirements._remedy(root=False) == (
        f"{setting} is {value}, which forbids it: sysctl {setting}={remedy}; or run as root"
    )


def test_where_no_setting_forbids_it_the_other_causes_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(requirements, "_SYSCTL", tmp_path)
    assert "seccomp" in requirements._remedy(root=False)
    assert "CAP_SYS_ADMIN" in requirements._remedy(root=True)
