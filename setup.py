"""What pyproject.toml cannot say: the extension module. It is built on Linux only; the fake needs none."""

import os
import shlex
import shutil
import sys
import sysconfig

from setuptools import setup

# There is no limited API on free-threaded builds (cffi leaves it off there by itself).
limited = not sysconfig.get_config_var("Py_GIL_DISABLED") and sys.platform == "linux"

compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
headers = os.path.join(sysconfig.get_path("include"), "Python.h")
built = sys.platform == "linux" and shutil.which(compiler) is not None and os.path.exists(headers)
if not built:
    print(f"triocoro: no extension module is built: it takes Linux, {compiler} and {headers}", file=sys.stderr)

setup(
    cffi_modules=["triocoro/_corosync/_build.py:ffibuilder"] if built else [],
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if limited and built else {},
)
