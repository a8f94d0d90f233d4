"""What comes of a program on a real cluster and on a fake, and whether that is the same."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Mapping
from typing import Any, cast

import attrs
import trio
from support import installed

from fuzz.driver import Outcome, run
from fuzz.excuses import EXPECTATIONS, Excuses, goes_in_haste
from fuzz.program import Program
from triocoro.testing import FakeCluster, NetnsCluster, check, seeded_run

SAME = "same"
"""The verdict on a program that does the same on both, and violates nothing."""
_EXCUSED = "excused: "
"""Begins what is no finding."""


@attrs.frozen
class Verdict:
    """What was found."""

    program: Program
    findings: tuple[str, ...]
    """Differences and violations; none if all is well."""
    seconds: float = 0.0
    """What it took."""
    excused: int = 0
    """How many differences are none, as nothing determines what nodes expect there."""

    @property
    def kind(self) -> str:
        """In a word."""
        return SAME if not self.findings else self.findings[0].partition(":")[0]


def judge(program: Program, *, fake: bool = False) -> Verdict:
    """Run it on both, or on a fake only."""
    start = time.monotonic()
    runs = {"fake": run_on_fake} if fake else {"fake": run_on_fake, "real": run_on_real}
    outcomes: dict[str, Outcome] = {}
    found: list[str] = []
    excused: list[str] = []
    for which, run_it in runs.items():
        try:
            outcomes[which] = run_it(program)
        except Exception:  # noqa: BLE001 - whatever it is, the other programs are to go on
            found.append(f"crash: on the {which} one: {traceback.format_exc()}")
    if len(outcomes) < len(runs):
        found += [it for which, outcome in outcomes.items() for it in _complaints(which, program, outcome)]
    elif fake:
        found += _complaints("fake", program, outcomes["fake"])
    else:
        in_haste = not installed.tells_of_leaves()
        for finding in findings(program, outcomes["fake"], outcomes["real"], in_haste=in_haste):
            (excused if finding.startswith(_EXCUSED) else found).append(finding)
    return Verdict(program, tuple(found), time.monotonic() - start, len(excused))


def run_on_fake(program: Program) -> Outcome:
    """Run it on a fake; the same way each time."""
    return seeded_run(_run, program, FakeCluster, seed=program.seed)


def run_on_real(program: Program) -> Outcome:
    """Run it on a real cluster."""
    return trio.run(_run, program, NetnsCluster)


def findings(program: Program, fake: Outcome, real: Outcome, *, in_haste: bool = False) -> Iterator[str]:
    """All that is wrong, and all that differs where it may.

    Args:
        program: what was run.
        fake: what came of it on the fake.
        real: what came of it on the real cluster.
        in_haste: whether real nodes that are stopped may go before they have told of their members.
    """
    yield from _complaints("real", program, real)
    yield from _complaints("fake", program, fake)
    excuses = Excuses()
    for number, (step, ours, theirs) in enumerate(
        zip(program.steps, fake.observations, real.observations, strict=False)
    ):
        excuses.follow(step, ours)
        differences = list(_differences(ours, theirs))
        excused = [path for path, _, _ in differences if path[-1] in EXPECTATIONS] if excuses.varies else []
        if not excused and any(key.startswith("node ") for key in ours):
            excuses.agree_again()
        for path, one, other in differences:
            may_differ = path in excused or (in_haste and goes_in_haste(step, path[-1], one, other))
            kind = _EXCUSED if may_differ else "difference: "
            where = f"step {number}, {dict(step)}: {', '.join(path)}"
            yield f"{kind}{where}: {one!r} on the fake, {other!r} on the real one"


def _complaints(which: str, program: Program, outcome: Outcome) -> Iterator[str]:
    if outcome.error:
        yield f"stuck: on the {which} one: {outcome.error}"
    for violation in check(outcome.history, options=FakeCluster(nodes=program.nodes).options):
        yield f"violation: on the {which} one: {violation}"


def _differences(one: Any, other: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    """Where two observations differ."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        ours, theirs = cast("Mapping[str, Any]", one), cast("Mapping[str, Any]", other)
        for key in sorted(ours.keys() | theirs.keys()):
            yield from _differences(ours.get(key), theirs.get(key), (*path, key))
    elif one != other:
        yield path, one, other


async def _run(program: Program, kind: type[FakeCluster | NetnsCluster]) -> Outcome:
    async with kind(nodes=program.nodes) as cluster:
        return await run(program, cluster)
