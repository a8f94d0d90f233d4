"""Builds the extension module, which pyproject.toml cannot describe. Only on Linux; the fake needs none."""

import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile

from setuptools import setup

# Free-threaded builds have no limited API (and there, cffi does not use it).
limited = not sysconfig.get_config_var("Py_GIL_DISABLED")


def can_compile() -> bool:
    """Whether this machine has a C compiler and linker, and the headers of the C library and of Python."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    with tempfile.TemporaryDirectory() as folder:
        command = [*compiler, f"-I{sysconfig.get_path('include')}", "-shared", "-fPIC", f"-o{folder}/x.so", "-xc", "-"]
        try:
            result = subprocess.run(command, input=b"#include <Python.h>\n", capture_output=True, check=False)
        except OSError as error:
            reason = str(error)
        else:
            if result.returncode == 0:
                return True
            reason = result.stderr.decode(errors="replace").strip()
    sys.stderr.write(
        "triocoro: the extension module is left out, since it cannot be compiled here. Connections to a real Corosync"
        " will need a C compiler and Python's headers (Debian: gcc, libc6-dev and python3-dev); the fake needs neither."
        f" The compiler says: {reason}\n"
    )
    return False


built = sys.platform == "linux" and can_compile()

setup(
    cffi_modules=["triocoro/_corosync/_build.py:ffibuilder"] if built else [],
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if built and limited else {},
)
