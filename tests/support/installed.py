"""What the installed Corosync has, where versions and builds differ: it is asked, as its version would not tell."""

from __future__ import annotations

import ctypes
import subprocess
from functools import cache
from pathlib import Path

from triocoro.testing._netns import requirements

LIBRARIES = {
    "libcpg": "libcpg.so.4",
    "libvotequorum": "libvotequorum.so.8",
    "libquorum": "libquorum.so.5",
    "libcmap": "libcmap.so.4",
    "libcfg": "libcfg.so.7",
}
"""The libraries that the SDK loads."""

EXTRA_INFO = frozenset(
    {"votequorum_model_initialize", "votequorum_get_qdevice_extra_info", "votequorum_set_qdevice_extra_info"}
)
"""The functions for the extra information of quorum devices, which 3.1.10 lacks."""


def include() -> Path:
    """The folder of Corosync's headers: those beside the daemon that is found on PATH."""
    program = requirements.find_program("corosync") or "/usr/sbin/corosync"
    return Path(program).parents[1] / "include"


@cache
def path(library: str) -> Path:
    """The file of a library, as the dynamic linker finds it."""
    soname = LIBRARIES[library]
    ctypes.CDLL(soname)
    (found,) = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if f"/{soname}" in line}
    return Path(found)


@cache
def functions(library: str) -> frozenset[str]:
    """The functions that a library exports."""
    command = ["nm", "-D", "--defined-only", str(path(library))]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    # Those of type A are the names of versions, such as COROSYNC_CPG_1.0.
    return frozenset(name.split("@")[0] for _, kind, name in map(str.split, lines.splitlines()) if kind == "T")


def tells_extra_info() -> bool:
    """Whether libvotequorum knows of the extra information of quorum devices."""
    return functions("libvotequorum") >= EXTRA_INFO


def shares_zero_copy() -> bool:
    """Whether the daemon sees the buffers of `cpg_zcb_alloc`, too; else it is malloc(3)."""
    return b"corosync_zerocopy-" in path("libcpg").read_bytes()


@cache
def features() -> frozenset[str]:
    """What the daemon was built with."""
    program = requirements.find_program("corosync")
    assert program is not None, "corosync is not installed"
    (line,) = (
        line for line in requirements.describe_corosync(program).splitlines() if line.startswith("Built-in features:")
    )
    return frozenset(line.partition(":")[2].split())


def tells_of_leaves() -> bool:
    """Whether a daemon that is stopped is sure to tell that its clients go before it goes itself (fact 89)."""
    return bool(features() & {"monitoring", "watchdog"})


def keys_without() -> list[str]:
    """Patterns of the keys that a node of Debian's Corosync 3.1.7 has, and one of this build has not."""
    return [
        *([] if "monitoring" in features() else [*_keys_of("mon", 6), r"resources\.system\..*"]),
        *([] if "watchdog" in features() else [*_keys_of("wd", 7), r"resources\.watchdog_timeout"]),
    ]


def keys_besides() -> list[str]:
    """Patterns of the keys that a node of this build may have, and one of Debian's Corosync 3.1.7 has not."""
    return [
        r"runtime\.config\.totem\.interface\.\d+\.mcastport",  # newer ones tell of it
        *([r"runtime\.services\.votequorum\.4\.[rt]x"] if tells_extra_info() else []),
        *([r"totem\.key"] if encrypts() else []),
    ]


def encrypts() -> bool:
    """Whether the nodes of test clusters encrypt, as the daemon does not run without."""
    return "enforce_encryption" in features()


def _keys_of(service: str, number: int) -> list[str]:
    return [rf"internal_configuration\.service\.{number}\..*", rf"runtime\.services\.{service}\..*"]
