"""Random operations on objects that are linearizable, faults in them, and a checker that tries all orders."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import attrs

from triocoro.testing import Operation, OutcomeStatus, models

UNKNOWN: Final = OutcomeStatus.UNKNOWN

Object: TypeAlias = "dict[Any, Any]"
Call: TypeAlias = "tuple[str, tuple[Any, ...]]"


def at(client: str, name: str, *arguments: object, result: object = None, began: int, ended: int | None) -> Operation:
    """An operation by hand."""
    status = UNKNOWN if ended is None else OutcomeStatus.RETURNED
    return Operation(
        client=client, name=name, arguments=arguments, result=result, status=status, began=began, ended=ended
    )


def in_sequence(*calls: tuple[str, str, tuple[Any, ...], Any]) -> list[Operation]:
    """Operations one after the other: client, name, arguments and result of each."""
    return [
        at(client, name, *arguments, result=result, began=2 * index, ended=2 * index + 1)
        for index, (client, name, arguments, result) in enumerate(calls)
    ]


# -- objects that work -------------------------------------------------------------------------------------------------


def do_register(state: Object, _: str, name: str, arguments: tuple[Any, ...]) -> object:
    """A register that works."""
    value = state.get("value")
    if name == "read":
        return value
    if name == "write":
        state["value"] = arguments[0]
        return None
    if value == arguments[0]:
        state["value"] = arguments[1]
    return bool(value == arguments[0])


def do_map(state: Object, _: str, name: str, arguments: tuple[Any, ...]) -> object:
    """A map that works."""
    key, *values = arguments
    before = state.get(key)
    match name:
        case "get":
            return before
        case "contains":
            return before is not None
        case "put":
            state[key] = values[0]
            return None
        case "delete":
            state.pop(key, None)
            return before is not None
        case _:
            if before == values[0]:
                state[key] = values[1]
            return bool(before == values[0])


def do_lock(state: Object, client: str, name: str, _: tuple[Any, ...]) -> object:
    """A lock that works, with fencing tokens."""
    holder = state.get("holder")
    if name == "release":
        if holder == client:
            state["holder"] = None
        return holder == client
    if holder is not None:
        return False
    state["holder"] = client
    state["token"] = state.get("token", 0) + 1
    return state["token"]


def do_queue(state: Object, _: str, name: str, arguments: tuple[Any, ...]) -> object:
    """A queue that works."""
    items = state.setdefault("items", [])
    if name == "enqueue":
        items.append(arguments[0])
        return None
    return items.pop(0) if items else None


def do_list(state: Object, _: str, name: str, arguments: tuple[Any, ...]) -> object:
    """A list that works."""
    items = state.setdefault("items", [])
    if name == "append":
        items.append(arguments[0])
        return None
    return tuple(items)


@attrs.frozen
class Subject:
    """A kind of object: its model, an object that works, and the calls that clients make."""

    model: models.Model[Any]
    do: Callable[[Object, str, str, tuple[Any, ...]], object]
    draw: Callable[[random.Random, int, bool], Call]
    """A call: by a random number generator, the call's number, and whether its client was the last to get a lock."""


def _draw_register(rng: random.Random, number: int, _: bool) -> Call:  # noqa: FBT001 - as in Subject.draw
    name = rng.choice(["read", "read", "write", "cas"])
    arguments = {"read": (), "write": (number,), "cas": (number - rng.randrange(4), number)}
    return name, arguments[name]


def _draw_map(rng: random.Random, number: int, _: bool) -> Call:  # noqa: FBT001
    key = rng.choice("xyz")
    name = rng.choice(["get", "get", "contains", "put", "put", "delete", "cas"])
    values = {"put": (number,), "cas": (number - rng.randrange(4) or None, number)}
    return name, (key, *values.get(name, ()))


def _draw_lock(_: random.Random, __: int, has_lock: bool) -> Call:  # noqa: FBT001
    return ("release" if has_lock else "acquire"), ()


def _draw_queue(rng: random.Random, number: int, _: bool) -> Call:  # noqa: FBT001
    return ("enqueue", (number,)) if rng.random() < 0.5 else ("dequeue", ())


def _draw_list(rng: random.Random, number: int, _: bool) -> Call:  # noqa: FBT001
    return ("append", (number,)) if rng.random() < 0.5 else ("read", ())


SUBJECTS: Final[Mapping[str, Subject]] = {
    "register": Subject(models.Register(), do_register, _draw_register),
    "map": Subject(models.Map(), do_map, _draw_map),
    "lock": Subject(models.Lock(), do_lock, _draw_lock),
    "queue": Subject(models.Queue(), do_queue, _draw_queue),
    "append-list": Subject(models.AppendList(), do_list, _draw_list),
}


@attrs.define
class _Pending:
    began: int
    name: str
    arguments: tuple[Any, ...]
    result: object = None
    has_happened: bool = False


def simulated(
    subject: Subject,
    rng: random.Random,
    *,
    number: int,
    clients: int,
    unknown: float = 0.0,
    values: int = 1_000_000,
) -> list[Operation]:
    """What clients see of an object that works: each operation begins, takes effect and ends at random times.

    Args:
        subject: the kind of object.
        rng: decides on everything.
        number: how many operations.
        clients: how many clients.
        unknown: the share of operations that have no outcome. Half of them take effect.
        values: how many different values there are.
    """
    state: Object = {}
    pending: dict[str, _Pending] = {}
    has_lock: set[str] = set()
    done: list[Operation] = []
    index = started = 0
    while started < number or pending:
        client = f"c{rng.randrange(clients)}"
        operation = pending.get(client)
        if operation is None:
            if started == number:
                continue
            started += 1
            name, arguments = subject.draw(rng, started % values, client in has_lock)
            pending[client] = _Pending(index, name, arguments)
        elif rng.random() < unknown:
            if not operation.has_happened and rng.random() < 0.5:
                subject.do(state, client, operation.name, operation.arguments)
            del pending[client]
            done.append(at(client, operation.name, *operation.arguments, began=operation.began, ended=None))
            continue
        elif not operation.has_happened:
            operation.result = subject.do(state, client, operation.name, operation.arguments)
            operation.has_happened = True
            continue
        else:
            del pending[client]
            if operation.name == "acquire" and operation.result is not False:
                has_lock.add(client)
            elif operation.name == "release":
                has_lock.discard(client)
            began, result = operation.began, operation.result
            done.append(at(client, operation.name, *operation.arguments, result=result, began=began, ended=index))
        index += 1
    return sorted(done, key=lambda operation: operation.began)


# -- all orders --------------------------------------------------------------------------------------------------------


def is_linearizable(operations: Sequence[Operation], model: models.Model[Any]) -> bool:
    """Try all orders: simple, and slow."""

    def explains(state: object, rest: frozenset[int]) -> bool:
        if all(operations[index].ended is None for index in rest):
            return True
        # One may be next if no other one has ended before it began.
        first_end = min(end for index in rest if (end := operations[index].ended) is not None)
        return any(
            explains(after, rest - {index})
            for index in rest
            if operations[index].began < first_end
            for after in model.step(state, operations[index])
        )

    return explains(model.initial, frozenset(range(len(operations))))
