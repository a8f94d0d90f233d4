"""Which daemon an `open_*` without `endpoint=` talks to."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

from ._services import Endpoint

default_endpoint: ContextVar[Endpoint] = ContextVar("triocoro.default_endpoint")
"""The endpoint that `open_*` uses when it is given none. Where it is unset, a process-wide default holds (test fixtures
set that one, since a synchronous fixture's context does not reach every test runner), else the system's Corosync."""

_process_default: list[Endpoint] = []


@contextmanager
def process_default_endpoint(endpoint: Endpoint) -> Generator[None, None, None]:
    """Make `endpoint` the default of all contexts, threads and Trio runs of this process, within a `with` block.

    It is what synchronous fixtures need: `default_endpoint` set in one does not reach the test, where the test runner
    gives it another context. A `default_endpoint` that is set takes precedence. Of several blocks, the one that was
    entered last counts; they may end in any order.
    """
    _process_default.append(endpoint)
    try:
        yield
    finally:
        _process_default.remove(endpoint)


def resolve_endpoint(endpoint: Endpoint | None) -> Endpoint:
    """The endpoint to use: the one given, else the context's default, the process's, the system's."""
    if endpoint is not None:
        return endpoint
    try:
        return default_endpoint.get()
    except LookupError:
        pass
    if _process_default:
        return _process_default[-1]
    # Only here, so that importing triocoro needs neither the extension module nor Corosync.
    from ._corosync import SYSTEM

    return SYSTEM
