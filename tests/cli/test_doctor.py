"""`triocoro doctor` tells the causes apart, each in a real place of its kind, and its remedies work."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, get_args

import attrs
import pytest
import trio
import trio.testing
from support.commands import ROOT, Result, invoke, run_inside
from support.confined import as_user, only_root, where_limited
from support.external_programs import inside
from support.installed import path

from triocoro import LibraryError, NoSpaceError, NotSupportedError, TryAgainError
from triocoro._cli import diagnosis
from triocoro._cli.diagnosis import PATIENCE, Finding, examine, usable
from triocoro._cli.doctor import as_text
from triocoro._cli.output import Output
from triocoro._corosync._causes import FULL
from triocoro._problem import Problem, ProblemKind, reporting
from triocoro._services import Endpoint
from triocoro.testing import Node, describe_user
from triocoro.testing._cluster.corosync_conf import STATE_DIR

pytestmark = pytest.mark.corosync(nodes=1)
in_a_process = pytest.mark.corosync_real_only(reason="a process of its own needs a real node")


def wrong(done: Result) -> dict[str, tuple[str, str, str]]:
    """The status, the problem and the command of each check that is not ok or skipped."""
    assert done.stderr == ""
    (envelope,) = done.envelopes
    assert (envelope["schema"], envelope["version"]) == ("triocoro.doctor", 1)
    assert envelope["result"]["usable"] is (done.status == 0)
    return {
        finding["check"]: (finding["status"], finding["problem"], finding["command"])
        for finding in envelope["result"]["findings"]
        if finding["status"] not in ("ok", "skipped")
    }


def finding_of(done: Result, check: str) -> dict[str, Any]:
    (found,) = (finding for finding in done.result["findings"] if finding["check"] == check)
    return dict(found)


# --- in both modes ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("corosync")
async def test_nothing_is_wrong(corosync_mode: str) -> None:
    done = await invoke("doctor", "--json")
    found = {finding["check"]: finding["found"] for finding in done.result["findings"]}
    order = ("triocoro", "extension", "libraries", "shared-memory", "daemon", "permission", "test-clusters")
    assert tuple(found) == order
    assert found["daemon"] == "answers: cpg, votequorum, quorum, cmap, cfg"
    assert found["permission"].endswith(" is admitted")
    if corosync_mode == "real":  # else this machine may lack something
        assert (done.status, wrong(done)) == (0, {})
        assert re.search(r"libcpg\.so\.4[.0-9]*, .* in /.*; libqb \d", found["libraries"])
        assert found["test-clusters"].startswith(f"possible as {describe_user()}, with /")


async def test_a_daemon_that_was_stopped(corosync: Node) -> None:
    await corosync.stop()
    done = await invoke("doctor", "--json")
    assert done.status == 1
    assert wrong(done)["daemon"] == ("failure", "no-daemon", "systemctl start corosync")
    assert finding_of(done, "permission")["status"] == "skipped"
    lines = [line.rstrip() for line in (await invoke("doctor")).stdout.splitlines()]
    start = lines.index("FAIL  daemon         no Corosync daemon answers")
    assert lines[start + 1 : start + 4] == [
        "      start it:",
        "        systemctl start corosync",
        "-     permission     not checked, as an earlier check has failed",
    ]
    assert lines[-1] == "No application can use Corosync here."


@pytest.mark.corosync_fake_only(reason="of a real one, another test asks as a process")
async def test_a_frozen_daemon(
    corosync: Node,
    autojump_clock: trio.testing.MockClock,  # noqa: ARG001 - it is in force
) -> None:
    await corosync.freeze()
    began = trio.current_time()
    done = await invoke("doctor", "--json")
    assert trio.current_time() - began == pytest.approx(PATIENCE)
    assert done.status == 1
    assert wrong(done)["daemon"] == ("failure", "frozen", "systemctl restart corosync")
    assert "has not answered within 3 seconds" in finding_of(done, "daemon")["found"]


def test_it_fits_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    problem = Finding("daemon", "failure", "word " * 20, "no-daemon", "word " * 20, "a-command " * 20)
    shown = Output.of_process().render(as_text([problem], usable=False)).decode()
    lines = [re.sub("\x1b[^m]*m", "", line) for line in shown.splitlines()]
    assert [line.split() for line in lines if "a-command" in line] == [["a-command"] * 20]  # to be pasted
    assert max(len(line) for line in lines if "a-command" not in line) == 40
    assert {line[:6].strip() for line in lines} == {"FAIL", "", "No app"}


# --- real places ------------------------------------------------------------------------------------------------------


async def doctor(node: Node, *by: str) -> Result:
    return await run_inside(node, "doctor", "--json", by=by)


CONTAINER = ("unshare", "--net", "--pid", "--fork", "--mount", "--mount-proc")
"""Hides the processes of others."""


def after(command: str) -> tuple[str, ...]:
    return "sh", "-c", f'{command} && exec "$@"', "sh"


@in_a_process
@pytest.mark.parametrize(
    "by,check,problem",
    [
        ((*CONTAINER, *after("mount -t tmpfs none /dev/shm")), "daemon", "no-daemon"),
        (("unshare", "--net"), "daemon", "wrong-network-namespace"),
        (("unshare", "--mount", *after("mount -t tmpfs none /dev")), "shared-memory", "no-shared-memory"),
    ],
)
async def test_another_place(corosync: Node, by: Sequence[str], check: str, problem: str) -> None:
    done = await doctor(corosync, *by)
    assert done.status == 1
    assert {name: what[:2] for name, what in wrong(done).items()} == {check: ("failure", problem)}
    assert finding_of(done, check)["remedy"]
    assert finding_of(done, "permission")["status"] == "skipped"


@in_a_process
async def test_a_library_is_missing(corosync: Node) -> None:
    done = await doctor(corosync, "unshare", "--mount", *after(f"mount --bind /dev/null {path('libcmap')}"))
    assert done.status == 1
    assert wrong(done) == {"libraries": ("failure", "no-library", "")}
    assert "libcmap.so.4 cannot be loaded" in finding_of(done, "libraries")["found"]
    assert "install the package libcmap4" in finding_of(done, "libraries")["remedy"]
    assert finding_of(done, "daemon")["found"] == "answers: cpg, votequorum, quorum, cfg"
    assert finding_of(done, "test-clusters")["status"] == "skipped"


@in_a_process
async def test_user_namespaces_are_forbidden(corosync: Node) -> None:
    """That is no matter for an application."""
    done = await doctor(corosync, *where_limited("user.max_user_namespaces", 0))
    assert done.status == 0
    assert wrong(done) == {"test-clusters": ("warning", "user-namespaces-forbidden", "")}
    assert "sysctl user.max_user_namespaces=" in finding_of(done, "test-clusters")["remedy"]


@only_root
@in_a_process
async def test_the_command_admits_a_user(corosync: Node) -> None:
    done = await doctor(corosync, *as_user(4321))
    assert done.status == 1
    status, problem, command = wrong(done)["permission"]
    assert (status, problem) == ("failure", "no-permission")
    assert finding_of(done, "daemon")["status"] == "ok"
    # A node reads this folder beside its own corosync.conf.
    folder = f"{STATE_DIR}/uidgid.d"
    here = command.replace("/etc/corosync/uidgid.d", folder)
    await trio.run_process([*inside(corosync), "sh", "-c", f"mkdir {folder} && {here}"], capture_stdout=True)
    done = await doctor(corosync, *as_user(4321))
    assert finding_of(done, "permission") == {**finding_of(done, "permission"), "status": "ok"}
    assert finding_of(done, "permission")["found"] == "4321 is admitted"
    assert "permission" not in wrong(done)


@in_a_process
async def test_the_command_thaws_the_daemon(corosync: Node) -> None:
    await corosync.freeze()
    try:
        done = await doctor(corosync)
        assert (done.status, wrong(done)) == (
            1,
            {"daemon": ("failure", "frozen", f"kill -CONT {corosync.pid}")},
        )
        await trio.run_process([*inside(corosync), "sh", "-c", wrong(done)["daemon"][2]])
        done = await invoke("doctor", "--json")
        assert (done.status, wrong(done)) == (0, {})
    finally:
        await corosync.thaw()


# --- without a cluster, or with what no daemon does so easily ---------------------------------------------------------


def test_without_the_extension_module() -> None:
    blocked = "sys.modules['triocoro._corosync._shim'] = None"
    script = f"import sys; {blocked}; from triocoro._cli import main; sys.exit(main())"
    command = [sys.executable, "-c", script, "doctor", "--json"]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    done = Result(process.returncode, process.stdout, process.stderr)
    assert done.status == 1
    assert wrong(done)["extension"] == ("failure", "no-extension", "")
    assert "without its extension module" in finding_of(done, "extension")["found"]
    assert "install a wheel for this platform" in finding_of(done, "extension")["remedy"]
    for check in ("libraries", "shared-memory", "daemon", "permission"):
        assert finding_of(done, check)["status"] == "skipped"


def test_the_documentation_has_every_problem() -> None:
    rows = [line.split("|")[1] for line in (ROOT / "docs/doctor.md").read_text().splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall("`(.*?)`", row)} >= set(get_args(ProblemKind))


@attrs.define
class Failing:
    """An endpoint whose connects to some services fail."""

    endpoint: Endpoint
    errors: dict[str, Exception]

    label = "a daemon"
    identity = "a daemon"
    pid = 1

    async def connect(self, service: Any) -> Any:
        await trio.lowlevel.checkpoint()
        if service.name in self.errors:
            raise self.errors[service.name]
        return await self.endpoint.connect(service)


ALL = ("cpg", "votequorum", "quorum", "cmap", "cfg")
made_up = pytest.mark.corosync_fake_only(reason="the errors are made up")


@made_up
async def test_what_concerns_all_services_is_told_once(corosync: Node) -> None:
    errors: dict[str, Exception] = {name: reporting(NoSpaceError("it is full"), FULL) for name in ALL}
    findings = await examine(Failing(corosync.endpoint, errors))
    assert [(finding.check, finding.problem) for finding in findings if finding.status == "failure"] == [
        ("shared-memory", "shared-memory-full")
    ]
    assert {finding.check for finding in findings if finding.status == "skipped"} >= {"daemon", "permission"}


@made_up
async def test_corosync_is_not_installed(corosync: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def find_none(_: str) -> None: ...

    monkeypatch.setattr(diagnosis, "find_program", find_none)
    await corosync.stop()
    (found,) = (finding for finding in await examine() if finding.check == "daemon")
    assert found.problem == "no-daemon"
    assert found.remedy.startswith("install the package corosync")


@made_up
@pytest.mark.parametrize(
    "errors,expected",
    [
        (dict.fromkeys(ALL, TryAgainError("not yet")), ("failure", "starting")),
        ({"cfg": NotSupportedError("the library is from the last century")}, ("failure", "other")),
        (
            {"votequorum": reporting(LibraryError("no"), Problem("no-votequorum", "it runs without votequorum"))},
            ("warning", "no-votequorum"),
        ),
    ],
)
async def test_other_causes(
    corosync: Node,
    autojump_clock: trio.testing.MockClock,  # noqa: ARG001 - it is in force
    errors: dict[str, Exception],
    expected: tuple[str, str],
) -> None:
    began = trio.current_time()
    findings = [finding for finding in await examine(Failing(corosync.endpoint, errors)) if finding.check == "daemon"]
    assert trio.current_time() - began <= PATIENCE + 0.001
    assert [(finding.status, finding.problem) for finding in findings if finding.status != "ok"] == [expected]
    assert usable(findings) is (expected[0] == "warning")
    if len(errors) == 1:
        (name,) = errors
        served = [service for service in ALL if service != name]
        assert findings[0] == Finding("daemon", "ok", f"answers: {', '.join(served)}")
        assert findings[1].found.startswith(f"{name}: ")
