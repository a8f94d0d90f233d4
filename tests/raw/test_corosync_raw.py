"""The raw handles over the C libraries: what the shim promises, and what holds at that seam, on the fake as well."""

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
from typing import NoReturn, cast

import pytest
import trio
import trio.testing
from support import installed
from support.raw import EVERYTHING, close, joined, payloads, take
from support.witness import ask, inside

import triocoro
from triocoro import _validate
from triocoro._corosync import CorosyncEndpoint
from triocoro._raw import MULTICAST_BURST, MulticastStatus, RawCpg
from triocoro._services import CFG, CPG, ICMAP, QUORUM, STATS, VOTEQUORUM, CmapSpec, VotequorumSpec
from triocoro._types import (
    CmapChange,
    CmapMap,
    CmapNotification,
    CmapTrack,
    CmapType,
    CmapValue,
    ConfigChange,
    Dispatch,
    FlowControlState,
    IterationType,
    NodelistChange,
    QuorumChange,
    QuorumType,
    Reason,
    ShutdownFlag,
    Track,
    TypedValue,
    VotequorumFlag,
)
from triocoro.testing import Cluster, Node

pytestmark = pytest.mark.deadline(30)


of_the_libraries = pytest.mark.corosync_real_only(reason="it is about the C libraries, or our shim over them")

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
    "tc_votequorum_model_v1_data_t": "votequorum_model_v1_data_t",
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
    ("tc_votequorum_model_v1_data_t", "quorum"): "votequorum_quorum_notify_fn",
    ("tc_votequorum_model_v1_data_t", "expectedvotes"): "votequorum_expectedvotes_notify_fn",
    ("tc_votequorum_model_v1_data_t", "nodelist"): "votequorum_nodelist_notify_fn",
    ("tc_votequorum_model_v1_data_t", "extra_info"): "votequorum_qdevice_extra_info_fn",
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
    "tc_votequorum_extra_info_t": "votequorum_qdevice_extra_info_fn_t",
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
    "TC_VOTEQUORUM_MODEL_V1": "VOTEQUORUM_MODEL_V1",
    "TC_VOTEQUORUM_HAS_EXTRA_INFO": "VOTEQUORUM_INFO_QDEVICE_HAS_EXTRA_INFO",
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
    VotequorumFlag: "VOTEQUORUM_INFO_{}",
    triocoro.NodeState: "VOTEQUORUM_NODESTATE_{}",
    QuorumType: "QUORUM_{}",
    CmapMap: "CMAP_MAP_{}",
    CmapType: "CMAP_VALUETYPE_{}",
    CmapTrack: "CMAP_TRACK_{}",
    ShutdownFlag: "COROSYNC_CFG_SHUTDOWN_FLAG_{}",
}

