"""Which daemon an `open_*` without `endpoint=` talks to."""

from __future__ import annotations

from contextvars import ContextVar

from ._services import Endpoint

default_endpoint: ContextVar[Endpoint] = ContextVar("triocoro.default_endpoint")
"""The endpoint that `open_*` uses when it is given none. Where it is unset, a process-wide default holds (test fixtures
set that one, since a synchronous fixture's context does not reach every test runner), else the system's Corosync."""

_process_default: list[Endpoint] = []


def push_process_default(endpoint: Endpoint) -> None:
    """Make `endpoint` the process-wide default until it is removed again; the latest one wins."""
    _process_default.append(endpoint)


def remove_process_default(endpoint: Endpoint) -> None:
    """Take back what `push_process_default` did."""
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
