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
from enum import IntEnum, IntFlag
from pathlib import Path
from typing import NoReturn

import pytest
import trio

import triocoro
from triocoro import _validate
from triocoro._corosync import CorosyncEndpoint
from triocoro._raw import MULTICAST_BURST, MulticastStatus, RawCpg
from triocoro._types import (
    CmapMap,
    CmapTrack,
    CmapType,
    ConfigChange,
    Dispatch,
    FlowControlState,
    IterationType,
    Message,
    QuorumType,
    Reason,
    ShutdownFlag,
    Track,
)
from triocoro.testing import Node

pytestmark = pytest.mark.corosync_real_only

SOURCES = Path(triocoro.__file__).parent / "_corosync"

LIBRARIES = ("cpg", "votequorum", "quorum", "cmap", "cfg")

# Our names for the types that have a name in the real headers, too.
REAL_TYPES = {
    "tc_cpg_address_t": "struct cpg_address",
    "tc_cpg_name_t": "struct cpg_name",
    "tc_cpg_iteration_description_t": "struct cpg_iteration_description_t",
    "tc_cpg_ring_id_t": "struct cpg_ring_id",
    "tc_cpg_model_data_t": "cpg_model_data_t",
    "tc_cpg_model_v1_data_t": "cpg_model_v1_data_t",
    "tc_votequorum_info_t": "struct votequorum_info",
    "tc_votequorum_node_t": "votequorum_node_t",
    "tc_votequorum_ring_id_t": "votequorum_ring_id_t",
    "tc_votequorum_callbacks_t": "votequorum_callbacks_t",
    "tc_quorum_ring_id_t": "struct quorum_ring_id",
    "tc_quorum_model_data_t": "quorum_model_data_t",
    "tc_quorum_model_v1_data_t": "quorum_model_v1_data_t",
    "tc_cmap_notify_value_t": "struct cmap_notify_value",
    "tc_cfg_callbacks_t": "corosync_cfg_callbacks_t",
    "tc_cfg_node_address_t": "corosync_cfg_node_address_t",
    "tc_cfg_link_status_t": "struct corosync_knet_link_status_v1",
    "tc_cfg_node_status_t": "struct corosync_cfg_node_status_v1",
}

# Members whose names differ.
REAL_MEMBERS = {
    ("tc_cpg_model_v1_data_t", "deliver"): "cpg_deliver_fn",
    ("tc_cpg_model_v1_data_t", "confchg"): "cpg_confchg_fn",
    ("tc_cpg_model_v1_data_t", "totem_confchg"): "cpg_totem_confchg_fn",
    ("tc_votequorum_callbacks_t", "quorum"): "votequorum_quorum_notify_fn",
    ("tc_votequorum_callbacks_t", "expectedvotes"): "votequorum_expectedvotes_notify_fn",
    ("tc_votequorum_callbacks_t", "nodelist"): "votequorum_nodelist_notify_fn",
    ("tc_quorum_model_v1_data_t", "quorum"): "quorum_notify_fn",
    ("tc_quorum_model_v1_data_t", "nodelist"): "nodelist_notify_fn",
    ("tc_cfg_callbacks_t", "shutdown"): "corosync_cfg_shutdown_callback",
}

REAL_CALLBACKS = {
    "tc_cpg_deliver_t": "cpg_deliver_fn_t",
    "tc_cpg_confchg_t": "cpg_confchg_fn_t",
    "tc_cpg_totem_confchg_t": "cpg_totem_confchg_fn_t",
    "tc_votequorum_quorum_t": "votequorum_quorum_notification_fn_t",
    "tc_votequorum_nodelist_t": "votequorum_nodelist_notification_fn_t",
    "tc_votequorum_expectedvotes_t": "votequorum_expectedvotes_notification_fn_t",
    "tc_quorum_quorum_t": "quorum_v1_quorum_notification_fn_t",
    "tc_quorum_nodelist_t": "quorum_v1_nodelist_notification_fn_t",
    "tc_cmap_notify_t": "cmap_notify_fn_t",
    "tc_cfg_shutdown_t": "corosync_cfg_shutdown_callback_t",
}

