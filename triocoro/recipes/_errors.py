"""The errors of recipes, and how errors of applications are told to others."""

from __future__ import annotations

import traceback
from typing import Final

_MOST_TEXT: Final = 4096  # characters


class RecipeError(Exception):
    """The base of the errors of recipes. Remedy: see the error itself."""


class NotCommittedError(RecipeError):
    """The message or command was not committed, and will never be. It may be sent again.

    Remedy: see `NotPrimaryError`, the only one so far.
    """


class NotPrimaryError(NotCommittedError):
    """This member cannot reach members that hold the state, on nodes with a majority of the votes.

    The message says which are missing. Nothing was sent. Remedy: try again when the nodes are back, for instance after
    `wait_primary`, or on a member that is in the primary component. If the memory of a majority is lost, an operator
    can call `triocoro.recipes.bootstrap`.
    """


class UncertainError(RecipeError):
    """The message or command was sent, and then the connection or the primary component was lost.

    It may be committed or not, now or later. Remedy: look at the state, or repeat a command with the same id: see
    `Replica.execute`.
    """


class ElectorateError(RecipeError):
    """Members do not agree on the electorate, or this node's configuration does not say which nodes there are.

    Remedy: pass the same `nodes` to all members, or none, so that they take the node list of corosync.conf.
    """


class ProtocolError(RecipeError):
    """The members that are there speak another version of the protocol, or belong to another recipe.

    Remedy: update them, or this program; give each safe group, replica and lock a name of its own.
    """


class CommandFailedError(RecipeError):
    """The machine's `apply` raised an exception for this command, the same on all members.

    The message has its type and text. Remedy: that of the exception.
    """


class LeaseLostError(RecipeError):
    """A lock or leadership is not ours any more, or may not be.

    Remedy: stop what only the holder may do, and ask for the lock again.
    """


def described(exc: Exception) -> bytes:
    """The class and message of an exception, as it goes to other members; whatever they are, this does not fail."""
    text = "".join(traceback.format_exception_only(type(exc), exc)).strip()
    return text[:_MOST_TEXT].encode(errors="backslashreplace")
