"""Models of the objects that applications have most."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Final

import attrs

from .._history.operations import Operation
from .model import Model, StateT


class NamedModel(Model[StateT]):
    """A model with a vocabulary. The first argument of an operation may be the name of one of several such objects."""

    OPERATIONS: ClassVar[Mapping[str, int]]
    """The names of the operations, each with the number of its arguments."""

    def key(self, operation: Operation) -> Hashable:
        """The name of the object, or None."""
        model = type(self).__name__
        if operation.name not in self.OPERATIONS:
            raise ValueError(
                f"{model} has no operation {operation.name!r}, only {', '.join(self.OPERATIONS)}; rename the operations"
                " that you record, or leave out those that are not about this object"
            )
        expected, given = self.OPERATIONS[operation.name], len(operation.arguments)
        if given not in self._numbers(expected):
            numbers = " or ".join(map(str, self._numbers(expected)))
            raise TypeError(
                f"{operation.name} of {model} takes {numbers} arguments, not {given}: {operation.arguments!r}"
            )
        if operation.name in {"cas", "contains"} and not (
            operation.ended is None or isinstance(operation.result, bool)
        ):
            raise TypeError(f"{operation.name} of {model} returns a bool, not {operation.result!r}; record its result")
        return operation.arguments[0] if given > expected else None

    def _numbers(self, expected: int) -> tuple[int, ...]:
        return (expected, expected + 1)

    @abstractmethod
    def step(self, state: StateT, operation: Operation) -> Iterable[StateT]:
        """Carry out one operation."""


@attrs.frozen
class Register(NamedModel[Hashable]):
    """A value that is read and written, also by compare-and-set.

    - ``read()`` returns the value.
    - ``write(value)``; the result does not count.
    - ``cas(old, new)`` returns True if the value was `old` and is now `new`, and False if it was another one.
    """

    OPERATIONS: ClassVar[Mapping[str, int]] = {"read": 0, "write": 1, "cas": 2}

    initial: Hashable = None
    """The value before it was written."""

    def step(self, state: Hashable, operation: Operation) -> Iterable[Hashable]:
        """Carry out one operation."""
        name = operation.name
        if name == "read":
            return (state,) if operation.may_return(state) else ()
        if name == "write":
            return operation.arguments[-1:]
        return _cas(state, operation)

    def is_read(self, operation: Operation) -> bool:
        """Whether it is a read, or a compare-and-set that failed."""
        return operation.name == "read" or _is_failed_cas(operation)

    def overwrites(self, operation: Operation) -> bool:
        """Whether it is a write."""
        return operation.name == "write"


@attrs.frozen
class Map(NamedModel[Hashable]):
    """Values by key. Each operation has the key as its first argument, and each key is checked apart.

    - ``get(key)`` returns the value, or None if there is none.
    - ``put(key, value)`` sets a value, which is not None; the result does not count.
    - ``delete(key)`` returns whether there was a value; a result of None does not count.
    - ``contains(key)`` returns whether there is a value.
    - ``cas(key, old, new)`` returns True if the value was `old` and is now `new`, and False if it was another one. None
      stands for no value.
    """

    OPERATIONS: ClassVar[Mapping[str, int]] = {"get": 0, "put": 1, "delete": 0, "contains": 0, "cas": 2}

    initial: Hashable = attrs.field(default=None, init=False, repr=False)
    """No value."""

    def key(self, operation: Operation) -> Hashable:
        """The key."""
        key = super().key(operation)
        if operation.name == "put" and operation.arguments[1] is None:
            raise ValueError("put of a Map takes a value; None stands for no value")
        return key

    def _numbers(self, expected: int) -> tuple[int, ...]:
        return (expected + 1,)

    def step(self, state: Hashable, operation: Operation) -> Iterable[Hashable]:
        """Carry out one operation."""
        name = operation.name
        if name == "get":
            return (state,) if operation.may_return(state) else ()
        if name == "put":
            return operation.arguments[1:]
        if name == "contains":
            return (state,) if operation.may_return(state is not None) else ()
        if name == "delete":
            return (None,) if operation.result is None or operation.may_return(state is not None) else ()
        return _cas(state, operation)

    def is_read(self, operation: Operation) -> bool:
        """Whether it has changed nothing."""
        if operation.name == "delete":
            return operation.result is False
        return operation.name in {"get", "contains"} or _is_failed_cas(operation)

    def overwrites(self, operation: Operation) -> bool:
        """Whether it is a put, or a delete without a result."""
        return operation.name == "put" or (operation.name == "delete" and operation.result is None)


@attrs.frozen
class Lock(NamedModel[tuple[str | None, float | None]]):
    """A lock that one client has at a time. Clients are told apart by the names that they are recorded with.

    - ``acquire()`` returns None or True for a lock that was granted, a fencing token (an int or a float) that is larger
      than all before, or False if a client had the lock.
    - ``release()`` by the client that has it; False if the client did not have it. Another result does not count.

    A client that may lose the lock otherwise, as its session ends, records a ``release`` that does not end: it may take
    effect at any time.
    """

    OPERATIONS: ClassVar[Mapping[str, int]] = {"acquire": 0, "release": 0}

    initial: tuple[str | None, float | None] = attrs.field(default=(None, None), init=False, repr=False)
    """Its holder, and the last token."""

    def step(
        self, state: tuple[str | None, float | None], operation: Operation
    ) -> Iterable[tuple[str | None, float | None]]:
        """Carry out one operation."""
        holder, token = state
        client, result = operation.client, operation.result
        if result is False:
            refused = holder != client if operation.name == "release" else holder is not None
            return (state,) if refused else ()
        if operation.name == "release":
            return ((None, token),) if holder == client else ()
        if holder is not None:
            return ()
        if result is None or result is True:
            return ((client, token),)
        return ((client, result),) if token is None or result > token else ()

    def key(self, operation: Operation) -> Hashable:
        """The name of the lock, or None."""
        key = super().key(operation)
        if operation.name == "acquire" and not isinstance(operation.result, (bool, int, float, type(None))):
            raise TypeError(f"acquire of a Lock returns a bool, a number or None, not {operation.result!r}")
        return key

    def is_read(self, operation: Operation) -> bool:
        """Whether it was refused."""
        return operation.result is False


@attrs.frozen
class Queue(NamedModel[tuple[Any, ...]]):
    """First in, first out.

    - ``enqueue(item)``, where the item is not None; the result does not count.
    - ``dequeue()`` returns the oldest item and removes it, or None if the queue is empty.
    """

    OPERATIONS: ClassVar[Mapping[str, int]] = {"enqueue": 1, "dequeue": 0}

    initial: tuple[Any, ...] = attrs.field(default=(), init=False, repr=False)
    """Empty."""

    def key(self, operation: Operation) -> Hashable:
        """The name of the queue, or None."""
        key = super().key(operation)
        if operation.name == "enqueue" and operation.arguments[-1] is None:
            raise ValueError("enqueue of a Queue takes an item; None stands for an empty queue")
        return key

    def step(self, state: tuple[Any, ...], operation: Operation) -> Iterable[tuple[Any, ...]]:
        """Carry out one operation."""
        if operation.name == "enqueue":
            return ((*state, operation.arguments[-1]),)
        return (state[1:],) if operation.may_return(state[0] if state else None) else ()

    def is_read(self, operation: Operation) -> bool:
        """Whether it found the queue empty."""
        return operation.name == "dequeue" and operation.ended is not None and operation.result is None


@attrs.frozen
class AppendList(NamedModel[tuple[Any, ...]]):
    """A list that only grows, such as a log.

    - ``append(value)``; the result does not count.
    - ``read()`` returns all values, the oldest first.
    """

    OPERATIONS: ClassVar[Mapping[str, int]] = {"append": 1, "read": 0}

    initial: tuple[Any, ...] = attrs.field(default=(), init=False, repr=False)
    """Empty."""

    def key(self, operation: Operation) -> Hashable:
        """The name of the list, or None."""
        key = super().key(operation)
        if operation.name == "read" and not (operation.ended is None or isinstance(operation.result, tuple)):
            raise TypeError(f"read of an AppendList returns a list or tuple, not {operation.result!r}")
        return key

    def step(self, state: tuple[Any, ...], operation: Operation) -> Iterable[tuple[Any, ...]]:
        """Carry out one operation."""
        if operation.name == "append":
            return ((*state, operation.arguments[-1]),)
        return (state,) if operation.may_return(state) else ()

    def is_read(self, operation: Operation) -> bool:
        """Whether it is a read."""
        return operation.name == "read"

    def can_lead_to(self, state: tuple[Any, ...], read: Operation) -> bool:
        """Whether the list is how the result begins."""
        return bool(state == read.result[: len(state)])


def _cas(state: Hashable, operation: Operation) -> Iterable[Hashable]:
    *_, old, new = operation.arguments
    if operation.ended is None:
        return (new,) if state == old else (state,)
    if (state == old) is not bool(operation.result):
        return ()
    return (new,) if operation.result else (state,)


def _is_failed_cas(operation: Operation) -> bool:
    return operation.name == "cas" and operation.ended is not None and not operation.result


BY_NAME: Final[Mapping[str, type[Model[Any]]]] = MappingProxyType(
    {"append-list": AppendList, "lock": Lock, "map": Map, "queue": Queue, "register": Register}
)
"""The models as the command names them."""
