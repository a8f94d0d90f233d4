"""`Model`: how an object behaves that does one operation at a time."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Protocol, TypeVar

from .._history.operations import Operation

StateT = TypeVar("StateT", bound=Hashable)


class Model(Protocol[StateT]):
    """What an object does if it carries out one operation at a time.

    Derive from this class for an object of your own. A counter, for example::

        class Counter(Model[int]):
            initial = 0

            def step(self, state: int, operation: Operation) -> Iterable[int]:
                match operation.name, operation.arguments:
                    case "add", (int(amount),):
                        yield state + amount
                    case "value", ():
                        if operation.may_return(state):
                            yield state
                    case _:
                        raise ValueError(f"a counter has no such operation: {operation}")

            def is_read(self, operation: Operation) -> bool:
                return operation.name == "value"

    States are compared and hashed, so they must not be lists or dictionaries. So that they can be made of arguments,
    operations are passed with tuples for lists and hashable dictionaries for dictionaries.
    """

    initial: StateT
    """The state before the first operation."""

    def step(self, state: StateT, operation: Operation) -> Iterable[StateT]:
        """Carry out one operation, without a change to `state`.

        An operation that has not ended has no result, and any result goes: see `Operation.may_return`.

        Args:
            state: what the object's state is.
            operation: what happens, with its result.

        Returns:
            The states in which the object may be afterwards: usually one, and none if the operation cannot have its
            result in `state`.

        Raises:
            ValueError: the model has no such operation.
            TypeError: the arguments do not go with it.
        """
        raise NotImplementedError

    def key(self, operation: Operation) -> Hashable:  # noqa: ARG002 - for those that derive from it
        """The part of the object that an operation is about, such as the key of a map. By default there is one part.

        Operations on different parts are checked apart, each part from `initial` on, which is much faster. Before
        anything is checked, this is called once for each operation. Errors are those of `step`.
        """
        return None

    def is_read(self, operation: Operation) -> bool:  # noqa: ARG002 - as above
        """Whether an operation, with its result, never changes the state. Only makes the check faster."""
        return False

    def overwrites(self, operation: Operation) -> bool:  # noqa: ARG002 - as above
        """Whether an operation, with its result, can happen in any state, and always leaves the same one.

        Only makes the check faster, if many clients use one key at a time.
        """
        return False

    def can_lead_to(self, state: StateT, read: Operation) -> bool:  # noqa: ARG002 - as above
        """Whether a read, with its result, may fit once further operations have taken effect, from `state` on.

        Only makes the check faster. False for a list that only grows, for example, if it is not how the result begins.
        """
        return True
