"""The cffi build script of the extension module `triocoro._corosync._shim`; setup.py names it."""

from __future__ import annotations

from pathlib import Path

import cffi

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]


def _paths(*patterns: str) -> list[str]:
    """The files here that match, relative to the project, where setuptools runs."""
    files = sorted(file for pattern in patterns for file in HERE.glob(pattern))
    return [str(file.relative_to(PROJECT)) for file in files if file.name != "_shim.c"]  # which cffi may generate here


ffibuilder = cffi.FFI()
ffibuilder.cdef((HERE / "shim.cdef").read_text())
ffibuilder.set_source(
    "triocoro._corosync._shim",
    '#include "shim.h"',
    sources=_paths("*.c"),
    include_dirs=[str(HERE)],
    depends=_paths("*.h", "shim.cdef"),  # without these, a change to one of them would not cause a new build
    define_macros=[("_GNU_SOURCE", "1")],
    extra_compile_args=["-std=gnu11", "-O2", "-fvisibility=hidden"],
)
