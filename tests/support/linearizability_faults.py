"""Faults of objects that are shared: each turns operations that are linearizable into some that are not.

In the operations, each value is written once at most. So in any order of them, a value that was overwritten does not
come back.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias

import attrs

from support.linearizable import in_sequence
from triocoro.testing import Operation

Operations: TypeAlias = list[Operation]
Fault: TypeAlias = "Callable[[random.Random, Operations], Operations | None]"
"""Makes a faulty copy; None if the operations offer no chance to."""

FAULTS: Final[dict[str, tuple[str, Fault]]] = {}
"""By name: the kind of object, and the fault."""

NEW: Final = -7
"""A value that is never written."""


def fault(subject: str) -> Callable[[Fault], Fault]:
    """Enter a fault into the table."""

    def enter(function: Fault) -> Fault:
        FAULTS[function.__name__.removeprefix("_").replace("_", " ")] = subject, function
        return function

    return enter


def _named(operations: Operations, *names: str) -> Operations:
    return [operation for operation in operations if operation.name in names and operation.ended is not None]


def _replaced(operations: Operations, old: Operation, **changes: Any) -> Operations:
    return [attrs.evolve(operation, **changes) if operation is old else operation for operation in operations]


def _pairs(rng: random.Random, firsts: Operations, seconds: Operations) -> Iterator[tuple[Operation, Operation]]:
    """Pairs of which the second one began after the first one had ended, in random order."""
    pairs = [(a, b) for a in firsts for b in seconds if a.ended is not None and a.ended < b.began]
    rng.shuffle(pairs)
    return iter(pairs)


def _then(operations: Operations, *calls: tuple[str, str, tuple[Any, ...], Any]) -> Operations:
    """The operations, and after them others, one after the other."""
    end = 1 + max(max(operation.began, operation.ended or 0) for operation in operations)
    later = in_sequence(*calls)
    return operations + [attrs.evolve(one, began=one.began + end, ended=(one.ended or 0) + end) for one in later]


# -- registers ---------------------------------------------------------------------------------------------------------


@fault("register")
def _read_of_a_value_that_was_never_written(rng: random.Random, operations: Operations) -> Operations | None:
    return _replaced(operations, rng.choice(_named(operations, "read")), result=NEW)


@fault("register")
def _read_of_a_later_write(rng: random.Random, operations: Operations) -> Operations | None:
    for read, write in _pairs(rng, _named(operations, "read"), _named(operations, "write")):
        return _replaced(operations, read, result=write.arguments[0])
    return None


@fault("register")
def _stale_read(rng: random.Random, operations: Operations) -> Operations | None:
    writes = _named(operations, "write")
    for old, new in _pairs(rng, writes, writes):
        for _, read in _pairs(rng, [new], _named(operations, "read")):
            return _replaced(operations, read, result=old.arguments[0])
    return None


@fault("register")
def _read_as_if_nothing_had_been_written(rng: random.Random, operations: Operations) -> Operations | None:
    for _, read in _pairs(rng, _named(operations, "write"), _named(operations, "read")):
        return _replaced(operations, read, result=None)
    return None


@fault("register")
def _lost_update(rng: random.Random, operations: Operations) -> Operations | None:
    swaps = _named(operations, "cas")
    won = [swap for swap in swaps if swap.result]
    lost = [swap for swap in swaps if not swap.result]
    if not won or not lost:
        return None
    first, second = rng.choice(won), rng.choice(lost)
    return _replaced(operations, second, arguments=(first.arguments[0], second.arguments[1]), result=True)


@fault("register")
def _compare_and_set_that_matched_nothing(rng: random.Random, operations: Operations) -> Operations | None:
    swap = rng.choice(_named(operations, "cas"))
    return _replaced(operations, swap, arguments=(NEW, swap.arguments[1]), result=True)


@fault("register")
def _compare_and_set_that_failed_in_spite_of_a_match(_: random.Random, operations: Operations) -> Operations | None:
    return _then(operations, ("c1", "write", (NEW,), None), ("c2", "cas", (NEW, NEW - 1), False))


@fault("register")
def _failed_compare_and_set_that_took_effect(_: random.Random, operations: Operations) -> Operations | None:
    return _then(operations, ("c1", "cas", (NEW, NEW - 1), False), ("c2", "read", (), NEW - 1))


@fault("register")
def _two_readers_see_two_orders(_: random.Random, operations: Operations) -> Operations | None:
    *before, one, other = _then(operations, ("c1", "write", (NEW,), None), ("c2", "write", (NEW - 1,), None))
    at_once = [attrs.evolve(one, ended=other.ended), attrs.evolve(other, began=one.began + 1, ended=one.began + 2)]
    reads = [("c3", "read", (), NEW), ("c4", "read", (), NEW - 1), ("c3", "read", (), NEW)]
    return _then([*before, *at_once], *reads)


# -- maps --------------------------------------------------------------------------------------------------------------


@fault("map")
def _resurrected_delete(_: random.Random, operations: Operations) -> Operations | None:
    calls: list[tuple[str, str, tuple[Any, ...], Any]] = [
        ("c1", "put", ("x", NEW), None),
        ("c2", "delete", ("x",), True),
        ("c3", "get", ("x",), NEW),
    ]
    return _then(operations, *calls)


@fault("map")
def _lost_put(_: random.Random, operations: Operations) -> Operations | None:
    return _then(operations, ("c1", "put", ("y", NEW), None), ("c2", "get", ("y",), None))


@fault("map")
def _deleted_twice(_: random.Random, operations: Operations) -> Operations | None:
    return _then(operations, ("c1", "delete", ("x",), None), ("c2", "delete", ("x",), True))


@fault("map")
def _nothing_to_delete_after_a_put(_: random.Random, operations: Operations) -> Operations | None:
    return _then(operations, ("c1", "put", ("x", NEW), None), ("c2", "delete", ("x",), False))


@fault("map")
def _contains_what_was_deleted(_: random.Random, operations: Operations) -> Operations | None:
    return _then(operations, ("c1", "delete", ("z",), None), ("c2", "contains", ("z",), True))


@fault("map")
def _does_not_contain_what_was_put(_: random.Random, operations: Operations) -> Operations | None:
    return _then(operations, ("c1", "put", ("z", NEW), None), ("c2", "contains", ("z",), False))


@fault("map")
def _value_of_another_key(rng: random.Random, operations: Operations) -> Operations | None:
    gets, puts = _named(operations, "get"), _named(operations, "put")
    rng.shuffle(gets)
    for get in gets:
        others = [put for put in puts if put.arguments[0] != get.arguments[0]]
        if others:
            return _replaced(operations, get, result=rng.choice(others).arguments[1])
    return None


@fault("map")
def _two_winners(_: random.Random, operations: Operations) -> Operations | None:
    calls: list[tuple[str, str, tuple[Any, ...], Any]] = [
        ("c1", "delete", ("x",), None),
        ("c1", "cas", ("x", None, NEW), True),
        ("c2", "cas", ("x", None, NEW - 1), True),
    ]
    return _then(operations, *calls)


# -- locks -------------------------------------------------------------------------------------------------------------


def _granted(operations: Operations) -> Operations:
    return [operation for operation in _named(operations, "acquire") if operation.result is not False]


@fault("lock")
def _double_grant(_: random.Random, operations: Operations) -> Operations | None:
    top = max(operation.result for operation in _granted(operations))
    return _then(operations, *((f"x{one}", "acquire", (), top + one) for one in (1, 2)))


@fault("lock")
def _token_that_goes_back(rng: random.Random, operations: Operations) -> Operations | None:
    for _, acquire in _pairs(rng, _granted(operations), _granted(operations)):
        return _replaced(operations, acquire, result=0)
    return None


@fault("lock")
def _token_twice(rng: random.Random, operations: Operations) -> Operations | None:
    for first, second in _pairs(rng, _granted(operations), _granted(operations)):
        return _replaced(operations, second, result=first.result)
    return None


@fault("lock")
def _refused_although_it_is_free(_: random.Random, operations: Operations) -> Operations | None:
    calls: list[tuple[str, str, tuple[Any, ...], Any]] = [
        *((f"c{client}", "release", (), None) for client in _holders(operations)),
        ("x1", "acquire", (), False),
    ]
    return _then(operations, *calls)


@fault("lock")
def _released_by_another_client(_: random.Random, operations: Operations) -> Operations | None:
    return _then(operations, ("stranger", "release", (), True))


@fault("lock")
def _lost_by_its_holder(_: random.Random, operations: Operations) -> Operations | None:
    top = max(operation.result for operation in _granted(operations))
    freed = [(f"c{client}", "release", (), None) for client in _holders(operations)]
    return _then(operations, *freed, ("x1", "acquire", (), top + 1), ("x1", "release", (), False))


def _holders(operations: Operations) -> list[int]:
    """The client that has the lock at the end, if one has."""
    tokens = {operation.client: operation.result for operation in _granted(operations)}
    holder = max(tokens, key=lambda client: tokens[client])
    releases = [one for one in _named(operations, "release") if one.client == holder and one.result]
    taken = [one for one in _granted(operations) if one.client == holder]
    return [int(holder[1:])] if len(taken) > len(releases) else []


# -- queues ------------------------------------------------------------------------------------------------------------


def _taken(operations: Operations) -> Operations:
    return [operation for operation in _named(operations, "dequeue") if operation.result is not None]


@fault("queue")
def _duplicate_dequeue(rng: random.Random, operations: Operations) -> Operations | None:
    taken = _taken(operations)
    if len(taken) < 2:
        return None
    first, second = rng.sample(taken, 2)
    return _replaced(operations, second, result=first.result)


@fault("queue")
def _dequeue_of_what_was_never_enqueued(rng: random.Random, operations: Operations) -> Operations | None:
    return _replaced(operations, rng.choice(_named(operations, "dequeue")), result=NEW)


@fault("queue")
def _dequeue_before_the_enqueue(rng: random.Random, operations: Operations) -> Operations | None:
    for dequeue, enqueue in _pairs(rng, _named(operations, "dequeue"), _named(operations, "enqueue")):
        return _replaced(operations, dequeue, result=enqueue.arguments[0])
    return None


@fault("queue")
def _lost_enqueue(_: random.Random, operations: Operations) -> Operations | None:
    return _then(operations, ("c1", "enqueue", (NEW,), None), ("c2", "dequeue", (), None))


@fault("queue")
def _reordered_dequeue(_: random.Random, operations: Operations) -> Operations | None:
    enqueued = [("c1", "enqueue", (value,), None) for value in (NEW, NEW - 1)]
    return _then(operations, *enqueued, ("c2", "dequeue", (), NEW - 1))


# -- lists -------------------------------------------------------------------------------------------------------------


@fault("append-list")
def _lost_append(rng: random.Random, operations: Operations) -> Operations | None:
    for append, read in _pairs(rng, _named(operations, "append"), _named(operations, "read")):
        return _replaced(operations, read, result=tuple(v for v in read.result if v != append.arguments[0]))
    return None


@fault("append-list")
def _reordered_append(rng: random.Random, operations: Operations) -> Operations | None:
    for first, second in _pairs(rng, _named(operations, "read"), _named(operations, "read")):
        if len(first.result) > 1:
            a, b, *rest = second.result
            return _replaced(operations, second, result=(b, a, *rest))
    return None


@fault("append-list")
def _append_that_took_effect_twice(rng: random.Random, operations: Operations) -> Operations | None:
    reads = [read for read in _named(operations, "read") if read.result]
    if not reads:
        return None
    read = rng.choice(reads)
    return _replaced(operations, read, result=(*read.result, read.result[-1]))


@fault("append-list")
def _phantom_append(rng: random.Random, operations: Operations) -> Operations | None:
    read = rng.choice(_named(operations, "read"))
    return _replaced(operations, read, result=(*read.result, NEW))


@fault("append-list")
def _list_that_shrinks(rng: random.Random, operations: Operations) -> Operations | None:
    for first, second in _pairs(rng, _named(operations, "read"), _named(operations, "read")):
        if first.result:
            return _replaced(operations, second, result=first.result[:-1])
    return None


@fault("append-list")
def _append_seen_too_early(rng: random.Random, operations: Operations) -> Operations | None:
    for read, append in _pairs(rng, _named(operations, "read"), _named(operations, "append")):
        return _replaced(operations, read, result=(*read.result, append.arguments[0]))
    return None
