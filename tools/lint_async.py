#!/usr/bin/env python3
"""Run flake8, with the positions in each file found once: `make flake8`. Arguments go to flake8.

flake8-async parses a file once, but finds the positions of its nodes anew for each of six visitors, in case the one
before has changed the tree. As a plugin of flake8 none does, so all of them can share the positions. It reports the
same, and takes two thirds of the CPU time. The class is private: if a new version has none like it, delete this file.
"""

import sys
from collections.abc import Iterator

import libcst
from flake8.main.cli import main
from flake8_async.runner import Flake8AsyncRunner_cst


def run(self: Flake8AsyncRunner_cst) -> Iterator[object]:
    """Replace `Flake8AsyncRunner_cst.run`."""
    if not self.options.disable_noqa:
        raise AssertionError("a plugin of flake8 leaves noqa comments to it")
    wrapper = libcst.MetadataWrapper(self.module, unsafe_skip_copy=True)
    for visitor in (*self.utility_visitors, *self.visitors):
        wrapper.visit(visitor)
    yield from self.state.problems


Flake8AsyncRunner_cst.run = run
sys.exit(main())
