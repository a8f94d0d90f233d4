"""The default endpoint: the daemon that `open_*` connects to without `endpoint=`."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from ._services import Endpoint

default_endpoint: ContextVar[Endpoint] = ContextVar("triocoro.default_endpoint")
"""The endpoint that `open_*` uses without `endpoint=`. While it is unset, `open_*` uses the process-wide default, which
test fixtures set, else the system's Corosync."""

_MEMBERS: Final = ("label", "identity", "pid", "connect")

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


def check_endpoint(endpoint: Endpoint) -> Endpoint:
    """Raise `TypeError` for an object that is no endpoint."""
    if isinstance(endpoint, type) or not all(hasattr(endpoint, name) for name in _MEMBERS):
        raise TypeError(
            f"an endpoint is needed, such as the attribute endpoint of a cluster's node, not {type(endpoint).__name__}"
        )
    return endpoint


def resolve_endpoint(endpoint: Endpoint | None) -> Endpoint:
    """Return the endpoint given, else the context's default, else the process's, else the system's Corosync.

    Raises:
        TypeError: it is no endpoint.
    """
    if endpoint is not None:
        return check_endpoint(endpoint)
    try:
        return check_endpoint(default_endpoint.get())
    except LookupError:
        pass
    if _process_default:
        return check_endpoint(_process_default[-1])
    # Imported here, so that importing triocoro needs neither the extension module nor Corosync.
    from ._corosync import SYSTEM

    return SYSTEM
