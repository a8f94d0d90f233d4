"""`check_linearizable`: it finds every fault, and nothing else."""

from __future__ import annotations

import random
from typing import Any

import attrs
import pytest
from support.linearizability_faults import FAULTS
from support.linearizable import SUBJECTS, Subject, at, in_sequence, is_linearizable, simulated

from triocoro.testing import History, Operation, OutcomeStatus, Rule, UndecidedError, check_linearizable, models


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


@pytest.mark.parametrize("ended", [None, 20])
def test_what_has_taken_effect_is_not_taken_for_what_still_may(ended: int | None) -> None:
    """The first order that explains the first read uses the write of 1, which only the second read must use."""
    operations = [
        at("a", "write", 1, began=0, ended=ended),
        at("b", "write", 5, began=1, ended=5),
        at("c", "cas", 5, 1, result=True, began=2, ended=6),
        at("d", "read", result=1, began=3, ended=4),
        at("d", "write", 7, began=7, ended=8),
        at("d", "read", result=1, began=9, ended=10),
    ]
    assert is_linearizable(operations, models.Register())
    assert check_linearizable(operations, models.Register()) == []


# -- what is wrong -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found(name: str) -> None:
    kind, spoil = FAULTS[name]
    subject = SUBJECTS[kind]
    found = 0
    # Orders of queues and lists are many, and show late.
    seeds, number = (5, 22) if kind in {"queue", "append-list"} else (20, 40)
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


def test_a_later_read_that_nothing_explains_is_not_needed_to_see_an_earlier_one() -> None:
    """Looking ahead to reads that end later must not make an operation look wrong that is right."""
    right = [
        at("a", "append", 1, began=0, ended=1),
        at("b", "append", 2, began=2, ended=9),
        at("c", "read", result=(1, 2), began=3, ended=4),
    ]
    overlapping = at("d", "read", result=(9,), began=3, ended=10)
    later = at("d", "read", result=(9,), began=11, ended=12)
    for wrong in (overlapping, later):
        (violation,) = check_linearizable([*right, wrong], models.AppendList())
        assert violation.evidence[-1] == wrong
        assert "before X, the state can only be (1, 2)" in str(violation)


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


def test_an_operation_within_the_window_that_is_not_needed_is_left_out() -> None:
    operations = in_sequence(
        ("a", "write", (1,), None),
        ("a", "write", (2,), None),
        ("b", "cas", (8, 9), False),
        ("c", "read", (), 1),
    )
    (violation,) = check_linearizable(operations, models.Register())
    assert violation.evidence == (operations[1], operations[3])


