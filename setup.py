"""What pyproject.toml cannot say: the extension module. It is built on Linux only; the fake needs none."""

import os
import shlex
import shutil
import sys
import sysconfig
from pathlib import Path

from setuptools import setup

# There is no limited API on free-threaded builds (cffi leaves it off there by itself).
limited = not sysconfig.get_config_var("Py_GIL_DISABLED")

compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
header = Path(sysconfig.get_path("include"), "Python.h")
built = sys.platform == "linux" and shutil.which(compiler) is not None and header.exists()
if not built:
    sys.stderr.write(f"triocoro: there will be the fake only: to build the rest takes Linux, {compiler}, {header}\n")

setup(
    cffi_modules=["triocoro/_corosync/_build.py:ffibuilder"] if built else [],
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if built and limited else {},
)
