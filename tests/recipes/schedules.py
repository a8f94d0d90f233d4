"""Random schedules for the agreement on a simulated bus: `PYTHONPATH=tests python -m recipes.schedules --help`.

A schedule is a list of steps, each a method of `Bus` and its arguments. A seed gives a schedule; one that fails is
shrunk to the fewest steps that still fail, and printed as code.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import attrs

from recipes.bus import Bus, Forgotten, Violation

LEDGER = Path(__file__).parent / "ledger.csv"
BATCH = 100

Step = tuple[Any, ...]


@attrs.frozen
class Schedule:
    """What to do to a bus, in order."""

    nodes: int
    members: int
    protect: bool
    steps: Sequence[Step]

    def code(self) -> str:
        """The schedule as Python code."""
        lines = [f"    {step!r},\n" for step in self.steps]
        return f"Schedule({self.nodes}, {self.members}, {self.protect}, [\n{''.join(lines)}])"


@attrs.frozen
class Outcome:
    """What came of a schedule."""

    fault: str | None
    commits: int = 0
    ballots: int = 0
    live: bool = False
    forgotten: bool = False


# -- running -----------------------------------------------------------------------------------------------------------


def run(
    schedule: Schedule,
    make: Callable[..., Any] | None = None,
    trace: Callable[[str], None] | None = None,
    done: list[Step] | None = None,
) -> Outcome:
    """Run a schedule; `done` gets its steps, each `flow` as the steps that it consists of."""
    bus = Bus(schedule.nodes, schedule.members, trace=trace, protect=schedule.protect, **({"make": make} if make else {}))
    fault: str | None = None
    live = forgotten = False
    try:
        for step in schedule.steps:
            if step[0] == "flow":
                for each in flow(bus, *step[1:]):
                    if trace is not None:
                        trace(repr(each))
                    if done is not None:
                        done.append(each)
                    getattr(bus, each[0])(*each[1:])
            else:
                if trace is not None:
                    trace(repr(step))
                if done is not None:
                    done.append(step)
                getattr(bus, step[0])(*step[1:])
        if trace is not None:
            trace("quiet")
        bus.quiet()
        live = bus.agreed()
    except Violation as violation:
        fault = str(violation)
    except Forgotten:
        forgotten = True
    except Exception as error:  # noqa: BLE001 - any exception of the agreement is a finding
        traceback = error.__traceback__
        while traceback is not None and traceback.tb_next is not None:
            traceback = traceback.tb_next
        place = f"{Path(traceback.tb_frame.f_code.co_filename).name}:{traceback.tb_lineno}" if traceback else ""
        fault = f"crash: {type(error).__name__}: {error} at {place}"
    ballots = {it.agreement.ballot for it in bus.processes.values() if it is not None}
    most = max((it.attempt + it.seq // 4 for it in ballots if it is not None), default=0)
    return Outcome(fault, len(bus.history.applied), most, live, forgotten)


def flow(bus: Bus, seed: int, count: int, losses: float = 0.0) -> Iterator[Step]:
    """Steps that let messages flow: nodes send and deliver, and processes read, in any order."""
    choices = random.Random(seed)
    for _ in range(count):
        ready: list[Step] = []
        for node in bus.nodes.values():
            if node.ring is not None:
                if node.queue and node.synced:
                    ready.append(("place", node.id))
                if node.at < len(node.ring.order):
                    ready.append(("deliver", node.id))
        for name, process in bus.processes.items():
            if process is not None and not process.stopped:
                if process.inbox:
                    ready.append(("read", name))
                elif process.connection is None and bus.nodes[int(name[0])].up:
                    ready.append(("connect", name))
        if not ready:
            return
        step = choices.choice(ready)
        if losses and step[0] == "place" and choices.random() < losses:
            yield "lose", step[1], choices.randrange(3), choices.randrange(2)
        if step[0] != "connect":
            step = (*step, choices.choice((1, 1, 2, 3, 9)))
        yield step


# -- generating --------------------------------------------------------------------------------------------------------

FAULTS = ("move", "split", "same", "kill", "disconnect", "crash", "stop", "lose", "tick", "lag", "second", "withdraw", "vote")
TRAITS = ("hold", "losses")


def generate(seed: int, nodes: int | None = None, members: int | None = None) -> Schedule:
    """The schedule of a seed."""
    choices = random.Random(seed)
    nodes = nodes or choices.choice((2, 3, 3, 3, 3, 4, 5))
    members = members or choices.choice((1, 1, 2))
    protect = choices.random() < 0.8
    faults = [fault for fault in FAULTS if choices.random() < 0.4] or ["move"]
    traits = [trait for trait in TRAITS if choices.random() < 0.4]
    names = [f"{nodeid}{'ab'[slot]}" for nodeid in range(1, nodes + 1) for slot in range(members)]
    calmness = choices.choice((0.0, 0.2, 0.5))
    pace = choices.choice((5, 20, 60))
    losses = choices.choice((0.01, 0.1)) if "losses" in traits else 0.0
    steps: list[Step] = []

    def flows(scale: float = 1.0) -> None:
        count = 1 + int(choices.expovariate(1 / (pace * scale)))
        steps.append(("flow", choices.randrange(1 << 30), count, losses))

    def pauses() -> None:
        """Nothing, some time, or so much that everything comes to rest."""
        length = choices.random()
        if length < calmness:
            steps.append(("calm",))
        elif length < 0.7:
            flows()

    def proposes(many: Sequence[str]) -> None:
        steps.extend(("propose", choices.choice(many)) for _ in range(choices.choice((1, 1, 2, 5))))

    def some(many: Sequence[Any]) -> list[Any]:
        return sorted(choices.sample(many, choices.randint(1, len(many))))

    def moves(nodeids: Sequence[int]) -> None:
        hold = choices.getrandbits(2 * nodes) & choices.getrandbits(2 * nodes) if "hold" in traits else 0
        steps.append(("move", tuple(nodeids), choices.choice((0, 0, 1, 2, 7, 30)), hold))

    everyone = range(1, nodes + 1)
    for nodeid in everyone:
        steps.append(("start", nodeid))
    for name in names:
        if choices.random() < 0.95:
            steps.append(("launch", name))
    if choices.random() < 0.9:
        moves(everyone)
        if choices.random() < 0.8:
            flows(8 * nodes * members)

    kinds = ["propose"] * 8 + ["flow"] * 6
    if "hold" in traits:
        kinds.append("settle")
    for fault in faults:
        kinds += [fault] * 2
    for _ in range(choices.choice((4, 10, 25))):
        kind = choices.choice(kinds)
        name, nodeid = choices.choice(names), choices.choice(everyone)
        if kind == "propose":
            proposes(names)
        elif kind == "move":
            form = choices.random()
            if form < 0.4:
                moves(everyone)
            else:
                part = some(everyone)
                moves(part)
                rest = [it for it in everyone if it not in part]
                if rest and form < 0.7:
                    if choices.random() < 0.3:
                        flows(0.5)
                    moves(rest)
        elif kind == "same":
            moves(everyone)
        elif kind == "kill":
            victims = choices.choice(([nodeid], [nodeid], some(everyone), [*everyone]))
            for it in victims:
                steps.append(("kill", it, choices.randrange(20)))
            if choices.random() < 0.5:
                moves([it for it in everyone if it not in victims] or everyone)
            if choices.random() < 0.5:
                flows()
            for it in victims:
                steps.append(("start", it))
            if choices.random() < 0.7:
                moves(everyone)
        elif kind == "disconnect":
            steps.append(("disconnect", name, choices.randrange(20), choices.choice((0, 0, 1, 3))))
        elif kind == "crash":
            steps.append(("crash", name, choices.choice((0, 0, 1, 3))))
            if choices.random() < 0.5:
                flows()
            if choices.random() < 0.8:
                steps.append(("launch", name, choices.randrange(2)))
        elif kind == "second":
            steps.append(("launch", name, choices.randrange(2)))
        elif kind == "stop":
            steps.append((choices.choice(("stop", "stop", "go_on")), name))
        elif kind == "lose":
            steps.append(("lose", nodeid, choices.randrange(5), choices.randrange(2)))
        elif kind == "settle":
            steps.append(("settle", nodeid))
        elif kind == "withdraw":
            steps.append(("withdraw", name))
        elif kind == "vote":
            steps.append(("vote", name, choices.getrandbits(2 * nodes + 2)))
        elif kind == "tick":
            steps.append(("tick", name))
        elif kind == "lag":
            steps.append(("read", name, choices.choice((1, 2, 5)), 0))
        elif kind == "split":
            part = some(everyone)
            rest = [it for it in everyone if it not in part] or [*everyone]
            moves(part)
            if choices.random() < 0.6:
                moves(rest)
            for _ in range(choices.randint(1, 3)):
                side = choices.choice((part, rest))
                proposes([it for it in names if int(it[0]) in side])
                pauses()
            if choices.random() < 0.7:
                moves(everyone if choices.random() < 0.7 else some(everyone))
        if kind == "flow":
            flows()
        else:
            pauses()
    return Schedule(nodes, members, protect, steps)


# -- shrinking ---------------------------------------------------------------------------------------------------------


def kind_of(fault: str | None) -> str | None:
    """What kind of fault it is, so that shrinking does not wander off to another one."""
    if fault is None:
        return None
    if fault.startswith("crash: "):
        return fault.split(":")[1]
    if fault.startswith("not live"):
        states = {state for state in ("AWAY", "OFFERING", "FETCHING", "RESTORING", "ADOPTED", "PRIMARY") if state in fault}
        return f"not live, {'some' if re.search('committed [1-9]', fault) else 'none'} committed: {' '.join(sorted(states))}"
    return next((kind for kind in ("come to rest", "restores", "goes back", "begins again", "say no reason", "is primary, and says") if kind in fault), "applies")


def shrink(schedule: Schedule, make: Callable[..., Any] | None = None, seconds: float = 30) -> Schedule:
    """The fewest steps found that still fail in the same way."""
    wanted = kind_of(run(schedule, make).fault)
    until = time.monotonic() + seconds

    def fails(steps: Sequence[Step]) -> bool:
        return kind_of(run(attrs.evolve(schedule, steps=steps), make).fault) == wanted

    def shorter(steps: list[Step]) -> list[Step]:
        size = max(len(steps) // 2, 1)
        while size and time.monotonic() < until:
            at = 0
            found = False
            while at < len(steps):
                candidate = steps[:at] + steps[at + size :]
                if fails(candidate):
                    steps, found = candidate, True
                else:
                    at += size
            if not (found and size == 1):
                size //= 2
        return steps

    steps = shorter([*schedule.steps])
    expanded: list[Step] = []
    run(attrs.evolve(schedule, steps=steps), make, done=expanded)
    if fails(expanded):
        steps = shorter(expanded)
    for at, step in enumerate(steps):  # smaller numbers
        for place in range(len(step) - 1, 1, -1):
            smaller: Sequence[Any] = ((),) if isinstance(step[place], tuple) else (0, 1, 2)
            for value in smaller:
                if step[place] == value or (step[0] in {"place", "deliver", "read"} and not value):
                    continue
                candidate = [*steps[:at], (*step[:place], value, *step[place + 1 :]), *steps[at + 1 :]]
                if fails(candidate):
                    steps, step = candidate, candidate[at]  # noqa: PLW2901 - the smaller step
                    break
    return attrs.evolve(schedule, steps=shorter(steps))


# -- the command -------------------------------------------------------------------------------------------------------


def batch(nodes: int | None, members: int | None, seeds: range) -> tuple[Counter[str], dict[int, str]]:
    """Run some seeds: what was counted, and the faults."""
    counts: Counter[str] = Counter()
    faults: dict[int, str] = {}
    for seed in seeds:
        outcome = run(generate(seed, nodes, members))
        counts["schedules"] += 1
        counts["commits"] += outcome.commits
        counts["ballots"] += outcome.ballots
        counts["live"] += outcome.live
        counts["forgotten"] += outcome.forgotten
        if outcome.fault is not None:
            faults[seed] = outcome.fault
    return counts, faults


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="recipes.schedules", description=__doc__)
    parser.add_argument("--seeds", default="0:1000", help="first and end of the seeds to run (%(default)s)")
    parser.add_argument("--seed", type=int, help="run and shrink this seed alone")
    parser.add_argument("--trace", action="store_true", help="with --seed: print all that happens")
    parser.add_argument("--nodes", type=int, help="nodes of each schedule (random, 2 to 5)")
    parser.add_argument("--members", type=int, help="processes of each node (random, 1 or 2)")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes that run them (%(default)s)")
    parser.add_argument("--stop-after", type=int, default=20, help="end after this many faults (%(default)s)")
    parser.add_argument("--ledger", action="store_true", help=f"write a line to {LEDGER.name}")
    options = parser.parse_args(arguments)
    if options.seed is not None:
        return show(generate(options.seed, options.nodes, options.members), trace=options.trace)
    first, end = map(int, options.seeds.split(":"))
    began = time.monotonic()
    counts: Counter[str] = Counter()
    faults: dict[int, str] = {}
    batches = [range(at, min(at + BATCH, end)) for at in range(first, end, BATCH)]
    with ProcessPoolExecutor(options.workers, multiprocessing.get_context("forkserver")) as pool:
        results = pool.map(partial(batch, options.nodes, options.members), batches)
        for more, more_faults in results:
            counts += more
            for seed, fault in more_faults.items():
                print(f"{seed}: {fault[:300]}", flush=True)
            faults.update(more_faults)
            if len(faults) >= options.stop_after:
                pool.shutdown(cancel_futures=True)
                break
    seconds = time.monotonic() - began
    print(f"{', '.join(f'{count} {name}' for name, count in counts.items())}, {seconds:.0f} s")
    kinds = Counter(kind_of(fault) for fault in faults.values())
    print(f"{len(faults)} violations: {dict(kinds)}")
    if options.ledger:
        write_ledger(f"{first}:{first + counts['schedules']}", counts, len(faults))
    return 1 if faults else 0


def show(schedule: Schedule, *, trace: bool = False) -> int:
    """Run one schedule, and print the shrunk one if it fails."""
    outcome = run(schedule)
    print(outcome)
    if outcome.fault is None:
        return 0
    small = shrink(schedule)
    print(small.code())
    print(run(small, trace=print if trace else None).fault)
    return 1


def write_ledger(seeds: str, counts: Counter[str], violations: int) -> None:
    """Add a line to the ledger."""
    git = ["git", "-C", str(LEDGER.parent)]
    commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], check=True, capture_output=True, text=True)
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", ":/triocoro"], check=False).returncode
    if not LEDGER.exists():
        LEDGER.write_text("day,commit,seeds,schedules,commits,ballots,violations\n", encoding="ascii")
    with LEDGER.open("a", encoding="ascii") as ledger:
        name = commit.stdout.strip() + "+" * changed
        columns = ",".join(str(counts[column]) for column in ("schedules", "commits", "ballots"))
        ledger.write(f"{time.strftime('%Y-%m-%d')},{name},{seeds},{columns},{violations}\n")


if __name__ == "__main__":
    sys.exit(main())