# Ours, although Corosync up to 3.1.10 does not have them.
NEWER = installed.EXTRA_INFO | {
    "votequorum_model_v1_data_t",
    "votequorum_qdevice_extra_info_fn_t",
    "VOTEQUORUM_MODEL_V1",
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
    folders = [f"-I{SOURCES}", f"-I{installed.include()}"]
    command = ["gcc", "-std=gnu11", "-Wall", "-Werror", *folders, *options, str(file)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.fixture
def headers() -> str:
    files = [installed.include() / "corosync" / f"{library}.h" for library in LIBRARIES]
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


@of_the_libraries
def test_layouts_are_those_of_the_real_headers(tmp_path: Path, headers: str) -> None:
    from triocoro._corosync import _cfg, _cpg

    abi = (SOURCES / "abi.h").read_text()
    structs: dict[str, list[str]] = {
        name: re.findall(r"(\w+)(?:\[\d+\])?;", body)
        for body, name in re.findall(r"typedef struct \{(.*?)\} (\w+);", abi, re.DOTALL)
    }
    assert structs.keys() == REAL_TYPES.keys()

    def there(name: str) -> bool:
        return name not in NEWER or re.search(rf"\b{name}\b", headers) is not None

    checks: list[str] = []
    for ours, members in structs.items():
        real = REAL_TYPES[ours]
        if not there(real):
            continue
        checks.append(f"sizeof({ours}) == sizeof({real})")
        for member in members:
            its = REAL_MEMBERS.get((ours, member), member)
            checks.append(f"offsetof({ours}, {member}) == offsetof({real}, {its})")
            checks.append(f"sizeof((({ours} *)0)->{member}) == sizeof((({real} *)0)->{its})")
    checks += [f"(int){ours} == (int){real}" for ours, real in REAL_NUMBERS.items() if there(real)]
    checks += [f"(int)CS_{'' if c == 1 else 'ERR_'}{c.name} == {int(c)}" for c in triocoro.CsError]
    numbers = {real.format(member.name): int(member) for ours, real in REAL_ENUMS.items() for member in ours}
    checks += [f"(int){name} == {number}" for name, number in numbers.items() if there(name)]
    checks += [
        f"CPG_MODEL_V1_DELIVER_INITIAL_TOTEM_CONF == {_cpg.INITIAL_TOTEM_CONF}",
        f"CMAP_KEYNAME_MINLEN == {_validate.MIN_KEY}",
        f"CMAP_KEYNAME_MAXLEN == {_validate.MAX_KEY}",
        f"CFG_MAX_LINKS == {_cfg.MAX_LINKS}",
        f"VOTEQUORUM_QDEVICE_MAX_NAME_LEN == {_validate.MAX_QDEVICE_NAME + 1}",
    ]
    source = HEADERS + '#include "abi.h"\n' + "\n".join(f'_Static_assert({c}, "{c}");' for c in checks)
    compile_c(source, tmp_path, "-c", "-o", str(tmp_path / "check.o"))


@of_the_libraries
def test_signatures_are_those_of_the_real_headers(tmp_path: Path, headers: str) -> None:
    # The table, built from the real types, takes the real functions without a cast.
    names = [name for library in LIBRARIES for name in functions(library)]
    present = [name for name in names if re.search(rf"\b{name}\b", headers)]
    assert set(names) - set(present) <= NEWER
    source = [HEADERS, "#define TC_REAL_TYPES"]
    lacking = {name for name in NEWER if re.search(rf"\b{name}\b", headers) is None}
    # What the headers lack, another type stands in for: no function of theirs takes it.
    source += [
        f"typedef struct {{int none;}} {ours};" if real in lacking else f"#define {ours} {real}"
        for ours, real in REAL_TYPES.items()
    ]
    source += ['#include "tables.h"', "struct tc_functions tc_table = {"]
    source += [f".{name} = {name}," for name in present]
    source += ["};"]
    source += [
        f"{real} check_{ours}({ours} callback) {{ return callback; }}"
        for ours, real in REAL_CALLBACKS.items()
        if real not in lacking
    ]
    compile_c("\n".join(source), tmp_path, "-c", "-o", str(tmp_path / "check.o"))


@of_the_libraries
@pytest.mark.parametrize("library", LIBRARIES)
def test_every_exported_function_is_in_the_table(library: str) -> None:
    offered = {name for name in installed.functions(f"lib{library}") if re.match(rf"(corosync_)?{library}_", name)}
    names = functions(library)
    assert {name for name in offered if not re.fullmatch("|".join(UNUSED), name)} == set(names) - (NEWER - offered)
    assert len(names) == len(set(names))


@pytest.fixture
def parts(tmp_path: Path) -> Callable[[str], str]:
    """Run a part of tests/raw/shim_parts.c, and return what it prints."""
    program = tmp_path / "parts"
    source = Path(__file__).with_name("shim_parts.c").read_text()
    units = [str(unit) for unit in SOURCES.glob("*.c") if unit.name != "_shim.c"]  # which cffi generates
    options = ["-D_GNU_SOURCE", "-Wextra", "-pthread", "-Wl,--wrap=pthread_sigmask"]
    compile_c(source, tmp_path, *units, *options, "-o", str(program))

    def run(part: str) -> str:
        result = subprocess.run([program, part], capture_output=True, text=True, timeout=60, check=False)
        assert result.returncode == 0, result.stderr
        return result.stdout

    return run


@of_the_libraries
def test_one_thread_at_a_time_has_the_trackers(parts: Callable[[str], str]) -> None:
    """libcmap keeps the trackers of all connections in one table, which has no lock."""
    assert parts("trackers") == ""


@of_the_libraries
def test_listing_of_a_map_that_changes(parts: Callable[[str], str]) -> None:
    # A value that has grown is read again, with room for any.
    assert parts("listing").splitlines() == ["first: 1", "grown: 9", "unknown length: 1", "last: 1"]


@of_the_libraries
def test_an_iteration_whose_thread_is_faster_than_its_creator(parts: Callable[[str], str]) -> None:
    assert parts("iteration") == ""


@of_the_libraries
def test_membership_in_which_some_came_and_others_went(parts: Callable[[str], str]) -> None:
    from triocoro._corosync import _quorum

    change = _quorum._nodelist(3, 1, bytes.fromhex(parts("membership")))
    assert change == NodelistChange(triocoro.RingId(1, 2**40), (1, 2, 3), (3, 4), (5,))


@of_the_libraries
def test_zero_copy_when_the_daemon_is_busy_or_has_gone(parts: Callable[[str], str]) -> None:
    assert parts("zero copy") == ""


@of_the_libraries
def test_extension_needs_nothing_but_libc() -> None:
    from triocoro._corosync import _shim

    file: str = getattr(_shim, "__file__")  # noqa: B009 # the stub does not have it
    listing = subprocess.run(["readelf", "-d", file], capture_output=True, text=True, check=True).stdout
    assert re.findall(r"\(NEEDED\).*\[(.*)\]", listing) == ["libc.so.6"]


@of_the_libraries
async def test_missing_library_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    from triocoro._corosync import _cfg, _cmap, _cpg, _libraries, _quorum, _votequorum
    from triocoro._corosync._handle import CorosyncHandle

    endpoint = CorosyncEndpoint("nowhere")
    connects: dict[type[CorosyncHandle[object]], Callable[[], Awaitable[object]]] = {
        _cpg.CorosyncCpg: lambda: endpoint.connect(CPG),
        _votequorum.CorosyncVotequorum: lambda: endpoint.connect(VOTEQUORUM),
        _quorum.CorosyncQuorum: lambda: endpoint.connect(QUORUM),
        _cmap.CorosyncCmap: lambda: endpoint.connect(ICMAP),
        _cfg.CorosyncCfg: lambda: endpoint.connect(CFG),
    }
    for handle, connect in connects.items():
        library = handle.library
        monkeypatch.setattr(handle, "library", _libraries.Library(library.index, "libabsent.so.4", library.package))
        with pytest.raises(triocoro.CorosyncUnavailableError, match=rf"\b{library.package}\b") as caught:
            await connect()
        assert "libabsent.so.4" in str(caught.value)


MISSING_SYMBOL = """
import os, sys
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
job = ffi.new("struct tc_allocation *")
job.fd, job.size = os.pipe()[0], 1
assert lib.tc_cpg_zcb_alloc(-1, job) == lib.TC_MISSING
assert lib.tc_connect(lib.TC_LIBCPG, -1, ffi.new("struct tc_connection *")) == lib.TC_MISSING
print("ok")
"""


@of_the_libraries
def test_missing_symbol_is_an_error_at_the_call_only(tmp_path: Path) -> None:
    stub = tmp_path / "libstub.so"
    compile_c("int cpg_leave(void) { return 1; }", tmp_path, "-shared", "-fPIC", "-o", str(stub))
    # In a process of its own, since the table is one per process.
    command = [sys.executable, "-c", MISSING_SYMBOL, str(stub)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout.strip()) == (0, "ok"), result.stderr


@of_the_libraries
def test_small_stack_is_an_error_and_not_a_crash() -> None:
    from triocoro._corosync import _libraries
    from triocoro._corosync._shim import ffi, lib

    _libraries.CPG.load()
    _libraries.CFG.load()
    codes: list[int] = []

    def call() -> None:
        addresses, count = ffi.new("tc_cfg_node_address_t[]", 1), ffi.new("int *")
        codes.append(lib.tc_dispatch(lib.TC_LIBCPG, 1, lib.tc_arena_new(), 1, 1))
        codes.append(lib.tc_cfg_get_node_addrs(1, 1, 1, count, addresses))

    size = threading.stack_size(256 * 1024)
    try:
        thread = threading.Thread(target=call)
        thread.start()
    finally:
        threading.stack_size(size)
    thread.join()
    assert codes == [lib.TC_SHALLOW] * 2
    assert "stack" in str(_libraries.failure(lib.TC_SHALLOW, "cpg_dispatch"))
    call()
    assert codes[2:] == [triocoro.CsError.BAD_HANDLE] * 2


STACK = """
from triocoro._corosync import _libraries
from triocoro._corosync._shim import lib

_libraries.CPG.load()
print(lib.tc_dispatch(lib.TC_LIBCPG, 1, lib.tc_arena_new(), 1, 1) == lib.TC_SHALLOW)
"""


FORKED = """
import os
import threading
from triocoro._corosync import _libraries
from triocoro._corosync._shim import lib

def fork():
    child = os.fork()
    if child == 0:
        os._exit(lib.tc_dispatch(lib.TC_LIBCPG, 1, lib.tc_arena_new(), 1, 1) != lib.TC_SHALLOW)
    print(os.waitpid(child, 0)[1])

_libraries.CPG.load()
threading.stack_size(512 * 1024)
thread = threading.Thread(target=fork)
thread.start()
thread.join()
"""


@of_the_libraries
def test_a_child_that_a_thread_has_forked_has_the_threads_stack() -> None:
    command = [sys.executable, "-W", "ignore", "-c", FORKED]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout.strip()) == (0, "0"), result.stderr


@of_the_libraries
@pytest.mark.parametrize("size,shallow", [("1024", True), ("8192", False), ("unlimited", False)])
def test_the_first_threads_stack_goes_as_far_as_its_limit(size: str, *, shallow: bool) -> None:
    command = ["sh", "-c", f'ulimit -s {size} && exec "$@"', "sh", sys.executable, "-c", STACK]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout.strip()) == (0, str(shallow)), result.stderr


