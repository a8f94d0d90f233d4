"""Gives objects that private modules define the name of the public module that exports them."""

from __future__ import annotations


def show_public_path(module: str, namespace: dict[str, object]) -> None:
    """Let reprs, tracebacks, pickles and documentation show the public module's name.

    Args:
        module: the public module's name.
        namespace: its globals.
    """
    for value in namespace.values():
        home = getattr(value, "__module__", "")
        if home.startswith("triocoro.") and "._" in home:
            setattr(value, "__module__", module)  # noqa: B010 - not every object is known to have one
