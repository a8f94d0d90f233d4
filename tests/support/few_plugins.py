"""A plugin for inner runs of pytest: it loads only those plugins that our tests need.

Looking for all that are installed takes longer than most tests.
"""

from __future__ import annotations

from importlib import import_module
from typing import Final

import pytest

_PLUGINS: Final = {
    "trio": "pytest_trio.plugin",
    "corosync": "pytest_corosync.plugin",
    "xdist": "xdist.plugin",
    "timeout": "pytest_timeout",
}


@pytest.hookimpl(tryfirst=True)
def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Load them, under the names that pytest gives them, in time for their options."""
    del parser
    for name, module in _PLUGINS.items():
        pluginmanager.register(import_module(module), name)