# --- with a daemon ---


def open_fds() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def until(condition: Callable[[], bool]) -> None:
    """For what nobody tells."""
    with trio.fail_after(10):  # noqa: ASYNC912 - it runs at least once
        while not condition():  # noqa: ASYNC110 - nobody tells
            await trio.sleep(0.02)


async def cancelled(call: Callable[[], Awaitable[object]]) -> None:
    with trio.move_on_after(0.1) as scope:
        await call()
    assert scope.cancelled_caught


async def test_payloads_of_all_sizes(corosync: Node) -> None:
    handle = await joined(corosync.endpoint, b"sizes\0")
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
    handle = await joined(corosync.endpoint, b"bounds")
    messages = [bytes([n]) * 100 for n in range(MULTICAST_BURST + 1)]
    assert handle.multicast(messages) == (MULTICAST_BURST, MulticastStatus.SENT)
    seen: list[bytes] = []
    with trio.fail_after(10):  # noqa: ASYNC912 - it runs at least once
        while len(seen) < MULTICAST_BURST:
            await trio.lowlevel.wait_readable(handle.fileno())
            # Three events are the first to exceed 250 bytes.
            taken, events = handle.dispatch(5, 250)
            assert 1 <= taken == len(events) <= 3
            seen += payloads(events)
    assert seen == messages[:MULTICAST_BURST]
    taken, events = handle.dispatch(5, 250)
    assert (taken, list(events)) == (0, [])
    await close(handle)


async def test_a_fragment_is_taken_but_makes_no_event(corosync: Node) -> None:
    handle = await joined(corosync.endpoint, b"fragments")
    await handle.multicast_fragmented(bytes(2 * handle.max_atomic_message_size))
    taken: list[int] = []
    events: list[object] = []
    with trio.fail_after(10):  # noqa: ASYNC912 - it runs at least once
        while not events:
            await trio.lowlevel.wait_readable(handle.fileno())
            number, more = handle.dispatch(1, EVERYTHING)
            taken.append(number)
            events += more
    assert taken == [1, 1]
    await close(handle)


async def test_iteration(corosync: Node) -> None:
    handles = [await joined(corosync.endpoint, group) for group in (b"one", b"two\0", b"x" * 127)]
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


@pytest.mark.deadline(60)
async def test_many_connects_at_once(corosync: Node) -> None:
    """libqb's table of handles breaks when two threads create one at the same time."""

    async def use(number: int) -> None:
        group = b"group %d" % number
        handle = await joined(corosync.endpoint, group)
        assert await handle.local_nodeid() == corosync.nodeid
        assert len(await handle.iterate(IterationType.ONE_GROUP, group)) == 1
        await close(handle)

    for _ in range(3):
        async with trio.open_nursery() as nursery:
            for number in range(24):
                nursery.start_soon(use, number)


async def test_frozen_daemon_spins_nobody(corosync: Node) -> None:
    handle = await joined(corosync.endpoint, b"frozen")
    await corosync.freeze()
    try:
        bursts, began = 0, time.process_time()
        while handle.multicast([b"x" * 64] * MULTICAST_BURST)[1] is MulticastStatus.SENT:
            bursts += 1
        assert bursts > 0
        filled = time.process_time()
        # As often as before, and it takes less: that there is no room is seen at once.
        for _ in range(bursts):
            assert handle.multicast([b"x" * 64] * MULTICAST_BURST) == (0, MulticastStatus.FULL)
        assert time.process_time() - filled < filled - began
        await cancelled(handle.local_nodeid)
        assert handle.lane.statistics().borrowed_tokens == 1
        await cancelled(lambda: corosync.endpoint.connect(VOTEQUORUM))
        handle.close(leave=True)
        assert not handle.closed
        await cancelled(handle.wait_closed)
    finally:
        await corosync.thaw()
    await close(handle)


async def test_cancelled_join_is_undone(corosync: Node) -> None:
    handle = await corosync.endpoint.connect(CPG)
    await corosync.freeze()
    try:
        await cancelled(lambda: handle.join(b"undone"))
    finally:
        await corosync.thaw()
    await expect_left(handle)
    await close(handle)


