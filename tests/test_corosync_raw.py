"""The raw handles over the C libraries: what the shim promises, and what only a real daemon can show."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NoReturn

import pytest
import trio

import triocoro
from triocoro._corosync import CorosyncEndpoint
from triocoro._raw import MULTICAST_BURST, MulticastStatus, RawCpg
from triocoro._types import ConfigChange, IterationType, Message, Reason, Track
from triocoro.testing import Node

pytestmark = pytest.mark.corosync_real_only

SOURCES = Path(triocoro.__file__).parent / "_corosync"

# Our names for the types that have a name in the real headers, too.
REAL_TYPES = {
    "tc_cpg_address_t": "struct cpg_address",
    "tc_cpg_name_t": "struct cpg_name",
    "tc_cpg_iteration_description_t": "struct cpg_iteration_description_t",
    "tc_cpg_ring_id_t": "struct cpg_ring_id",
    "tc_cpg_callbacks_t": "cpg_callbacks_t",
    "tc_cpg_model_data_t": "cpg_model_data_t",
    "tc_cpg_model_v1_data_t": "cpg_model_v1_data_t",
    "tc_votequorum_info_t": "struct votequorum_info",
    "tc_votequorum_node_t": "votequorum_node_t",
    "tc_votequorum_ring_id_t": "votequorum_ring_id_t",
    "tc_votequorum_callbacks_t": "votequorum_callbacks_t",
}

# Members whose names differ.
REAL_MEMBERS = {
    ("tc_cpg_callbacks_t", "deliver"): "cpg_deliver_fn",
    ("tc_cpg_callbacks_t", "confchg"): "cpg_confchg_fn",
    ("tc_cpg_model_v1_data_t", "deliver"): "cpg_deliver_fn",
    ("tc_cpg_model_v1_data_t", "confchg"): "cpg_confchg_fn",
    ("tc_cpg_model_v1_data_t", "totem_confchg"): "cpg_totem_confchg_fn",
    ("tc_votequorum_callbacks_t", "quorum"): "votequorum_quorum_notify_fn",
    ("tc_votequorum_callbacks_t", "expectedvotes"): "votequorum_expectedvotes_notify_fn",
    ("tc_votequorum_callbacks_t", "nodelist"): "votequorum_nodelist_notify_fn",
}

REAL_CALLBACKS = {
    "tc_cpg_deliver_t": "cpg_deliver_fn_t",
    "tc_cpg_confchg_t": "cpg_confchg_fn_t",
    "tc_cpg_totem_confchg_t": "cpg_totem_confchg_fn_t",
    "tc_votequorum_quorum_t": "votequorum_quorum_notification_fn_t",
    "tc_votequorum_nodelist_t": "votequorum_nodelist_notification_fn_t",
    "tc_votequorum_expectedvotes_t": "votequorum_expectedvotes_notification_fn_t",
}

REAL_NUMBERS = {
    "TC_CS_OK": "CS_OK",
    "TC_CS_LIBRARY": "CS_ERR_LIBRARY",
    "TC_CS_TRY_AGAIN": "CS_ERR_TRY_AGAIN",
    "TC_CS_NO_MEMORY": "CS_ERR_NO_MEMORY",
    "TC_CS_NO_SECTIONS": "CS_ERR_NO_SECTIONS",
    "TC_DISPATCH_ONE_NONBLOCKING": "CS_DISPATCH_ONE_NONBLOCKING",
    "TC_CPG_TYPE_AGREED": "CPG_TYPE_AGREED",
    "TC_CPG_MODEL_V1": "CPG_MODEL_V1",
}

HEADERS = """
#include <stddef.h>
#include <sys/types.h>
#include <corosync/corotypes.h>
#include <corosync/cpg.h>
#include <corosync/votequorum.h>
"""


def compile_c(source: str, tmp_path: Path, *options: str) -> None:
    file = tmp_path / "check.c"
    file.write_text(source)
    command = ["gcc", "-std=gnu11", "-Wall", "-Werror", f"-I{SOURCES}", *options, str(file)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.fixture
def headers() -> None:
    if not Path("/usr/include/corosync/cpg.h").exists():
        pytest.skip("Corosync's headers are not installed (libcpg-dev, libvotequorum-dev)")


@pytest.mark.usefixtures("headers")
def test_layouts_are_those_of_the_real_headers(tmp_path: Path) -> None:
    abi = (SOURCES / "abi.h").read_text()
    structs: dict[str, list[str]] = {
        name: re.findall(r"(\w+)(?:\[\d+\])?;", body)
        for body, name in re.findall(r"typedef struct \{(.*?)\} (\w+);", abi, re.DOTALL)
    }
    assert structs.keys() == REAL_TYPES.keys()
    checks: list[str] = []
    for ours, members in structs.items():
        real = REAL_TYPES[ours]
        checks.append(f"sizeof({ours}) == sizeof({real})")
        for member in members:
            its = REAL_MEMBERS.get((ours, member), member)
            checks.append(f"offsetof({ours}, {member}) == offsetof({real}, {its})")
            checks.append(f"sizeof((({ours} *)0)->{member}) == sizeof((({real} *)0)->{its})")
    checks += [f"(int){ours} == (int){real}" for ours, real in REAL_NUMBERS.items()]
    checks += [f"(int)CS_{'' if c == 1 else 'ERR_'}{c.name} == {int(c)}" for c in triocoro.CsError]
    checks += [f"(int)CPG_REASON_{reason.name} == {int(reason)}" for reason in Reason]
    checks += [f"(int)CPG_ITERATION_{kind.name} == {int(kind)}" for kind in IterationType]
    checks += [f"CS_TRACK_{flag} == {int(Track[flag])}" for flag in ("CURRENT", "CHANGES", "CHANGES_ONLY")]
    checks += [f"VOTEQUORUM_INFO_{flag.name} == {int(flag)}" for flag in triocoro.VotequorumFlag]
    checks += [f"VOTEQUORUM_NODESTATE_{state.name} == {int(state)}" for state in triocoro.NodeState]
    source = HEADERS + '#include "abi.h"\n' + "\n".join(f'_Static_assert({c}, "{c}");' for c in checks)
    compile_c(source, tmp_path, "-c", "-o", str(tmp_path / "check.o"))


@pytest.mark.usefixtures("headers")
def test_signatures_are_those_of_the_real_headers(tmp_path: Path) -> None:
    # The tables, built from the real types, take the real functions without a cast.
    source = [HEADERS, "#define TC_REAL_TYPES"]
    source += [f"#define {ours} {real}" for ours, real in REAL_TYPES.items()]
    source += ['#include "tables.h"', "#define ENTRY(name, parameters, arguments) .name = name,"]
    source += [f"struct tc_{n}_table tc_{n} = {{TC_{n.upper()}_FUNCTIONS(ENTRY)}};" for n in ("cpg", "votequorum")]
    source += [f"{real} check_{ours}({ours} callback) {{ return callback; }}" for ours, real in REAL_CALLBACKS.items()]
    compile_c("\n".join(source), tmp_path, "-c", "-o", str(tmp_path / "check.o"))


@pytest.mark.parametrize("library", ["cpg", "votequorum"])
def test_every_exported_function_is_in_the_table(library: str) -> None:
    from triocoro._corosync import _libraries
    from triocoro._corosync._shim import ffi, lib

    table = {"cpg": _libraries.CPG, "votequorum": _libraries.VOTEQUORUM}[library]
    table.load()
    loaded = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if f"lib{library}." in line}
    (path,) = loaded
    listing = subprocess.run(["readelf", "--dyn-syms", "-W", path], capture_output=True, text=True, check=True).stdout
    exported = {
        fields[7].split("@")[0]
        for fields in map(str.split, listing.splitlines())
        if len(fields) >= 8 and fields[3] == "FUNC" and fields[6] != "UND"
    }
    names: list[str] = []
    while name := lib.tc_symbol_name(table.index, len(names)):
        names.append(ffi.string(name).decode())
    assert {name for name in exported if name.startswith(f"{library}_")} <= set(names)
    assert len(names) == len(set(names))


def test_extension_needs_nothing_but_libc() -> None:
    from triocoro._corosync import _shim

    file: str = getattr(_shim, "__file__")  # noqa: B009 # the stub does not have it
    listing = subprocess.run(["readelf", "-d", file], capture_output=True, text=True, check=True).stdout
    assert re.findall(r"\(NEEDED\).*\[(.*)\]", listing) == ["libc.so.6"]


async def test_missing_library_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    from triocoro._corosync import _cpg, _libraries, _votequorum

    endpoint = CorosyncEndpoint("nowhere")
    for module, name, package in ((_cpg, "CPG", "libcpg4"), (_votequorum, "VOTEQUORUM", "libvotequorum8")):
        absent = _libraries.Library(0, "libabsent.so.4", package)
        monkeypatch.setattr(module, name, absent)
        with pytest.raises(triocoro.CorosyncUnavailableError, match=package) as caught:
            await (endpoint.connect_cpg() if name == "CPG" else endpoint.connect_votequorum())
        assert "libabsent.so.4" in str(caught.value)


MISSING_SYMBOL = """
import sys
from triocoro import NotSupportedError
from triocoro._corosync._libraries import Library, failure
from triocoro._corosync._shim import ffi, lib

