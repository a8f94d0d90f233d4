"""The C shim without a daemon: layouts and signatures of the real headers, missing libraries and symbols, stacks."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from enum import IntEnum, IntFlag
from pathlib import Path

import pytest
from support import installed
from support.c_libraries import of_the_libraries

import triocoro
from triocoro import _validate
from triocoro._corosync import CorosyncEndpoint
from triocoro._enums import (
    CmapMap,
    CmapTrack,
    CmapType,
    Dispatch,
    FlowControlState,
    IterationType,
    QuorumType,
    Reason,
    ShutdownFlag,
    Track,
    VotequorumFlag,
)
from triocoro._services import CFG, CPG, ICMAP, QUORUM, VOTEQUORUM
from triocoro._types import NodelistChange

pytestmark = pytest.mark.deadline(30)

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
    options = ["-D_GNU_SOURCE", "-Wextra", "-pthread", "-Wl,--wrap=pthread_sigmask,--wrap=clock_gettime"]
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
def test_the_first_descriptor_is_put_back(parts: Callable[[str], str]) -> None:
    """libqb closes fd 0 when a connect fails, if the daemon uses sockets in place of shared memory."""
    assert parts("first descriptor") == ""


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