@of_the_libraries
async def test_join_that_ended_before_its_cancellation_is_undone(
    corosync: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    from triocoro._corosync._handle import Undoable

    handle = await corosync.endpoint.connect(CPG)
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


@of_the_libraries
async def test_cancelled_connects_leave_nothing(corosync: Node) -> None:
    before = open_fds()
    await corosync.freeze()
    try:
        with trio.move_on_after(0.2) as scope:
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(corosync.endpoint.connect, CPG)
                    nursery.start_soon(corosync.endpoint.connect, VOTEQUORUM)
                    nursery.start_soon(corosync.endpoint.connect, QUORUM)
                    nursery.start_soon(corosync.endpoint.connect, STATS)
        assert scope.cancelled_caught
    finally:
        await corosync.thaw()
    await until(lambda: open_fds() <= before)


@of_the_libraries
async def test_death_in_the_middle_of_an_iteration(corosync: Node) -> None:
    """cpg_iteration_next would wait for ever for a daemon that is gone."""
    handles = [await joined(corosync.endpoint, b"group %d" % number) for number in range(10)]

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


@of_the_libraries
async def test_namespaces_that_cannot_be_entered() -> None:
    class OurOwnError(Exception):
        pass

    def refuse() -> NoReturn:
        raise OurOwnError

    with pytest.raises(OurOwnError):
        await CorosyncEndpoint("refused", refuse).connect(CPG)

    async with trio.open_nursery() as nursery:
        process = await nursery.start(trio.run_process, ["sleep", "60"])
        pidfd = os.pidfd_open(process.pid)
        nursery.cancel_scope.cancel()
    try:
        with pytest.raises(triocoro.CorosyncUnavailableError, match=r"namespaces.*setns"):
            await CorosyncEndpoint("gone", lambda: pidfd).connect(CPG)
    finally:
        os.close(pidfd)


@of_the_libraries
async def test_child_in_the_namespaces_is_seen_by_nobody(corosync: Node) -> None:
    received: list[int] = []
    before = signal.signal(signal.SIGCHLD, lambda number, _: received.append(number))
    try:
        for _ in range(3):
            handle = await corosync.endpoint.connect(CPG)
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


# --- quorum, and the rest of votequorum ---


@pytest.mark.corosync(nodes=2, two_node=False)
async def test_quorum(corosync_cluster: Cluster) -> None:
    handle = await corosync_cluster[1].endpoint.connect(QUORUM)
    assert handle.type is QuorumType.SET
    assert await handle.is_quorate()
    await handle.trackstart(Track.CURRENT | Track.CHANGES)
    nodes, quorum = await take(handle, 2)
    assert isinstance(nodes, NodelistChange)
    assert nodes == NodelistChange(nodes.ring_id, (1, 2), (), ())
    assert quorum == QuorumChange(quorate=True, ring_id=nodes.ring_id, members=(1, 2))

    await corosync_cluster[2].kill()
    nodes, quorum = await take(handle, 2)
    assert isinstance(nodes, NodelistChange)
    assert nodes == NodelistChange(nodes.ring_id, (1,), (), (2,))
    assert quorum == QuorumChange(quorate=False, ring_id=nodes.ring_id, members=(1,))
    assert not await handle.is_quorate()

    await corosync_cluster[2].start()
    nodes = (await take(handle, 1))[0]
    assert isinstance(nodes, NodelistChange)
    assert nodes == NodelistChange(nodes.ring_id, (1, 2), (2,), ())
    quorum = QuorumChange(quorate=True, ring_id=nodes.ring_id, members=(1, 2))
    while quorum not in await take(handle, 1):
        pass

    await handle.trackstop()
    await handle.trackstart(Track.CURRENT)
    assert await take(handle, 2) == [NodelistChange(nodes.ring_id, (1, 2), (), ()), quorum]
    await close(handle)


async def test_qdevice_calls(corosync: Node) -> None:
    handle = await corosync.endpoint.connect(VOTEQUORUM)
    await handle.trackstart(Track.CURRENT)
    nodelist = (await take(handle, 1))[0]
    assert isinstance(nodelist, triocoro.VotequorumNodelist)
    ring = nodelist.ring_id

    async def device() -> tuple[str, VotequorumFlag]:
        info = await handle.info(1)
        return info.qdevice_name, info.flags & ~VotequorumFlag.QUORATE

    async def becomes(name: str, flags: VotequorumFlag) -> None:
        """Replies come before the messages that change it have been delivered."""
        with trio.fail_after(10):
            while await device() != (name, flags):  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.005)

    flags = VotequorumFlag.QDEVICE_REGISTERED
    await handle.qdevice_register("n" * 254)
    await becomes("n" * 254, flags)
    await handle.qdevice_update("n" * 254, "device")
    await becomes("device", flags)
    with pytest.raises(triocoro.MessageError):
        await handle.qdevice_poll("device", True, triocoro.RingId(ring.nodeid, ring.seq + 1))  # noqa: FBT003 - as in C
    await handle.qdevice_poll("device", False, ring)  # noqa: FBT003 - as in C
    flags |= VotequorumFlag.QDEVICE_ALIVE
    await becomes("device", flags)
    await handle.qdevice_poll("device", True, ring)  # noqa: FBT003 - as in C
    flags |= VotequorumFlag.QDEVICE_CAST_VOTE
    await becomes("device", flags)
    await handle.qdevice_master_wins("device", True)  # noqa: FBT003 - as in C
    await becomes("device", flags | VotequorumFlag.QDEVICE_MASTER_WINS)
    await handle.qdevice_master_wins("device", False)  # noqa: FBT003 - as in C
    await becomes("device", flags)
    await handle.qdevice_unregister("device")
    await becomes("", VotequorumFlag(0))

    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "votequorum_qdevice_unregister": lambda: handle.qdevice_unregister("device"),
        "votequorum_qdevice_update": lambda: handle.qdevice_update("device", "other"),
        "votequorum_qdevice_poll": lambda: handle.qdevice_poll("device", True, ring),  # noqa: FBT003 - as in C
        "votequorum_qdevice_master_wins": lambda: handle.qdevice_master_wins("device", True),  # noqa: FBT003 - as in C
    }
    for function, call in calls.items():
        with pytest.raises(triocoro.NotExistError) as caught:
            await call()
        assert caught.value.function == function
    await close(handle)


