"""`check_linearizable`: it finds every fault, and nothing else."""

from __future__ import annotations

import random
from typing import Any

import attrs
import pytest
from support.linearizability_faults import FAULTS
from support.linearizable import SUBJECTS, Subject, at, in_sequence, is_linearizable, simulated

from triocoro.testing import Operation, Rule, check_linearizable, models


def operations_of(subject: Subject, seed: int, **options: Any) -> list[Operation]:
    return simulated(subject, random.Random(seed), **options)


# -- what is right -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("subject", SUBJECTS.values(), ids=SUBJECTS)
def test_an_object_that_works_is_linearizable(subject: Subject) -> None:
    for seed in range(10):
        for values in (3, 1000):
            operations = operations_of(subject, seed, number=40, clients=4, values=values)
            assert check_linearizable(operations, subject.model) == []
            operations = operations_of(subject, seed, number=20, clients=4, values=values, unknown=0.03)
            assert check_linearizable(operations, subject.model) == []


def test_many_operations_of_a_map() -> None:
    operations = operations_of(SUBJECTS["map"], 1, number=10_000, clients=10)
    # The budget stands for the time: it takes as many steps on every machine.
    assert check_linearizable(operations, models.Map(), budget=100_000) == []


def test_many_clients_of_a_register() -> None:
    operations = operations_of(SUBJECTS["register"], 1, number=1000, clients=30)
    assert check_linearizable(operations, models.Register(), budget=500_000) == []


# -- what is wrong -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found(name: str) -> None:
    kind, spoil = FAULTS[name]
    subject = SUBJECTS[kind]
    found = 0
    # Orders of queues and lists are many, and show late.
    seeds, number = (6, 25) if kind in {"queue", "append-list"} else (20, 40)
    for seed in range(seeds):
        rng = random.Random(seed)
        operations = spoil(rng, simulated(subject, rng, number=number, clients=4))
        if operations is None:
            continue
        found += 1
        violations = check_linearizable(operations, subject.model)
        assert violations, f"seed {seed}"
        for violation in violations:
            assert violation.rule is Rule.LINEARIZABILITY
            assert set(violation.evidence) <= set(operations)
            assert 0 < len(violation.evidence) < 10
            assert max(map(len, str(violation).splitlines())) <= 104
    assert found >= seeds // 2, "the fault had no chance"


def test_there_are_many_kinds_of_faults() -> None:
    assert len(FAULTS) >= 30


@pytest.mark.parametrize("subject", SUBJECTS.values(), ids=SUBJECTS)
def test_it_agrees_with_a_check_of_all_orders(subject: Subject) -> None:
    verdicts = {True: 0, False: 0}
    for seed in range(400):
        rng = random.Random(seed)
        operations = simulated(subject, rng, number=7, clients=3, unknown=0.1, values=3)
        results = [operation.result for operation in operations if operation.ended is not None]
        if results and seed % 3:
            # A result of another operation with the same name is always one that the model knows.
            victim = rng.choice([operation for operation in operations if operation.ended is not None])
            others = [one.result for one in operations if one.name == victim.name and one.ended is not None]
            operations = [attrs.evolve(one, result=rng.choice(others)) if one is victim else one for one in operations]
        expected = all(
            is_linearizable([one for one in operations if subject.model.key(one) == key], subject.model)
            for key in {subject.model.key(one) for one in operations}
        )
        verdicts[expected] += 1
        assert (check_linearizable(operations, subject.model) == []) is expected, f"seed {seed}"
    assert min(verdicts.values()) > 10


# -- the window --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAULTS)
def test_all_that_ended_before_the_window_did_can_be_explained(name: str) -> None:
    kind, spoil = FAULTS[name]
    subject = SUBJECTS[kind]
    rng = random.Random(3)
    operations = spoil(rng, simulated(subject, rng, number=40, clients=4))
    for violation in check_linearizable(operations or [], subject.model):
        last = violation.evidence[-1]
        assert isinstance(last, Operation)
        assert last.ended is not None
        key = subject.model.key(last)
        until = [
            one if one.ended is not None and one.ended < last.ended else attrs.evolve(one, ended=None, result=None)
            for one in operations or []
            if one.began < last.ended and subject.model.key(one) == key
        ]
        assert check_linearizable(until, subject.model) == []


def test_the_window_has_only_what_is_needed() -> None:
    operations = in_sequence(
        ("a", "write", (1,), None),
        ("b", "read", (), 1),
        ("a", "write", (2,), None),
        ("c", "read", (), 2),
        ("b", "write", (3,), None),
        ("c", "read", (), 1),
        ("a", "write", (4,), None),
    )
    (violation,) = check_linearizable(operations, models.Register())
    assert violation.evidence == (operations[4], operations[5])


def test_the_picture() -> None:
    operations = [
        at("one", "put", "x", 1, began=0, ended=3),
        at("two", "put", "y", 1, began=1, ended=2),
        at("two", "put", "x", 2, began=4, ended=7),
        at("one", "get", "x", result=1, began=8, ended=9),
        at("two", "put", "x", 3, began=10, ended=None),
    ]
    (violation,) = check_linearizable(operations, models.Map())
    assert (
        str(violation)
        == """\
linearizability: get('x') -> 1 of one (key 'x'): no order of operations explains it
    two  put('x', 2)    [---*---]
    one  get('x') -> 1              [---X
    [ began, * takes effect in an order that explains all before X, ] ended
    before X, the state can only be 2
    2 other operations make no difference"""
    )