Library(lib.TC_CPG, sys.argv[1], "none").load()
assert lib.cpg_leave(1, ffi.new("tc_cpg_name_t *", (1, b"x"))) == 1
code = lib.cpg_local_get(1, ffi.new("unsigned int *"))
error = failure(code, "cpg_local_get")
assert type(error) is NotSupportedError, error
assert error.function == "cpg_local_get"
assert lib.tc_cpg_multicast(1, 0, b"", [0], 1) & 0xFFFFFFFF == lib.TC_MISSING & 0xFFFFFFFF
assert lib.tc_cpg_dispatch(1, lib.tc_arena_new(), 1, 1) == lib.TC_MISSING
assert lib.tc_cpg_connect(-1, ffi.new("struct tc_connection *")) == lib.TC_MISSING
print("ok")
"""


def test_missing_symbol_is_an_error_at_the_call_only(tmp_path: Path) -> None:
    stub = tmp_path / "libstub.so"
    compile_c("int cpg_leave(void) { return 1; }", tmp_path, "-shared", "-fPIC", "-o", str(stub))
    # In a process of its own, since the table is one per process.
    command = [sys.executable, "-c", MISSING_SYMBOL, str(stub)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout.strip()) == (0, "ok"), result.stderr


def test_small_stack_is_an_error_and_not_a_crash() -> None:
    from triocoro._corosync import _libraries
    from triocoro._corosync._shim import lib

    _libraries.CPG.load()
    codes: list[int] = []
    size = threading.stack_size(256 * 1024)
    try:
        thread = threading.Thread(target=lambda: codes.append(lib.tc_cpg_dispatch(1, lib.tc_arena_new(), 1, 1)))
        thread.start()
    finally:
        threading.stack_size(size)
    thread.join()
    assert codes == [lib.TC_SHALLOW]
    assert "stack" in str(_libraries.failure(lib.TC_SHALLOW, "cpg_dispatch"))
    assert lib.tc_cpg_dispatch(1, lib.tc_arena_new(), 1, 1) == triocoro.CsError.BAD_HANDLE


# --- with a daemon ---


async def take(handle: RawCpg, count: int) -> list[object]:
    """The next `count` events, and no more."""
    events: list[object] = []
    with trio.fail_after(10):  # noqa: ASYNC912 - it runs at least once
        while len(events) < count:
            await trio.lowlevel.wait_readable(handle.fileno())
            events += handle.dispatch(count - len(events), 2**30)[1]
    return events


async def joined(node: Node, group: bytes) -> RawCpg:
    handle = await node.endpoint.connect_cpg()
    await handle.join(group)
    (change,) = await take(handle, 1)
    assert isinstance(change, ConfigChange)
    assert [c.reason for c in change.joined] == [Reason.JOIN]
    return handle


async def close(*handles: RawCpg) -> None:
    for handle in handles:
        handle.close(leave=True)
        handle.close()
    with trio.fail_after(10):  # noqa: ASYNC912 - it runs at least once
        for handle in handles:
            await handle.wait_closed()
            assert handle.closed


async def cancelled(call: Callable[[], Awaitable[object]]) -> None:
    with trio.move_on_after(0.1) as scope:
        await call()
    assert scope.cancelled_caught


def payloads(events: list[object]) -> list[bytes]:
    return [event.payload for event in events if isinstance(event, Message)]


async def test_payloads_of_all_sizes(corosync: Node) -> None:
    handle = await joined(corosync, b"sizes\0")
    limit = handle.max_atomic_message_size
    for burst in ([b"", b"a", b"\0" * 7], [os.urandom(n) for n in (64 * 1024, 64 * 1024 + 1)], [os.urandom(limit)]):
        assert handle.multicast(burst) == (len(burst), MulticastStatus.SENT)
        assert payloads(await take(handle, len(burst))) == burst
    with pytest.raises(ValueError, match="fragmented"):
        handle.multicast([bytes(limit + 1)])
    large = os.urandom(3 * limit)
    await handle.multicast_fragmented(large)
    assert payloads(await take(handle, 1)) == [large]
    await close(handle)


async def test_dispatch_keeps_its_bounds(corosync: Node) -> None:
    handle = await joined(corosync, b"bounds")
    messages = [bytes([n]) * 100 for n in range(MULTICAST_BURST + 1)]
    assert handle.multicast(messages) == (MULTICAST_BURST, MulticastStatus.SENT)
    seen: list[bytes] = []
    with trio.fail_after(10):  # noqa: ASYNC912 - it runs at least once
        while len(seen) < MULTICAST_BURST:
            await trio.lowlevel.wait_readable(handle.fileno())
            # Three events are the first to exceed 250 bytes.
            taken, events = handle.dispatch(5, 250)
            assert 1 <= taken == len(events) <= 3
            seen += payloads(list(events))
    assert seen == messages[:MULTICAST_BURST]
    assert handle.dispatch(5, 250) == (0, ())
    await close(handle)


async def test_a_fragment_is_taken_but_makes_no_event(corosync: Node) -> None:
    handle = await joined(corosync, b"fragments")
    await handle.multicast_fragmented(bytes(2 * handle.max_atomic_message_size))
    taken: list[int] = []
    events: list[object] = []
    with trio.fail_after(10):  # noqa: ASYNC912 - it runs at least once
        while not events:
            await trio.lowlevel.wait_readable(handle.fileno())
            number, more = handle.dispatch(1, 2**30)
            taken.append(number)
            events += more
    assert taken == [1, 1]
    await close(handle)


async def test_iteration(corosync: Node) -> None:
    handles = [await joined(corosync, group) for group in (b"one", b"two\0", b"x" * 127)]
    names = {member.group: member.address for member in await handles[0].iterate(IterationType.ALL, None)}
    address = triocoro.Address(corosync.nodeid, os.getpid())
    assert names == {b"one": address, b"two\0": address, b"x" * 127: address}
    only_names = await handles[0].iterate(IterationType.NAME_ONLY, None)
    assert {(member.group, member.address) for member in only_names} == {(name, None) for name in names}
    (member,) = await handles[1].iterate(IterationType.ONE_GROUP, b"two\0")
    assert (member.group, member.address) == (b"two\0", address)
    assert await handles[1].membership(b"two\0") == (address,)
    assert await handles[1].membership(b"two") == ()
    await close(*handles)


async def test_many_connects_at_once(corosync: Node) -> None:
    """libqb's table of handles breaks when two threads create one at the same time."""

    async def use(number: int) -> None:
        group = b"group %d" % number
        handle = await joined(corosync, group)
        assert await handle.local_nodeid() == corosync.nodeid
        assert len(await handle.iterate(IterationType.ONE_GROUP, group)) == 1
        await close(handle)

    with trio.fail_after(60):
        for _ in range(3):
            async with trio.open_nursery() as nursery:
                for number in range(24):
                    nursery.start_soon(use, number)