async def test_qdevice_extra_info_needs_a_newer_library(corosync: Node, corosync_mode: str) -> None:
    if corosync_mode == "real" and installed.tells_extra_info():
        pytest.skip("this libvotequorum is new enough; tests/sdk/test_extra_info.py has what it does")
    with pytest.raises(triocoro.NotSupportedError, match="votequorum_model_initialize"):
        await corosync.endpoint.connect(VotequorumSpec(extra_info=True))
    handle = await corosync.endpoint.connect(VOTEQUORUM)
    with pytest.raises(triocoro.NotSupportedError, match="votequorum_set_qdevice_extra_info"):
        await handle.set_qdevice_extra_info(b"info")
    with pytest.raises(triocoro.NotSupportedError, match="votequorum_get_qdevice_extra_info"):
        await handle.get_qdevice_extra_info(1)
    await close(handle)


# --- cmap ---

# Each type, what corosync-cmapctl calls it, and values with what it prints for them.
TYPED: list[tuple[CmapType, str, dict[CmapValue, str]]] = [
    (CmapType.INT8, "i8", {-(2**7): "-128", 2**7 - 1: "127"}),
    (CmapType.UINT8, "u8", {0: "0", 2**8 - 1: "255"}),
    (CmapType.INT16, "i16", {-(2**15): "-32768", 2**15 - 1: "32767"}),
    (CmapType.UINT16, "u16", {0: "0", 2**16 - 1: "65535"}),
    (CmapType.INT32, "i32", {-(2**31): "-2147483648", 2**31 - 1: "2147483647"}),
    (CmapType.UINT32, "u32", {0: "0", 2**32 - 1: "4294967295"}),
    (CmapType.INT64, "i64", {-(2**63): "-9223372036854775808", 2**63 - 1: "9223372036854775807"}),
    (CmapType.UINT64, "u64", {0: "0", 2**64 - 1: "18446744073709551615"}),
    (CmapType.FLOAT, "flt", {-0.5: "-0.500000", 1048576.0: "1048576.000000"}),
    (CmapType.DOUBLE, "dbl", {-0.1: "-0.100000", 2.0**40: "1099511627776.000000"}),
    (CmapType.STRING, "str", {"text": "text", "hé": "hé"}),
    (CmapType.BINARY, "bin", {b"bytes": "bytes", b"\0\x01": "\\x00\\x01"}),
]


@pytest.mark.corosync_real_only(reason="Corosync's tool cannot ask the fake")
@pytest.mark.parametrize("kind, letters, values", TYPED, ids=[letters for _, letters, _ in TYPED])
async def test_typed_values(corosync: Node, kind: CmapType, letters: str, values: dict[CmapValue, str]) -> None:
    handle = await corosync.endpoint.connect(ICMAP)
    for value, shown in values.items():
        await handle.set("test.ours", TypedValue(kind, value))
        assert await ask(corosync, "corosync-cmapctl", "-b", "-g", "test.ours") == f"test.ours ({letters}) = {shown}\n"
        assert await handle.get("test.ours") == TypedValue(kind, value)
        if letters != "bin":  # of which the program wants a file
            await ask(corosync, "corosync-cmapctl", "-s", "--", "test.its", letters, shown)
            assert await handle.get("test.its") == TypedValue(kind, value)
            assert await handle.items("test.its") == [("test.its", TypedValue(kind, value))]
    await close(handle)


@of_the_libraries
async def test_values_at_the_bounds(corosync: Node) -> None:
    handle = await corosync.endpoint.connect(ICMAP)
    key = "test." + "k" * 250
    for value in (
        TypedValue(CmapType.STRING, "x" * 16384),
        TypedValue(CmapType.BINARY, os.urandom(16384)),
        TypedValue(CmapType.STRING, ""),
        TypedValue(CmapType.BINARY, b""),
        # Not UTF-8, and nothing is lost.
        TypedValue(CmapType.STRING, b"\xff\xfe".decode(errors="surrogateescape")),
    ):
        await handle.set(key, value)
        assert await handle.get(key) == value
        assert await handle.items("test.") == [(key, value)]
    with pytest.raises(triocoro.InvalidParamError):
        await handle.set(key, TypedValue(CmapType.BINARY, bytes(16385)))
    await close(handle)


async def test_keys_that_cannot_be_used(corosync: Node) -> None:
    handle = await corosync.endpoint.connect(ICMAP)
    calls: dict[str, Callable[[str], Awaitable[object]]] = {
        "cmap_get": handle.get,
        "cmap_delete": handle.delete,
        "cmap_inc": handle.increment,
        "cmap_dec": handle.decrement,
    }
    for function, call in calls.items():
        with pytest.raises(triocoro.KeyNotFoundError, match=r"test\.absent") as caught:
            await call("test.absent")
        assert caught.value.function == function
    with pytest.raises(triocoro.AccessError, match="read-only"):
        await handle.set("internal_configuration.service.0.name", TypedValue(CmapType.STRING, "x"))
    await handle.set("test.number", TypedValue(CmapType.INT32, 5))
    await handle.increment("test.number")
    await handle.increment("test.number")
    await handle.decrement("test.number")
    assert await handle.get("test.number") == TypedValue(CmapType.INT32, 6)
    await handle.delete("test.number")
    assert await handle.items("test.") == []
    await close(handle)


@pytest.mark.corosync_real_only(reason="Corosync's tool cannot ask the fake")
async def test_items_are_those_of_cmapctl(corosync: Node) -> None:
    letters = {kind: name for kind, name, _ in TYPED}
    maps: list[tuple[CmapMap, list[str]]] = [(CmapMap.ICMAP, []), (CmapMap.STATS, ["-m", "stats"])]
    for number, arguments in maps:
        handle = await corosync.endpoint.connect(CmapSpec(number))
        for prefix in ("", "runtime.", "stats.srp.", "totem.token"):
            # It fails where there is nothing.
            command = ["corosync-cmapctl", "-b", *arguments, *filter(None, [prefix])]
            printed = await ask(corosync, *command, statuses=(0, 1))
            # Connections come and go, and the program's own is one.
            theirs = [line.partition(") = ")[0] for line in printed.splitlines() if "stats.ipcs.service" not in line]
            ours = [f"{key} ({letters[value.type]}" for key, value in await handle.items(prefix)]
            assert [line for line in ours if "stats.ipcs.service" not in line] == theirs
        await close(handle)


