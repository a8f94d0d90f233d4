"""What the soak calls a leak (docs/soak.md)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from soak.measure import Usage
from soak.report import Run, Sample, verdict
from soak.roles import LARGE

MESSAGE = LARGE // 1024 + 1
"""A message in parts, in KiB."""


def run_of(
    *,
    patched: bool = False,
    python: Callable[[int], int],
    other: Callable[[int], int],
    daemon: Callable[[int], int],
) -> Run:
    """A run of an hour, with a window and nine rings in each minute; `python` and so on give the KiB after a minute."""
    run = Run(seed=0, conditions="", patched=patched)
    for minute in range(60):
        free = 1000 * minute  # what malloc(3) keeps is no leak
        client = Usage("client", 1, 1, free, free, 8, 1, 0, python=20_000 + python(minute), other=9_000 + other(minute))
        anonymous = 80_000 + daemon(minute)
        sample = Sample(
            60.0 * minute, [client, Usage("daemon", 1, 2, anonymous, anonymous, 31, 9, 0, rings=9 * minute)]
        )
        run.rests.append(sample)
        run.samples.append(Sample(sample.time, sample.usages, connections=1))
    return run


def nothing(_: int) -> int:
    return 0


def message_every_ten_minutes(minute: int) -> int:
    return MESSAGE * (minute // 10)


def packets_with_each_ring(minute: int) -> int:
    return 9 * 200 * minute


@pytest.mark.parametrize("patched", [False, True])
def test_flat(patched: bool) -> None:  # noqa: FBT001 - pytest passes it by name
    assert verdict(run_of(patched=patched, python=nothing, other=nothing, daemon=nothing)) == []


def test_what_corosync_is_known_to_leak() -> None:
    def run(*, patched: bool) -> Run:
        return run_of(patched=patched, python=nothing, other=message_every_ten_minutes, daemon=packets_with_each_ring)

    assert verdict(run(patched=False)) == []
    other, daemon = verdict(run(patched=True))
    assert other.startswith("client 1: other memory in use grows by")
    assert daemon == "daemon 1: memory grows by 1800 KiB a minute; 128 are allowed"


def test_a_message_that_python_keeps() -> None:
    (found,) = verdict(run_of(python=message_every_ten_minutes, other=nothing, daemon=nothing))
    assert found.startswith("client 1: memory of Python objects grows by")


def test_a_small_leak_beside_that_of_libcpg() -> None:
    def other(minute: int) -> int:
        return 100 * minute + message_every_ten_minutes(minute)

    (found,) = verdict(run_of(python=nothing, other=other, daemon=nothing))
    assert found == "client 1: other memory in use grows by 100 KiB a minute; 64 are allowed"


def test_a_daemon_that_loses_twice_as_much() -> None:
    def daemon(minute: int) -> int:
        return 2 * packets_with_each_ring(minute)

    (found,) = verdict(run_of(python=nothing, other=nothing, daemon=daemon))
    assert found.startswith("daemon 1: memory grows by 3600 KiB a minute")