async def test_frozen_daemon_spins_nobody(corosync: Node) -> None:
    handle = await joined(corosync, b"frozen")
    await corosync.freeze()
    try:
        sent, before = 0, time.process_time()
        while True:
            number, status = handle.multicast([b"x" * 64] * MULTICAST_BURST)
            sent += number
            if status is not MulticastStatus.SENT:
                break
        assert status is MulticastStatus.FULL
        assert time.process_time() - before < 0.1
        await cancelled(handle.local_nodeid)
        assert handle.lane.statistics().borrowed_tokens == 1
        await cancelled(corosync.endpoint.connect_votequorum)
        handle.close(leave=True)
        assert not handle.closed
        await cancelled(handle.wait_closed)
    finally:
        await corosync.thaw()
    await close(handle)


async def test_cancelled_join_is_undone(corosync: Node) -> None:
    handle = await corosync.endpoint.connect_cpg()
    await corosync.freeze()
    try:
        await cancelled(lambda: handle.join(b"undone"))
    finally:
        await corosync.thaw()
    await expect_left(handle)
    await close(handle)


async def test_join_that_ended_before_its_cancellation_is_undone(
    corosync: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    from triocoro._corosync._handle import Undoable

    handle = await corosync.endpoint.connect_cpg()
    token = trio.lowlevel.current_trio_token()
    run = Undoable[int].run

    told = threading.Event()

    def cancel() -> None:
        # The task has stopped waiting for its thread when this returns.
        scope.cancel()
        told.set()

    def dawdle(self: Undoable[int]) -> int:
        code = run(self)
        token.run_sync_soon(cancel)
        assert told.wait(10)
        return code

    with monkeypatch.context() as patch, trio.CancelScope() as scope:
        patch.setattr(Undoable, "run", dawdle)
        await handle.join(b"late")
    assert scope.cancelled_caught
    await expect_left(handle)
    await close(handle)


async def expect_left(handle: RawCpg) -> None:
    changes = [event for event in await take(handle, 2) if isinstance(event, ConfigChange)]
    while len(changes) < 2:  # a freeze brings a ring of its own
        changes += [event for event in await take(handle, 1) if isinstance(event, ConfigChange)]
    assert [change.reason for change in changes[0].joined] == [Reason.JOIN]
    assert [change.reason for change in changes[1].left] == [Reason.LEAVE]


async def test_cancelled_connects_leave_nothing(corosync: Node) -> None:
    def open_fds() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = open_fds()
    await corosync.freeze()
    try:
        with trio.move_on_after(0.2) as scope:
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(corosync.endpoint.connect_cpg)
                    nursery.start_soon(corosync.endpoint.connect_votequorum)
        assert scope.cancelled_caught
    finally:
        await corosync.thaw()
    with trio.fail_after(10):  # noqa: ASYNC912 - it runs at least once
        while open_fds() > before:  # noqa: ASYNC110 - nobody tells when a worker has closed them
            await trio.sleep(0.05)


async def test_death_in_the_middle_of_an_iteration(corosync: Node) -> None:
    """cpg_iteration_next would wait for ever for a daemon that is gone."""
    handles = [await joined(corosync, b"group %d" % number) for number in range(10)]

    async def iterate() -> None:
        with pytest.raises(triocoro.LibraryError):
            while True:
                await handles[0].iterate(IterationType.ALL, None)

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(iterate)
            await trio.sleep(0.2)
            await corosync.freeze()
            await trio.sleep(0.1)
            await corosync.kill()
    with pytest.raises(triocoro.LibraryError):
        handles[1].dispatch(1, 1)
    with pytest.raises(triocoro.LibraryError):
        for _ in range(100):
            handles[1].multicast([b"x"])
    await close(*handles)


async def test_namespaces_that_cannot_be_entered() -> None:
    class OurOwnError(Exception):
        pass

    def refuse() -> NoReturn:
        raise OurOwnError

    with pytest.raises(OurOwnError):
        await CorosyncEndpoint("refused", refuse).connect_cpg()

    async with trio.open_nursery() as nursery:
        process = await nursery.start(trio.run_process, ["sleep", "60"])
        pidfd = os.pidfd_open(process.pid)
        nursery.cancel_scope.cancel()
    try:
        with pytest.raises(triocoro.CorosyncUnavailableError, match=r"namespaces.*setns"):
            await CorosyncEndpoint("gone", lambda: pidfd).connect_cpg()
    finally:
        os.close(pidfd)


async def test_child_in_the_namespaces_is_seen_by_nobody(corosync: Node) -> None:
    received: list[int] = []
    before = signal.signal(signal.SIGCHLD, lambda number, _: received.append(number))
    try:
        for _ in range(3):
            handle = await corosync.endpoint.connect_cpg()
            await close(handle)
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert received == []
    assert not re.search(rf"^\d+ \(\S+\) Z {os.getpid()} ", _all_stat(), re.MULTILINE)


def _all_stat() -> str:
    lines: list[str] = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                lines.append((folder / "stat").read_text())
            except OSError:
                continue
    return "\n".join(lines)
