"""What pytest shows of violations in an assertion."""

from __future__ import annotations

import pytest
from support.fixtures.inner_runs import Run

SOURCE = """
from triocoro.testing import History, check, check_linearizable, models

def recorded():
    history = History(clock=lambda: 0.0)
    for value in (1, 2):
        with history.operation("put", "x", value, client="one"):
            pass
    with history.operation("get", "x", client="two") as operation:
        operation.result = 1
    return history.operations()

def test_left():
    assert check_linearizable(recorded(), models.Map()) == []

def test_right():
    assert [] == check_linearizable(recorded(), models.Map())

def test_two():
    assert check_linearizable(recorded(), models.Map()) * 2 == []

def test_other():
    assert [1, 2] == []
"""


def test_an_assertion_shows_the_picture(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("BUILD_NUMBER", raising=False)
    result = run(SOURCE)
    result.assert_outcomes(failed=4)
    title = r"linearizability: get\('x'\) -> 1 of two \(key 'x'\): no order of operations explains it"
    picture = [
        r"E +one  put\('x', 2\)    \[---\*---\]",
        r"E +two  get\('x'\) -> 1              \[---X",
        r"E +before X, the state can only be 2",
        r"E +operations that make no difference: 1",
    ]
    # Without -vv and outside of CI, pytest cuts long explanations; a usual picture is short enough.
    for _ in range(2):
        result.stdout.re_match_lines([rf"E +AssertionError: assert {title}", *picture])
    result.stdout.re_match_lines([r"E +AssertionError: assert 2 violations", rf"E +{title}"])
    result.stdout.re_match_lines([r"E +assert \[1, 2\] == \[\]"])
