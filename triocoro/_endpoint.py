"""The default endpoint: the daemon that `open_*` connects to without `endpoint=`."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, TypeGuard

from ._services import Endpoint, HasEndpoint

default_endpoint: ContextVar[Endpoint] = ContextVar("triocoro.default_endpoint")
"""The endpoint that `open_*` uses without `endpoint=`. While it is unset, `open_*` uses the process-wide default, which
test fixtures set, else the system's Corosync."""

_MEMBERS: Final = ("label", "identity", "pid", "connect")

_process_default: list[Endpoint] = []


@contextmanager
def process_default_endpoint(endpoint: Endpoint | HasEndpoint) -> Generator[None, None, None]:
    """Make `endpoint` the default of all contexts, threads and Trio runs of this process, within a `with` block.

    It is what synchronous fixtures need: `default_endpoint` set in one does not reach the test, where the test runner
    gives it another context. A `default_endpoint` that is set takes precedence. Of several blocks, the one that was
    entered last counts; they may end in any order.
    """
    endpoint = check_endpoint(endpoint)
    _process_default.append(endpoint)
    try:
        yield
    finally:
        _process_default.remove(endpoint)


def check_endpoint(endpoint: Endpoint | HasEndpoint) -> Endpoint:
    """Return an endpoint, or that of an object that has one, such as a node.

    Raises:
        TypeError: the object is neither.
    """
    found = endpoint if _is_endpoint(endpoint) else getattr(endpoint, "endpoint", None)
    if isinstance(endpoint, type) or not _is_endpoint(found):
        raise TypeError(
            f"an endpoint is needed, or a node of a cluster such as cluster[1], not {type(endpoint).__name__}"
        )
    return found


def _is_endpoint(candidate: object) -> TypeGuard[Endpoint]:
    # Not isinstance with the protocol, which takes longer.
    return all(hasattr(candidate, name) for name in _MEMBERS)


def resolve_endpoint(endpoint: Endpoint | HasEndpoint | None) -> Endpoint:
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
        return _process_default[-1]
    # Imported here, so that importing triocoro needs neither the extension module nor Corosync.
    from ._corosync import SYSTEM

    return SYSTEM
