"""The error of a question that a history, or a search in it, does not answer."""

from __future__ import annotations


class UndecidedError(Exception):
    """Whether there is a violation has not been found out.

    `check` and `History.operations` raise it for a history that has lost its beginning: what is gone may explain what
    is left. Record with a larger limit.

    `check_linearizable` raises it once it has taken all the steps of its budget. Raise the budget, or make the history
    easier: fewer clients that use one key at the same time, fewer operations without an outcome, or values that differ.
    """
