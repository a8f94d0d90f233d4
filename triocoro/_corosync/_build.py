"""Describes the extension module `triocoro._corosync._shim` to cffi; setup.py names it."""

from __future__ import annotations

from pathlib import Path

import cffi

HERE = Path(__file__).resolve().parent

ffibuilder = cffi.FFI()
ffibuilder.cdef((HERE / "shim.cdef").read_text())
ffibuilder.set_source(
    "triocoro._corosync._shim",
    '#include "shim.c"',
    include_dirs=[str(HERE)],
    # Without these a changed header would not cause a new build.
    depends=[str(path.relative_to(HERE.parents[1])) for path in sorted([*HERE.glob("*.[ch]"), HERE / "shim.cdef"])],
    define_macros=[("_GNU_SOURCE", "1")],
    extra_compile_args=["-std=gnu11", "-O2", "-Wno-unused-function"],
)