@pytest.mark.deadline(60)
async def test_listing_while_keys_come_and_go(corosync: Node) -> None:
    handles = [await corosync.endpoint.connect(ICMAP) for _ in range(2)]
    steady = {f"test.{number:03}" for number in range(0, 100, 2)}
    for key in steady:
        await handles[0].set(key, TypedValue(CmapType.UINT8, 0))

    async def churn() -> None:
        while True:
            for number in range(1, 100, 2):
                await handles[1].set(f"test.{number:03}", TypedValue(CmapType.STRING, "x"))
            for number in range(1, 100, 2):
                await handles[1].set(f"test.{number:03}", TypedValue(CmapType.STRING, "x" * 10 * number))
            for number in range(99, 0, -2):
                await handles[1].delete(f"test.{number:03}")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(churn)
        for _ in range(200):
            assert steady <= {key for key, _ in await handles[0].items("test.")}
        nursery.cancel_scope.cancel()
    await close(*handles)


async def test_changes(corosync: Node) -> None:
    handle = await corosync.endpoint.connect(ICMAP)
    every = CmapTrack.ADD | CmapTrack.MODIFY | CmapTrack.DELETE
    await handle.track_add(2**40, "test.", every | CmapTrack.PREFIX)
    await handle.track_add(2, "test.b", CmapTrack.DELETE)
    one, text = TypedValue(CmapType.UINT8, 1), TypedValue(CmapType.STRING, "text")
    await handle.set("test.a", one)
    await handle.set("test.a", one)  # equal: no change
    await handle.set("test.a", text)
    await handle.delete("test.a")
    await handle.set("test.b", one)
    await handle.delete("test.b")
    added = CmapChange(CmapTrack.ADD, "test.a", 1, None, CmapType.UINT8)
    modified = CmapChange(CmapTrack.MODIFY, "test.a", "text", 1, CmapType.STRING, CmapType.UINT8)
    deleted = CmapChange(CmapTrack.DELETE, "test.a", None, "text", None, CmapType.STRING)
    gone = CmapChange(CmapTrack.DELETE, "test.b", None, 1, None, CmapType.UINT8)
    events = await take(handle, 6)
    assert events[:4] == [
        *(CmapNotification(2**40, change) for change in (added, modified, deleted)),
        CmapNotification(2**40, CmapChange(CmapTrack.ADD, "test.b", 1, None, CmapType.UINT8)),
    ]
    assert {event.tracker: event.change for event in events[4:] if isinstance(event, CmapNotification)} == {
        2**40: gone,
        2: gone,
    }
    await close(handle)


async def test_tracker_of_all_keys(corosync: Node) -> None:
    handle = await corosync.endpoint.connect(ICMAP)
    await handle.track_add(1, "", CmapTrack.ADD | CmapTrack.PREFIX)
    await handle.set("test.a", TypedValue(CmapType.UINT8, 1))
    (event,) = await take(handle, 1)
    assert event == CmapNotification(1, CmapChange(CmapTrack.ADD, "test.a", 1, None, CmapType.UINT8))
    await close(handle)


async def test_statistics_that_come_and_go_have_one_value(corosync: Node) -> None:
    """The daemon tells of two, which are the same."""
    handle = await corosync.endpoint.connect(STATS)
    await handle.track_add(1, "stats.ipcs.service", CmapTrack.ADD | CmapTrack.DELETE | CmapTrack.PREFIX)
    other = await corosync.endpoint.connect(QUORUM)
    (event,) = await take(handle, 1)
    assert isinstance(event, CmapNotification)
    added = event.change
    assert added == CmapChange(CmapTrack.ADD, added.key, added.new, None, added.new_type)
    assert added.new is not None
    await close(other)
    while event.change.event is CmapTrack.ADD:
        (event,) = await take(handle, 1)
        assert isinstance(event, CmapNotification)
    deleted = event.change
    assert deleted == CmapChange(CmapTrack.DELETE, deleted.key, None, deleted.old, None, deleted.old_type)
    assert deleted.old is not None
    await close(handle)


async def test_deleted_tracker_drops_what_waits(corosync: Node) -> None:
    handle = await corosync.endpoint.connect(ICMAP)
    for tracker in (1, 2):
        await handle.track_add(tracker, "test.a", CmapTrack.ADD)
    await handle.set("test.a", TypedValue(CmapType.UINT8, 1))
    await handle.track_delete(1)
    # Both are taken, in one batch and without an error; one is told of.
    change = CmapChange(CmapTrack.ADD, "test.a", 1, None, CmapType.UINT8)
    assert handle.dispatch(10, 2**20) == (2, [CmapNotification(2, change)])
    with pytest.raises(triocoro.BadHandleError, match="tracker"):
        await handle.track_delete(1)
    await handle.delete("test.a")
    await handle.set("test.a", TypedValue(CmapType.UINT8, 2))
    assert handle.dispatch(10, 2**20)[0] == 1
    await close(handle)


async def test_cancelled_track_add_is_undone(corosync: Node) -> None:
    handle = await corosync.endpoint.connect(ICMAP)
    await handle.track_add(1, "test.", CmapTrack.ADD | CmapTrack.PREFIX)
    await corosync.freeze()
    try:
        await cancelled(lambda: handle.track_add(2, "test.", CmapTrack.ADD | CmapTrack.PREFIX))
    finally:
        await corosync.thaw()
    for number in range(3):
        await handle.set(f"test.{number}", TypedValue(CmapType.UINT8, 1))
    assert [event.tracker for event in await take(handle, 3)] == [1, 1, 1]
    await close(handle)


@pytest.mark.deadline(60)
async def test_many_trackers_at_once(corosync: Node) -> None:
    """libcmap keeps the trackers of all connections in one table, which has no lock."""

    async def use(number: int) -> None:
        handle = await corosync.endpoint.connect(ICMAP)
        for turn in range(20):
            key = f"test.{number}.{turn}"
            await handle.track_add(number, key, CmapTrack.ADD)
            await handle.set(key, TypedValue(CmapType.UINT32, turn))
            assert await take(handle, 1) == [
                CmapNotification(number, CmapChange(CmapTrack.ADD, key, turn, None, CmapType.UINT32))
            ]
            if turn % 2:
                await handle.track_delete(number)
            else:
                await close(handle)
                handle = await corosync.endpoint.connect(ICMAP)
        await close(handle)

    async with trio.open_nursery() as nursery:
        for number in range(16):
            nursery.start_soon(use, number)


