"""What pyproject.toml cannot say: the extension module. It is built on Linux only; the fake needs none."""

import sys
import sysconfig

from setuptools import setup

# There is no limited API on free-threaded builds (cffi leaves it off there by itself).
limited = not sysconfig.get_config_var("Py_GIL_DISABLED") and sys.platform == "linux"

setup(
    cffi_modules=["triocoro/_corosync/_build.py:ffibuilder"] if sys.platform == "linux" else [],
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if limited else {},
)
