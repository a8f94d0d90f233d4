"""What pyproject.toml cannot say: the extension module. It is built on Linux only; the fake needs none."""

import os
import shlex
import subprocess
import sys
import sysconfig

from setuptools import setup

# There is no limited API on free-threaded builds (cffi leaves it off there by itself).
limited = not sysconfig.get_config_var("Py_GIL_DISABLED")


def can_compile() -> bool:
    """Whether there are a C compiler, the C library's headers and Python's."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    command = [*compiler, f"-I{sysconfig.get_path('include')}", "-fsyntax-only", "-xc", "-"]
    try:
        result = subprocess.run(command, input=b"#include <Python.h>\n", capture_output=True, check=False)
    except OSError as error:
        reason = str(error)
    else:
        if result.returncode == 0:
            return True
        reason = result.stderr.decode(errors="replace").strip()
    sys.stderr.write(f"triocoro: the extension module is left out, since it cannot be compiled here: {reason}\n")
    return False


built = sys.platform == "linux" and can_compile()

setup(
    cffi_modules=["triocoro/_corosync/_build.py:ffibuilder"] if built else [],
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if built and limited else {},
)
