"""Models for `triocoro.testing.check_linearizable`: what an object does if it carries out one operation at a time.

Arguments and results are those of `History.operation`. An operation that a model does not know is a `ValueError`, and a
wrong number of arguments a `TypeError`, before anything is checked.

Except for `Map`, the operations of a model may have the name of an object as an additional first argument, as in
``acquire("printer")``. Objects with different names are checked apart.
"""

from .._public import show_public_path as _show_public_path
from ._linearizability.model import Model
from ._linearizability.models import AppendList, Lock, Map, Queue, Register

__all__ = [
    "AppendList",
    "Lock",
    "Map",
    "Model",
    "Queue",
    "Register",
]

_show_public_path(__name__, globals())