def test_what_goes_on_when_the_window_begins_may_take_effect_in_it() -> None:
    """The first read does not show the fault: as far as it can tell, the write may have come after it."""
    operations = [
        at("a", "write", 5, began=1, ended=5),
        at("b", "cas", 5, 1, result=True, began=2, ended=6),
        at("c", "read", result=1, began=3, ended=4),
        at("c", "read", result=5, began=7, ended=8),
    ]
    (violation,) = check_linearizable(operations, models.Register())
    assert violation.evidence == (operations[3],)
    assert "before X, the state can only be 1" in str(violation)


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
    operations that make no difference: 2"""
    )


def test_a_picture_of_what_took_effect_unseen() -> None:
    """A write that another one has overwritten at once has a place nevertheless."""
    operations = [
        at("a", "write", 2, began=0, ended=3),
        at("b", "write", 1, began=1, ended=4),
        at("c", "read", began=5, ended=6),
    ]
    (violation,) = check_linearizable(operations, models.Register())
    assert violation.evidence == tuple(operations[1:])
    assert "b  write(1)        [---*---]\n" in str(violation)


# -- what is given -----------------------------------------------------------------------------------------------------


async def test_operations_of_a_history() -> None:
    history = History()
    with history.operation("put", ["a", {"b": 1}], [1], client="one"):
        pass
    with pytest.raises(OSError), history.operation("put", ["a", {"b": 1}], [2], client="two"):  # noqa: PT011 - any
        raise OSError
    with pytest.raises(KeyError), history.operation("put", "x", 1, client="two", refused=KeyError):
        raise KeyError
    with history.operation("get", ["a", {"b": 1}], client="one") as operation:
        operation.result = [2]
    assert check_linearizable(history.operations(), models.Map()) == []
    with history.operation("get", ["a", {"b": 1}], client="one") as operation:
        operation.result = [1]
    (violation,) = check_linearizable(history.operations(), models.Map())
    assert "before X, the state can only be (2,)" in str(violation)


def test_what_is_refused_is_left_out() -> None:
    refused = attrs.evolve(at("a", "write", 1, began=0, ended=None), status=OutcomeStatus.REFUSED)
    read = at("a", "read", result=1, began=1, ended=2)
    assert check_linearizable([attrs.evolve(refused, status=OutcomeStatus.UNKNOWN), read], models.Register()) == []
    assert len(check_linearizable([refused, read], models.Register())) == 1


def test_a_violation_counts_more_than_a_key_that_is_undecided() -> None:
    hard = [at(f"c{n}", "enqueue", "hard", n, began=n, ended=100 + n) for n in range(6)]
    hard += [at("c", "dequeue", "hard", result=n, began=200 - 2 * n, ended=201 - 2 * n) for n in range(6)]
    bad = in_sequence(("a", "dequeue", ("bad",), 1))
    with pytest.raises(UndecidedError, match=r"300 steps did not suffice .* of 'hard' are linearizable; pass a larger"):
        check_linearizable(hard, models.Queue(), budget=300)
    assert check_linearizable(hard, models.Queue()) == []
    (violation,) = check_linearizable([*hard, *bad], models.Queue(), budget=300)
    assert violation.evidence == tuple(bad)


def test_a_violation_without_a_window() -> None:
    """Looking ahead shows that nothing explains a read, but that all before it can be explained would take too long."""
    operations = [at(f"c{n}", "append", n, began=n, ended=100 + n) for n in range(10)]
    operations.append(at("d", "read", result=(99,), began=200, ended=201))
    (violation,) = check_linearizable(operations, models.AppendList(), budget=500)
    assert violation.text == "no order of operations explains all results; within the budget, no window was found"
    assert violation.evidence == tuple(operations)


@pytest.mark.parametrize(
    "model, call, error, message",
    [
        (
            models.Map(),
            ("set", "x", 1),
            ValueError,
            "Map has no operation 'set', only get, put, delete, contains, cas;",
        ),
        (models.Map(), ("get",), TypeError, r"get of Map takes 1 arguments, not 0: \(\)"),
        (models.Map(), ("put", "x", None), ValueError, "None stands for no value"),
        (models.Map(), ("cas", "x", 1, 2), TypeError, "cas of Map returns a bool, not None; record its result"),
        (models.Register(), ("write", 1, 2, 3), TypeError, "write of Register takes 1 or 2 arguments, not 3"),
        (models.Queue(), ("enqueue", None), ValueError, "None stands for an empty queue"),
        (models.AppendList(), ("read",), TypeError, "read of an AppendList returns a list or tuple, not None"),
        (models.Register, ("read",), TypeError, "model must be a Model, such as models.Map()"),
    ],
)
def test_what_a_model_does_not_know(model: Any, call: tuple[Any, ...], error: type[Exception], message: str) -> None:
    # It is found first, although nothing explains an earlier one.
    unexplained = in_sequence(("a", "dequeue" if isinstance(model, models.Queue) else "read", (), 7))
    before = [] if isinstance(model, (models.Map, models.AppendList)) else unexplained
    operations = [*before, at("a", *call, began=10, ended=11)]
    with pytest.raises(error, match=message):
        check_linearizable(operations, model)


def test_bad_arguments() -> None:
    with pytest.raises(TypeError, match=r"takes operations, as History.operations\(\) returns them, not History"):
        check_linearizable([History()], models.Map())  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="budget must be at least 1, not 0"):
        check_linearizable([], models.Map(), budget=0)
    with pytest.raises(ValueError, match="it ended before it began"):
        check_linearizable([at("a", "read", began=2, ended=1)], models.Register())


def test_objects_with_names_are_checked_apart() -> None:
    calls = [("a", "acquire", ("one",), 1), ("b", "acquire", ("two",), 1), ("a", "acquire", ("two",), False)]
    assert check_linearizable(in_sequence(*calls), models.Lock()) == []
    (violation,) = check_linearizable(in_sequence(*calls, ("b", "acquire", ("one",), 2)), models.Lock())
    assert "(key 'one')" in violation.text


def test_a_model_of_ones_own_without_hints() -> None:
    """The hints that a model gives only make the check faster."""

    class Plain(models.Model[Any]):
        initial = None

        def step(self, state: Any, operation: Operation) -> Any:
            return models.Register().step(state, operation)

    for seed in range(100):
        rng = random.Random(seed)
        operations = simulated(SUBJECTS["register"], rng, number=12, clients=4, unknown=0.1, values=3)
        reads = [one for one in operations if one.name == "read" and one.ended is not None]
        if reads:
            victim = rng.choice(reads)
            operations = [attrs.evolve(one, result=1) if one is victim else one for one in operations]
        plain, hinted = (check_linearizable(operations, model) for model in (Plain(), models.Register()))
        assert [str(one.evidence[-1]) for one in plain] == [str(one.evidence[-1]) for one in hinted]
