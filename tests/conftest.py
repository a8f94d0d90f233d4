"""Loads the fixtures and checks that all tests share: one plugin for each concern, in support/fixtures."""

from __future__ import annotations

pytest_plugins = [
    "pytester",
    "support.fixtures.interrupts",
    "support.fixtures.crashes",
    "support.fixtures.deadline",
    "support.fixtures.leaks",
    "support.fixtures.long",
    "support.fixtures.figures",
    "support.fixtures.conformance",
    "support.fixtures.inner_runs",
    "support.fixtures.recording",
]
