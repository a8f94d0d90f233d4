"""How the public modules present what private ones define."""

from __future__ import annotations


def show_public_path(module: str, namespace: dict[str, object]) -> None:
    """Let reprs, tracebacks, pickles and documentation name the public module."""
    for value in namespace.values():
        if getattr(value, "__module__", "").startswith("triocoro._"):
            setattr(value, "__module__", module)  # noqa: B010 - not every object is known to have one