@pytest.mark.corosync(nodes=2)
async def test_frozen_daemon_holds_up_no_tracker_of_another(corosync_cluster: Cluster) -> None:
    handles = [await corosync_cluster[nodeid].endpoint.connect(ICMAP) for nodeid in (1, 2)]
    await corosync_cluster[1].freeze()
    try:
        await cancelled(lambda: handles[0].track_add(1, "test.", CmapTrack.ADD | CmapTrack.PREFIX))
        with trio.fail_after(10):
            await handles[1].track_add(2, "test.", CmapTrack.ADD | CmapTrack.PREFIX)
            await handles[1].set("test.a", TypedValue(CmapType.UINT8, 1))
            assert len(await take(handles[1], 1)) == 1
            await close(handles[1])
    finally:
        await corosync_cluster[1].thaw()
    await close(handles[0])


@of_the_libraries
async def test_connect_that_fails_halfway_leaves_nothing(corosync: Node) -> None:
    before = open_fds()
    with pytest.raises(triocoro.NotExistError, match="cmap_initialize_map"):
        await corosync.endpoint.connect(CmapSpec(cast("CmapMap", 7)))
    assert open_fds() == before


# --- cfg ---


@pytest.mark.corosync_real_only(reason="Corosync's tool cannot ask the fake")
@pytest.mark.corosync(nodes=2)
async def test_cfg_knows_the_nodes(corosync_cluster: Cluster) -> None:
    handle = await corosync_cluster[1].endpoint.connect(CFG)
    assert await handle.local_nodeid() == 1
    addresses = {nodeid: await handle.node_addresses(nodeid) for nodeid in (1, 2)}
    for nodeid, (address,) in addresses.items():
        assert str(address) in await ask(corosync_cluster[1], "corosync-cfgtool", "-a", str(nodeid))
    status = await handle.node_status(2)
    (link,) = status.links
    assert (status.nodeid, status.reachable, status.remote, status.external) == (2, True, False, False)
    assert (link.number, link.enabled, link.connected) == (0, True, True)
    assert (link.source, link.destination) == (str(addresses[1][0]), str(addresses[2][0]))
    (ring,) = await handle.ring_status()
    assert (ring.name, ring.status) == (f"0 {link.source}", "n3")
    with pytest.raises(triocoro.NotExistError):
        await handle.node_addresses(9)
    with pytest.raises(triocoro.FailedOperationError):
        await handle.node_status(9)
    await handle.reopen_log_files()
    await handle.reload_config()
    assert await handle.local_nodeid() == 1
    await close(handle)


async def test_refused_shutdown_and_its_connection(corosync: Node) -> None:
    stats = await corosync.endpoint.connect(STATS)
    asking = await corosync.endpoint.connect(CFG)
    active = await stats.get("stats.ipcs.global.active")
    before = open_fds()
    answering = await corosync.endpoint.connect(CFG)
    await answering.trackstart()

    async def refuse() -> None:
        assert await take(answering, 1) == [ShutdownFlag.REQUEST]
        await answering.reply_to_shutdown(False)  # noqa: FBT003 - as in C

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(refuse)
            with pytest.raises(triocoro.BusyError):
                await asking.try_shutdown(ShutdownFlag.REQUEST)
    await answering.trackstop()
    await close(answering)
    # The library does not disconnect a handle that has replied.
    assert open_fds() == before
    with trio.fail_after(10):
        while await stats.get("stats.ipcs.global.active") != active:  # noqa: ASYNC110 - nobody tells
            await trio.sleep(0.02)
    await close(asking, stats)


@pytest.mark.deadline(20)
async def test_shutdown_regardless(corosync: Node) -> None:
    asking = await corosync.endpoint.connect(CFG)
    answering = [await corosync.endpoint.connect(CFG) for _ in range(2)]
    for handle in answering:
        await handle.trackstart()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(asking.try_shutdown, ShutdownFlag.REGARDLESS)
        for handle, accept in zip(answering, (True, False), strict=True):
            assert await take(handle, 1) == [ShutdownFlag.REGARDLESS]
            await handle.reply_to_shutdown(accept)
    for handle in (asking, *answering):
        with pytest.raises(triocoro.LibraryError):
            while True:
                await trio.lowlevel.wait_readable(handle.fileno())
                handle.dispatch(1, 1)
    await close(asking, *answering)


@pytest.mark.corosync(nodes=2)
@pytest.mark.deadline(20)
async def test_kill_node(corosync_cluster: Cluster) -> None:
    handle = await corosync_cluster[1].endpoint.connect(CFG)
    await handle.kill_node(2, "a test says so")
    await until(lambda: "a test says so" in corosync_cluster[2].log)
    # With the daemon gone, the library returns what happens to be on its stack.
    await corosync_cluster[1].freeze()

    async def kill() -> None:
        with pytest.raises(triocoro.LibraryError):
            await handle.kill_node(2, "again")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(kill)
        await trio.testing.wait_all_tasks_blocked()
        await corosync_cluster[1].kill()
    await close(handle)


# --- zero copy ---


def shared_memory() -> int:
    """How many buffers we share with daemons."""
    return sum("zerocopy" in line for line in Path("/proc/self/maps").read_text().splitlines())


def assert_shared(buffers: int) -> None:
    """So many buffers are shared; with newer libraries, none."""
    assert shared_memory() == (buffers if installed.shares_zero_copy() else 0)


@pytest.fixture
def shared_with_the_daemon() -> None:
    if not installed.shares_zero_copy():
        pytest.skip("this libcpg shares no memory with the daemon: cpg_zcb_alloc is malloc(3)")


