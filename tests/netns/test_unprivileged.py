"""Real clusters of an ordinary user, who may make user namespaces; and who may not.

`make unprivileged` runs all tests as such a user. These need none: root with another uid and without its capabilities,
in a user namespace of its own, is one to the kernel, yet may read what root may.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.confined import ANOTHER_UID, where_limited

from triocoro.testing._netns import requirements

pytestmark = pytest.mark.corosync_real_only(reason="the fake needs no privileges")


def run_as_user(script: str, *arguments: str) -> str:
    """Run a Python program as an ordinary user; what it has printed."""
    user = [*ANOTHER_UID, "--", "setpriv", "--inh-caps=-all", "--no-new-privs"]
    return output_of([*(user if os.geteuid() == 0 else []), sys.executable, "-c", script, *arguments])


def run_where_limited(setting: str, limit: int, script: str) -> str:
    """Run a Python program as an ordinary user in a user namespace with a limit of its own; what it has printed."""
    return output_of([*where_limited(setting, limit), sys.executable, "-c", script])


def run_as_root_without(capability: str, script: str) -> str:
    """Run a Python program as root, of a user namespace, but without a capability; what it has printed."""
    lacking = [f"--{kind}=-{capability}" for kind in ("inh-caps", "bounding-set")]
    return output_of(["unshare", "--user", "--map-root-user", "--", "setpriv", *lacking, sys.executable, "-c", script])


def output_of(command: list[str]) -> str:
    english = {**os.environ, "LC_ALL": "C"}
    result = subprocess.run(
        command, env=english, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


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
    with NetnsCluster(nodes=3):
        pass
except triocoro.CorosyncUnavailableError as error:
    print(error)
"""


@pytest.mark.parametrize(
    "kind,limit,verdict",
    [
        ("user", 0, "forbids it"),
        ("net", 0, "forbids it"),
        ("mnt", 0, "forbids it"),
        ("pid", 0, "forbids it"),
        ("net", 3, "may be too low"),
        ("mnt", 2, "may be too low"),
    ],
)
def test_the_limit_that_forbids_namespaces_is_named(kind: str, limit: int, verdict: str) -> None:
    setting = f"user.max_{kind}_namespaces"
    lines = run_where_limited(setting, limit, _ERROR).splitlines()
    assert lines[0].startswith("cannot create the cluster's nodes: its supervisor ")
    # Where the nodes were too many, the kernel may have taken their namespaces back before we look: unshare then works.
    refused = f"- namespaces cannot be created ({'unshare: unshare failed: ' * ('unshare' in lines[-1])}"
    assert lines[-1] == (
        f"{refused}No space left on device): {setting} is {limit}, which {verdict}: sysctl {setting}=10000"
        + ("; or run as root" if kind == "user" else "")
    )


@pytest.mark.parametrize(
    "capability,symptom",
    [
        ("net_admin", "the kernel makes no bridge or veth devices (RTNETLINK answers: Operation not permitted"),
        ("sys_admin", "namespaces cannot be created (unshare: unshare failed: Operation not permitted"),
    ],
)
def test_the_capability_that_root_lacks_is_named(capability: str, symptom: str) -> None:
    lines = run_as_root_without(capability, _ERROR).splitlines()
    assert lines[-1].startswith(f"- {symptom}")
    assert lines[-1].endswith(": give this container CAP_SYS_ADMIN and CAP_NET_ADMIN (docker run --privileged)")


def test_the_plugin_names_the_limit_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "test_nothing.py").write_text("def test(corosync): pass\n", encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    script = "import pytest; print('status', int(pytest.main(['--corosync=real', '-p', 'no:cacheprovider'])))"
    said = run_where_limited("user.max_user_namespaces", 0, script)
    assert "--corosync=real is not possible here" in said
    assert "user.max_user_namespaces is 0, which forbids it" in said
    assert f"status {int(pytest.ExitCode.USAGE_ERROR)}" in said


_FORBIDDEN = "unshare: unshare failed: Operation not permitted"
_TOO_MANY = "unshare: unshare failed: No space left on device"


@pytest.fixture
def use_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[dict[str, str]], None]:
    """Have other settings of the kernel: not all of them are to be had on one machine."""

    def use(settings: dict[str, str]) -> None:
        for name, text in settings.items():
            path = tmp_path / name.replace(".", "/")
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"{text}\n", encoding="ascii")
        monkeypatch.setattr(requirements, "_SYSCTL", tmp_path)

    return use


_HARMLESS = {
    "kernel.unprivileged_userns_clone": "1",
    "kernel.apparmor_restrict_unprivileged_userns": "0",
    "user.max_user_namespaces": "96365",
    "user.max_net_namespaces": "96365",
}


@pytest.mark.parametrize(
    "reason,setting,value,remedy",
    [
        (_FORBIDDEN, "kernel.unprivileged_userns_clone", "0", "1"),
        (_FORBIDDEN, "kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
        (_TOO_MANY, "user.max_user_namespaces", "0", "10000"),
    ],
)
def test_the_setting_that_forbids_namespaces_is_named(
    reason: str, setting: str, value: str, remedy: str, use_settings: Callable[[dict[str, str]], None]
) -> None:
    use_settings({**_HARMLESS, setting: value})
    assert requirements._remedy(reason, root=False) == (
        "user-namespaces-forbidden",
        f"{setting} is {value}, which forbids it: sysctl {setting}={remedy}; or run as root",
    )


def test_where_no_setting_forbids_it_the_other_causes_are_named(
    use_settings: Callable[[dict[str, str]], None],
) -> None:
    use_settings(_HARMLESS)
    for reason, kind, words in [
        (_FORBIDDEN, "user-namespaces-forbidden", "seccomp"),
        (_TOO_MANY, "namespace-limit", "too many"),
        ("RTNETLINK answers: Not supported", "no-devices", "modprobe"),
    ]:
        found, remedy = requirements._remedy(reason, root=False)
        assert (found, words in remedy) == (kind, True)


def test_settings_for_users_are_no_matter_for_root(use_settings: Callable[[dict[str, str]], None]) -> None:
    forbidding = {"kernel.unprivileged_userns_clone": "0", "user.max_user_namespaces": "0"}
    use_settings({**forbidding, "user.max_net_namespaces": "7"})
    kind, remedy = requirements._remedy(_FORBIDDEN, root=True)
    assert kind == "no-capability"
    assert "CAP_SYS_ADMIN" in remedy
    assert requirements._remedy(_TOO_MANY, root=True) == (
        "namespace-limit",
        "user.max_net_namespaces is 7, which may be too low: sysctl user.max_net_namespaces=10000",
    )
