"""Run a program on a real cluster and on a fake, and compare what it did."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Mapping
from typing import Any, cast

import attrs
import trio
from support import installed

from fuzz.driver import Outcome, run
from fuzz.excuses import EXPECTED_VOTES_FIELDS, Excuses, left_with_node
from fuzz.program import Program
from triocoro.testing import FakeCluster, NetnsCluster, check, seeded_run

SAME = "same"
"""The verdict on a program that does the same on both, without violations."""
_EXCUSED = "excused: "
"""The prefix of a difference that is not a finding."""


@attrs.frozen
class Verdict:
    """The result of judging a program."""

    program: Program
    findings: tuple[str, ...]
    """Differences, violations, crashes, and programs that got stuck; empty if all is well."""
    seconds: float = 0.0
    """The time that judging took."""
    excused: int = 0
    """The number of differences that were excused."""

    @property
    def kind(self) -> str:
        """The verdict in a word: `SAME`, or the kind of the first finding."""
        return SAME if not self.findings else self.findings[0].partition(":")[0]


def judge(program: Program, *, fake: bool = False) -> Verdict:
    """Run a program on a fake and on a real cluster, or on a fake only, and compare."""
    start = time.monotonic()
    runners = {"fake": run_on_fake} if fake else {"fake": run_on_fake, "real": run_on_real}
    outcomes: dict[str, Outcome] = {}
    found: list[str] = []
    excused: list[str] = []
    for kind, runner in runners.items():
        try:
            outcomes[kind] = runner(program)
        except Exception:  # noqa: BLE001 - any error is a finding, and the other programs go on
            found.append(f"crash: on the {kind} one: {traceback.format_exc()}")
    if len(outcomes) < len(runners):
        found += [finding for kind, outcome in outcomes.items() for finding in _own_findings(kind, program, outcome)]
    elif fake:
        found += _own_findings("fake", program, outcomes["fake"])
    else:
        lost = not installed.tells_of_leaves()
        for finding in findings(program, outcomes["fake"], outcomes["real"], leaves_may_be_lost=lost):
            (excused if finding.startswith(_EXCUSED) else found).append(finding)
    return Verdict(program, tuple(found), time.monotonic() - start, len(excused))


def run_on_fake(program: Program) -> Outcome:
    """Run a program on a fake, where it takes the same course each time."""
    return seeded_run(_run, program, FakeCluster, seed=program.seed)


def run_on_real(program: Program) -> Outcome:
    """Run a program on a real cluster."""
    return trio.run(_run, program, NetnsCluster)


def findings(program: Program, fake: Outcome, real: Outcome, *, leaves_may_be_lost: bool = False) -> Iterator[str]:
    """Compare a run on the fake with one on a real cluster; yields findings and excused differences.

    Args:
        program: the program that was run.
        fake: what it did on the fake.
        real: what it did on the real cluster.
        leaves_may_be_lost: whether a real daemon that is stopped may end before it has announced its members' leaves.
    """
    yield from _own_findings("real", program, real)
    yield from _own_findings("fake", program, fake)
    excuses = Excuses()
    for number, (step, ours, theirs) in enumerate(
        zip(program.steps, fake.observations, real.observations, strict=False)
    ):
        excuses.follow(step, ours)
        differences = list(_differences(ours, theirs))
        excused = (
            [path for path, _, _ in differences if path[-1] in EXPECTED_VOTES_FIELDS]
            if excuses.expected_votes_vary
            else []
        )
        if not excused and any(key.startswith("node ") for key in ours):
            excuses.agree_again()
        for path, one, other in differences:
            may_differ = path in excused or (leaves_may_be_lost and left_with_node(step, path[-1], one, other))
            prefix = _EXCUSED if may_differ else "difference: "
            where = f"step {number}, {dict(step)}: {', '.join(path)}"
            yield f"{prefix}{where}: {one!r} on the fake, {other!r} on the real one"


def _own_findings(kind: str, program: Program, outcome: Outcome) -> Iterator[str]:
    """What is wrong with one run, without comparing it."""
    if outcome.error:
        yield f"stuck: on the {kind} one: {outcome.error}"
    for violation in check(outcome.history, options=FakeCluster(nodes=program.nodes).options):
        yield f"violation: on the {kind} one: {violation}"


def _differences(one: Any, other: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    """Yield where two observations differ, with the value of each."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        ours, theirs = cast("Mapping[str, Any]", one), cast("Mapping[str, Any]", other)
        for key in sorted(ours.keys() | theirs.keys()):
            yield from _differences(ours.get(key), theirs.get(key), (*path, key))
    elif one != other:
        yield path, one, other


async def _run(program: Program, cluster_type: type[FakeCluster | NetnsCluster]) -> Outcome:
    async with cluster_type(nodes=program.nodes) as cluster:
        return await run(program, cluster)
