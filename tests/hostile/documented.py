"""Which errors a call may raise: what its documentation says, and what every call may raise."""

from __future__ import annotations

import inspect
import re
import sys
from typing import Any

import trio

import triocoro
from triocoro import lowlevel, recipes, testing

from .targets import Target
from .values import HostileError

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

_OF_ALL = (TypeError, ValueError, HostileError)
"""Bad arguments raise `TypeError` or `ValueError`; a hostile object may raise its own error."""
_OF_CONNECTIONS = (trio.ClosedResourceError, triocoro.ConnectionLostError)
"""What every call may raise that uses a connection."""
_REFERENCE = re.compile(r"\b(?:as|like|see) (?:those of |that of |the )?`([\w.]+)`", re.IGNORECASE)


def is_allowed(target: Target, arguments: list[Any], error: BaseException) -> bool:
    """Whether a call with these arguments may raise this error."""
    if isinstance(error, BaseExceptionGroup):
        return False  # what nurseries of ours raise comes out as itself
    by_nature = (
        isinstance(error, _OF_ALL)
        or (isinstance(error, NotImplementedError) and any(map(_has_dimensions, arguments)))
        or (isinstance(error, _OF_CONNECTIONS) and _uses_connection(target))
        or (isinstance(error, OSError) and target.last_name in {"save", "load"})
        or (isinstance(error, LookupError) and target.last_name == "__getitem__")
    )
    if by_nature:
        return True
    text = _documentation(target)
    names = {kind.__name__ for kind in type(error).__mro__ if kind not in {object, BaseException, Exception}}
    return any(re.search(rf"\b{name}\b", text) for name in names - {"CorosyncError"})


def _has_dimensions(value: object) -> bool:
    """Whether this is a view of several dimensions, whose iteration raises `NotImplementedError`."""
    return isinstance(value, memoryview) and value.ndim > 1


def _uses_connection(target: Target) -> bool:
    module = inspect.getmodule(target.owner)
    return module in {triocoro, lowlevel, recipes} or target.last_name.startswith("open_")


def _documentation(target: Target) -> str:
    """The docstrings of a call and of its class, and those that they refer to."""
    texts: list[str] = []
    waiting: list[tuple[Any, Any]] = [(target.documented, target.owner)]
    waiting += [(vars(base).get(target.last_name), base) for base in inspect.getmro(target.owner or object)]
    if target.last_name.endswith("_initialize"):
        kind = getattr(lowlevel, target.last_name.partition("_")[0].capitalize() + "Handle")
        waiting += [(getattr(kind, name, None), kind) for name in ("join", "mcast_joined", "trackstart", "dispatch")]
    while waiting:
        subject, owner = waiting.pop()
        text = inspect.getdoc(subject) or ""
        if not text or text in texts:
            continue
        texts.append(text)
        waiting.append((owner, None))
        for reference in _REFERENCE.findall(text):
            waiting.append(_resolve(reference, owner))
        if "the `open_*` function" in text:
            waiting.append((triocoro.open_group, None))
    return "\n".join(texts)


def _resolve(reference: str, owner: Any) -> tuple[Any, Any]:
    first, _, rest = reference.removeprefix("triocoro.").partition(".")
    for place in (owner, triocoro, lowlevel, testing, recipes):
        found = getattr(place, first, None)
        if found is not None:
            return (getattr(found, rest, None), found) if rest else (found, place if inspect.isclass(place) else None)
    return None, None