@of_the_libraries
async def test_zero_copy(corosync: Node) -> None:
    handle, other = await joined(corosync.endpoint, b"copies"), await joined(corosync.endpoint, b"others")
    size = handle.max_atomic_message_size
    large, small = await handle.zcb_alloc(size), await handle.zcb_alloc(1)
    assert (len(large), len(small), large.readonly) == (size, 1, False)
    data = os.urandom(size)
    large[:] = data
    small[0] = 7
    for buffer, length in ((large, size), (small, 1), (large, 3), (small, 0)):
        await handle.zcb_mcast_joined(buffer, length)
    assert payloads(await take(handle, 4)) == [data, b"\x07", data[:3], b""]

    foreign = [(other, large), (handle, memoryview(bytearray(8))), (handle, large[1:])]
    for owner, buffer in foreign:
        with pytest.raises(ValueError, match="zcb_alloc"):
            await owner.zcb_free(buffer)
        with pytest.raises(ValueError, match="zcb_alloc"):
            await owner.zcb_mcast_joined(buffer, 1)
    for length in (-1, 2):
        with pytest.raises(ValueError, match="length"):
            await handle.zcb_mcast_joined(small, length)
    for unfit in (-1, 0, size + 1):
        with pytest.raises(ValueError, match="size"):
            await handle.zcb_alloc(unfit)
    del foreign, buffer

    await handle.zcb_free(large)
    with pytest.raises(ValueError, match="freed"):
        await handle.zcb_free(large)
    with pytest.raises(ValueError, match="freed"):
        await handle.zcb_mcast_joined(large, 1)
    with pytest.raises(ValueError, match="released"):
        large[0] = 1
    assert_shared(1)
    await close(handle, other)
    assert_shared(0)
    with pytest.raises(ValueError, match="released"):
        small[0] = 1
    await close(await joined(corosync.endpoint, b"alive"))


@of_the_libraries
async def test_zero_copy_buffer_in_use_stays(corosync: Node) -> None:
    handle = await joined(corosync.endpoint, b"slices")
    buffer = await handle.zcb_alloc(8)
    part = buffer[2:]
    with pytest.raises(BufferError, match="slices"):
        await handle.zcb_free(buffer)
    part[0] = 1
    assert_shared(1)
    del part
    await handle.zcb_free(buffer)
    assert_shared(0)

    buffer = await handle.zcb_alloc(8)
    part = buffer[2:]
    await close(handle)
    part[0] = 1  # it outlives the handle, as it must
    assert_shared(1)


async def test_zero_copy_needs_a_member(corosync: Node, corosync_mode: str) -> None:
    handle = await corosync.endpoint.connect(CPG)
    buffer = await handle.zcb_alloc(8)
    if corosync_mode == "real" and not installed.shares_zero_copy():
        await handle.zcb_mcast_joined(buffer, 8)  # a plain multicast, of which nothing is said
    else:
        with pytest.raises(triocoro.NotExistError):
            await handle.zcb_mcast_joined(buffer, 8)
    await close(handle)


@of_the_libraries
async def test_zero_copy_without_room(corosync: Node) -> None:
    """The library would end our process."""
    handle = await joined(corosync.endpoint, b"room")
    lines = await trio.run_process([*inside(corosync), "df", "--output=used", "/dev/shm"], capture_stdout=True)
    used = int(lines.stdout.split()[-1])
    # Not with the options that it has: among them is an ordinary user's id, which the user namespace does not know.
    remount = ["mount", "--options-mode=ignore", "-o", f"remount,size={used + 512}k", "/dev/shm"]
    await trio.run_process([*inside(corosync), *remount])
    with pytest.raises(triocoro.NoSpaceError):
        await handle.zcb_alloc(handle.max_atomic_message_size)
    await handle.zcb_free(await handle.zcb_alloc(1))
    await close(handle)


@of_the_libraries
async def test_zero_copy_where_the_namespaces_have_gone(corosync: Node) -> None:
    assert isinstance(corosync.endpoint, CorosyncEndpoint)
    entrance = corosync.endpoint._namespaces.pidfd
    assert entrance is not None
    pidfds = [entrance()]
    handle = await CorosyncEndpoint("moved", lambda: pidfds[-1]).connect(CPG)
    async with trio.open_nursery() as nursery:
        process = await nursery.start(trio.run_process, ["sleep", "60"])
        pidfds.append(os.pidfd_open(process.pid))
        nursery.cancel_scope.cancel()
    before = open_fds()
    with pytest.raises(triocoro.CorosyncUnavailableError, match="setns"):
        await handle.zcb_alloc(1)
    assert open_fds() == before
    os.close(pidfds.pop())
    await handle.zcb_free(await handle.zcb_alloc(1))
    await close(handle)


@of_the_libraries
@pytest.mark.usefixtures("shared_with_the_daemon")
async def test_cancelled_zero_copy(corosync: Node) -> None:
    handle = await joined(corosync.endpoint, b"cancelled")
    buffer = await handle.zcb_alloc(8)
    maps, fds = shared_memory(), open_fds()
    await corosync.freeze()
    try:
        with trio.move_on_after(0.1) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(handle.zcb_alloc, 8)  # under way
                nursery.start_soon(handle.zcb_alloc, 8)  # not begun
        assert scope.cancelled_caught
        # The lane is taken, so this has not begun, either; yet it is done later.
        await cancelled(lambda: handle.zcb_free(buffer))
        with pytest.raises(ValueError, match="freed"):
            await handle.zcb_free(buffer)
    finally:
        await corosync.thaw()
    await until(lambda: shared_memory() < maps)
    assert open_fds() == fds
    await close(handle)


@of_the_libraries
@pytest.mark.usefixtures("shared_with_the_daemon")
async def test_zero_copy_without_its_daemon(corosync: Node) -> None:
    handle = await joined(corosync.endpoint, b"gone")
    buffer = await handle.zcb_alloc(8)
    left = await handle.zcb_alloc(8)
    maps = shared_memory()
    await corosync.kill()
    with trio.fail_after(10):
        await trio.lowlevel.wait_readable(handle.fileno())
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: handle.zcb_mcast_joined(buffer, 8),
        lambda: handle.zcb_free(buffer),
        lambda: handle.zcb_alloc(8),
    ]
    for call in calls:
        with pytest.raises(triocoro.LibraryError):
            await call()
    assert shared_memory() == maps - 1
    await close(handle)
    assert shared_memory() == maps - 2
    with pytest.raises(ValueError, match="released"):
        left[0] = 1