REAL_NUMBERS = {
    "TC_CS_OK": "CS_OK",
    "TC_CS_LIBRARY": "CS_ERR_LIBRARY",
    "TC_CS_TRY_AGAIN": "CS_ERR_TRY_AGAIN",
    "TC_CS_INVALID_PARAM": "CS_ERR_INVALID_PARAM",
    "TC_CS_NO_MEMORY": "CS_ERR_NO_MEMORY",
    "TC_CS_BAD_HANDLE": "CS_ERR_BAD_HANDLE",
    "TC_CS_NOT_EXIST": "CS_ERR_NOT_EXIST",
    "TC_CS_NO_SPACE": "CS_ERR_NO_SPACE",
    "TC_CS_NO_SECTIONS": "CS_ERR_NO_SECTIONS",
    "TC_DISPATCH_ONE_NONBLOCKING": "CS_DISPATCH_ONE_NONBLOCKING",
    "TC_CPG_TYPE_AGREED": "CPG_TYPE_AGREED",
    "TC_CPG_MODEL_V1": "CPG_MODEL_V1",
    "TC_QUORUM_MODEL_V1": "QUORUM_MODEL_V1",
    "TC_CFG_NODE_STATUS_V1": "CFG_NODE_STATUS_V1",
}

# Our enumerations, and how C calls what is in them.
REAL_ENUMS: dict[type[IntEnum | IntFlag], str] = {
    Reason: "CPG_REASON_{}",
    IterationType: "CPG_ITERATION_{}",
    FlowControlState: "CPG_FLOW_CONTROL_{}",
    Dispatch: "CS_DISPATCH_{}",
    Track: "CS_TRACK_{}",
    triocoro.VotequorumFlag: "VOTEQUORUM_INFO_{}",
    triocoro.NodeState: "VOTEQUORUM_NODESTATE_{}",
    QuorumType: "QUORUM_{}",
    CmapMap: "CMAP_MAP_{}",
    CmapType: "CMAP_VALUETYPE_{}",
    CmapTrack: "CMAP_TRACK_{}",
    ShutdownFlag: "COROSYNC_CFG_SHUTDOWN_FLAG_{}",
}

# Ours, although 3.1 does not have them.
NEWER = {
    "votequorum_get_qdevice_extra_info",
    "votequorum_set_qdevice_extra_info",
    "VOTEQUORUM_INFO_QDEVICE_HAS_EXTRA_INFO",
}

# Not in our table, on purpose.
UNUSED = (
    r"(cpg|quorum|cmap)_initialize",  # the model and the map can be chosen with those that take one
    r"\w+_context_[gs]et",  # Python has attributes
    r"cmap_[gs]et_(u?int\d+|float|double|string)",  # cmap_get and cmap_set take any type
)

HEADERS = "#include <stddef.h>\n#include <sys/types.h>\n#include <netinet/in.h>\n#include <corosync/corotypes.h>\n" + (
    "".join(f"#include <corosync/{library}.h>\n" for library in LIBRARIES)
)


def compile_c(source: str, tmp_path: Path, *options: str) -> None:
    file = tmp_path / "check.c"
    file.write_text(source)
    command = ["gcc", "-std=gnu11", "-Wall", "-Werror", f"-I{SOURCES}", *options, str(file)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.fixture
def headers() -> str:
    files = [Path(f"/usr/include/corosync/{library}.h") for library in LIBRARIES]
    if not all(file.exists() for file in files):
        pytest.skip("Corosync's headers are not installed (lib{cpg,votequorum,quorum,cmap,cfg}-dev)")
    return "".join(file.read_text() for file in files)


def functions(library: str) -> list[str]:
    """What the shim looks for in a library."""
    from triocoro._corosync._shim import ffi, lib

    index = getattr(lib, f"TC_LIB{library.upper()}")
    names: list[str] = []
    while name := lib.tc_symbol_name(index, len(names)):
        names.append(ffi.string(name).decode())
    return names


def test_layouts_are_those_of_the_real_headers(tmp_path: Path, headers: str) -> None:
    from triocoro._corosync import _cfg, _cpg

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
    numbers = {real.format(member.name): int(member) for ours, real in REAL_ENUMS.items() for member in ours}
    checks += [f"(int){name} == {number}" for name, number in numbers.items() if name in headers or name not in NEWER]
    checks += [
        f"CPG_MODEL_V1_DELIVER_INITIAL_TOTEM_CONF == {_cpg.INITIAL_TOTEM_CONF}",
        f"CMAP_KEYNAME_MINLEN == {_validate.MIN_KEY}",
        f"CMAP_KEYNAME_MAXLEN == {_validate.MAX_KEY}",
        f"CFG_MAX_LINKS == {_cfg.MAX_LINKS}",
        f"VOTEQUORUM_QDEVICE_MAX_NAME_LEN == {_validate.MAX_QDEVICE_NAME + 1}",
    ]
    source = HEADERS + '#include "abi.h"\n' + "\n".join(f'_Static_assert({c}, "{c}");' for c in checks)
    compile_c(source, tmp_path, "-c", "-o", str(tmp_path / "check.o"))


def test_signatures_are_those_of_the_real_headers(tmp_path: Path, headers: str) -> None:
    # The table, built from the real types, takes the real functions without a cast.
    names = [name for library in LIBRARIES for name in functions(library)]
    present = [name for name in names if re.search(rf"\b{name}\b", headers)]
    assert set(names) - set(present) <= NEWER
    source = [HEADERS, "#define TC_REAL_TYPES"]
    source += [f"#define {ours} {real}" for ours, real in REAL_TYPES.items()]
    source += ['#include "tables.h"', "struct tc_functions tc_table = {"]
    source += [f".{name} = {name}," for name in present]
    source += ["};"]
    source += [f"{real} check_{ours}({ours} callback) {{ return callback; }}" for ours, real in REAL_CALLBACKS.items()]
    compile_c("\n".join(source), tmp_path, "-c", "-o", str(tmp_path / "check.o"))


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_exported_function_is_in_the_table(library: str) -> None:
    from triocoro._corosync import _libraries

    table: _libraries.Library = getattr(_libraries, library.upper())
    table.load()
    loaded = {
        line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if f"/{table.soname}" in line
    }
    (path,) = loaded
    listing = subprocess.run(["readelf", "--dyn-syms", "-W", path], capture_output=True, text=True, check=True).stdout
    exported = {
        fields[7].split("@")[0]
        for fields in map(str.split, listing.splitlines())
        if len(fields) >= 8 and fields[3] == "FUNC" and fields[6] != "UND"
    }
    offered = {name for name in exported if re.match(rf"(corosync_)?{library}_", name)}
    names = functions(library)
    assert {name for name in offered if not re.fullmatch("|".join(UNUSED), name)} == set(names) - (NEWER - offered)
    assert len(names) == len(set(names))


def test_extension_needs_nothing_but_libc() -> None:
    from triocoro._corosync import _shim

    file: str = getattr(_shim, "__file__")  # noqa: B009 # the stub does not have it
    listing = subprocess.run(["readelf", "-d", file], capture_output=True, text=True, check=True).stdout
    assert re.findall(r"\(NEEDED\).*\[(.*)\]", listing) == ["libc.so.6"]


async def test_missing_library_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    from triocoro._corosync import _cfg, _cmap, _cpg, _libraries, _quorum, _votequorum
    from triocoro._corosync._handle import Handle

    endpoint = CorosyncEndpoint("nowhere")
    connects: dict[type[Handle[object]], Callable[[], Awaitable[object]]] = {
        _cpg.CpgHandle: endpoint.connect_cpg,
        _votequorum.VotequorumHandle: endpoint.connect_votequorum,
        _quorum.QuorumHandle: endpoint.connect_quorum,
        _cmap.CmapHandle: lambda: endpoint.connect_cmap(CmapMap.ICMAP),
        _cfg.CfgHandle: endpoint.connect_cfg,
    }
    for handle, connect in connects.items():
        library = handle.library
        monkeypatch.setattr(handle, "library", _libraries.Library(library.index, "libabsent.so.4", library.package))
        with pytest.raises(triocoro.CorosyncUnavailableError, match=rf"\b{library.package}\b") as caught:
            await connect()
        assert "libabsent.so.4" in str(caught.value)


MISSING_SYMBOL = """
import sys
from triocoro import NotSupportedError
from triocoro._corosync._libraries import Library, failure
from triocoro._corosync._shim import ffi, lib

Library(lib.TC_LIBCPG, sys.argv[1], "none").load()
assert lib.cpg_leave(1, ffi.new("tc_cpg_name_t *", (1, b"x"))) == 1
code = lib.cpg_local_get(1, ffi.new("unsigned int *"))
error = failure(code, "cpg_local_get")
assert type(error) is NotSupportedError, error
assert error.function == "cpg_local_get"
assert lib.tc_cpg_multicast(1, 0, b"", [0], 1) & 0xFFFFFFFF == lib.TC_MISSING & 0xFFFFFFFF
assert lib.tc_dispatch(lib.TC_LIBCPG, 1, lib.tc_arena_new(), 1, 1) == lib.TC_MISSING
assert lib.tc_connect(lib.TC_LIBCPG, -1, ffi.new("struct tc_connection *")) == lib.TC_MISSING
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
        thread = threading.Thread(
            target=lambda: codes.append(lib.tc_dispatch(lib.TC_LIBCPG, 1, lib.tc_arena_new(), 1, 1))
        )
        thread.start()
    finally:
        threading.stack_size(size)
    thread.join()
    assert codes == [lib.TC_SHALLOW]
    assert "stack" in str(_libraries.failure(lib.TC_SHALLOW, "cpg_dispatch"))
    assert lib.tc_dispatch(lib.TC_LIBCPG, 1, lib.tc_arena_new(), 1, 1) == triocoro.CsError.BAD_HANDLE


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
