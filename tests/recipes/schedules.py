"""Random schedules for the agreement on a simulated bus: `PYTHONPATH=tests python -m recipes.schedules --help`.

A schedule is a list of steps, each a method of `Bus` and its arguments. A seed gives a schedule; one that fails is
shrunk to the fewest steps that still fail, and printed as code.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from traceback import extract_tb
from typing import Any

import attrs
from support.batches import batches_of, counting_places, results, show_places, tested_commit, write_ledger

from recipes.bus import Bus, Forgotten, Operator, Undecided, Violation
from triocoro.recipes._agreement import Agreement

HERE = Path(__file__).parent
LEDGER = HERE / "ledger.csv"
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
        return f"Schedule({self.nodes}, {self.members}, protect={self.protect}, steps=[\n{''.join(lines)}])"


@attrs.frozen
class Outcome:
    """What came of a schedule."""

    fault: str | None
    commits: int = 0
    ballots: int = 0
    live: bool = False
    excused: str = ""
    """Why it need not be live, but for an operator: `forgotten`, `undecided`, or `stalled` for want of memory."""


# -- running -----------------------------------------------------------------------------------------------------------


def run(
    schedule: Schedule,
    make: Callable[..., Any] = Agreement,
    trace: Callable[[str], None] | None = None,
    done: list[Step] | None = None,
) -> Outcome:
    """Run a schedule; `done` gets its steps, each `flow` as the steps that it consists of."""
    bus = Bus(schedule.nodes, schedule.members, make=make, trace=trace, protect=schedule.protect)
    fault: str | None = None
    excused = ""
    try:
        for step in _single_steps(bus, schedule.steps):
            if trace is not None:
                trace(repr(step))
            if done is not None:
                done.append(step)
            getattr(bus, step[0])(*step[1:])
        if trace is not None:
            trace("quiet")
        try:
            bus.quiet()
        except Undecided:
            excused = "undecided"
        if not bus.agreed():
            excused = excused or "stalled"
            _bootstrap(bus, random.Random(len(schedule.steps)))
    except Violation as violation:
        fault = str(violation)
    except Forgotten:
        excused = "forgotten"
    except Exception as error:  # noqa: BLE001 - any exception of the agreement is a finding
        last = extract_tb(error.__traceback__)[-1]
        fault = f"crash: {type(error).__name__}: {error} at {Path(last.filename).name}:{last.lineno}"
    ballots = [it.agreement.ballot for it in bus.processes.values() if it is not None]
    most = max((it.attempt + it.seq // 4 for it in ballots if it is not None), default=0)
    return Outcome(fault, len(bus.history.applied), most, fault is None and bus.agreed(), excused)


def _single_steps(bus: Bus, steps: Sequence[Step]) -> Iterator[Step]:
    for step in steps:
        if step[0] == "flow":
            yield from flow(bus, *step[1:])
        else:
            yield step


def flow(bus: Bus, seed: int, count: int, losses: float = 0.0) -> Iterator[Step]:
    """Steps that let messages flow: nodes send and deliver, and processes read, in any order."""
    choices = random.Random(seed)
    for _ in range(count):
        ready = [*_ready(bus)]
        if not ready:
            return
        step = choices.choice(ready)
        if losses and step[0] == "place" and choices.random() < losses:
            yield "lose", step[1], choices.randrange(3), choices.randrange(2)
        yield step if step[0] == "connect" else (*step, choices.choice((1, 1, 2, 3, 9)))


def _ready(bus: Bus) -> Iterator[Step]:
    """The steps that do something now."""
    for node in bus.nodes.values():
        if node.ring is not None:
            if node.queue and node.synced:
                yield "place", node.id
            if node.at < len(node.ring.order):
                yield "deliver", node.id
    for name, process in bus.processes.items():
        if process is not None and not process.stopped:
            if process.inbox:
                yield "read", name
            elif process.connection is None and bus.nodes[int(name[0])].up:
                yield "connect", name


def _bootstrap(bus: Bus, choices: random.Random) -> None:
    """Let an operator bootstrap the group: while messages flow and the ring changes, as a rule in vain; then again.

    Raises:
        Violation: the members do not agree then, or one of them loses what it has applied.
    """
    bus.forget()
    for attempt in range(1, 3):
        operator = Operator(bus, choices.choice([*bus.nodes]))
        for forced in (False, True):
            operator.found(2 * attempt + forced, forced=forced)
            if attempt > 1:
                bus.drain()
                continue
            for step in flow(bus, choices.getrandbits(30), choices.randrange(80)):
                getattr(bus, step[0])(*step[1:])
        if attempt == 1 and choices.random() < 0.8:
            bus.move([*bus.nodes], choices.choice((0, 1, 7, 30)))
        operator.leave()
        bus.come_to_rest()
        if bus.agreed():
            return
    raise Violation("not live, although an operator has bootstrapped the group")


# -- generating --------------------------------------------------------------------------------------------------------

FAULTS = (
    "move",
    "split",
    "same",
    "kill",
    "disconnect",
    "tail",
    "rejoin",
    "crash",
    "stop",
    "lose",
    "tick",
    "lag",
    "second",
    "withdraw",
    "vote",
)
TRAITS = ("hold", "losses", "forgets")


def generate(seed: int, nodes: int | None = None, members: int | None = None) -> Schedule:
    """The schedule of a seed."""
    return _Generator(random.Random(seed), nodes, members).schedule()


class _Generator:
    """Draws a schedule: some of the faults, and how much happens between them."""

    def __init__(self, choices: random.Random, nodes: int | None, members: int | None) -> None:
        self.choices = choices
        self.nodes = nodes or choices.choice((2, 3, 3, 3, 3, 4, 5))
        self.members = members or choices.choice((1, 1, 2))
        self.everyone = [*range(1, self.nodes + 1)]
        self.names = [f"{nodeid}{'ab'[slot]}" for nodeid in self.everyone for slot in range(self.members)]
        self.faults = [fault for fault in FAULTS if choices.random() < 0.4] or ["move"]
        self.traits = [trait for trait in TRAITS if choices.random() < 0.4]
        self.calmness = choices.choice((0.0, 0.2, 0.5))
        self.pace = choices.choice((5, 20, 60))
        self.losses = choices.choice((0.01, 0.1)) if "losses" in self.traits else 0.0
        self.steps: list[Step] = []

    def schedule(self) -> Schedule:
        protect = self.choices.random() < 0.8
        self._begin()
        kinds = ["propose"] * 8 + ["flow"] * 6 + ["settle"] * ("hold" in self.traits) + self.faults * 2
        for _ in range(self.choices.choice((4, 10, 25))):
            kind = self.choices.choice(kinds)
            getattr(self, f"_{kind}")(self.choices.choice(self.names), self.choices.choice(self.everyone))
            if kind != "flow":
                self._pause()
        return Schedule(self.nodes, self.members, protect, self.steps)

    def _begin(self) -> None:
        self.steps += [("start", nodeid) for nodeid in self.everyone]
        self.steps += [("launch", name) for name in self.names if self.choices.random() < 0.95]
        if self.choices.random() < 0.9:
            self._same()
            if self.choices.random() < 0.8:
                self._flow(scale=8 * len(self.names))

    # What happens between the faults

    def _flow(self, _name: str = "", _nodeid: int = 0, *, scale: float = 1.0) -> None:
        count = 1 + int(self.choices.expovariate(1 / (self.pace * scale)))
        self.steps.append(("flow", self.choices.randrange(1 << 30), count, self.losses))

    def _pause(self) -> None:
        """Nothing, some time, or so much that everything comes to rest."""
        length = self.choices.random()
        if length < self.calmness:
            self.steps.append(("calm",))
        elif length < 0.7:
            self._flow()

    def _proposals(self, names: Sequence[str]) -> None:
        count = self.choices.choice((1, 1, 2, 5))
        self.steps += [("propose", self.choices.choice(names)) for _ in range(count)]

    def _propose(self, _name: str, _nodeid: int) -> None:
        self._proposals(self.names)

    # Rings

    def _some(self) -> list[int]:
        return sorted(self.choices.sample(self.everyone, self.choices.randint(1, self.nodes)))

    def _ring(self, nodeids: Sequence[int]) -> None:
        bits = 2 * self.nodes
        hold = self.choices.getrandbits(bits) & self.choices.getrandbits(bits) if "hold" in self.traits else 0
        self.steps.append(("move", tuple(nodeids), self.choices.choice((0, 0, 1, 2, 7, 30)), hold))

    def _same(self, _name: str = "", _nodeid: int = 0) -> None:
        self._ring(self.everyone)

    def _move(self, _name: str, _nodeid: int) -> None:
        form = self.choices.random()
        if form < 0.4:
            self._same()
            return
        part = self._some()
        self._ring(part)
        rest = [it for it in self.everyone if it not in part]
        if rest and form < 0.7:
            if self.choices.random() < 0.3:
                self._flow(scale=0.5)
            self._ring(rest)

    def _split(self, _name: str, _nodeid: int) -> None:
        part = self._some()
        rest = [it for it in self.everyone if it not in part] or self.everyone
        self._ring(part)
        if self.choices.random() < 0.6:
            self._ring(rest)
        for _ in range(self.choices.randint(1, 3)):
            side = self.choices.choice((part, rest))
            self._proposals([it for it in self.names if int(it[0]) in side])
            self._pause()
        if self.choices.random() < 0.7:
            self._ring(self.everyone if self.choices.random() < 0.7 else self._some())

    def _settle(self, _name: str, nodeid: int) -> None:
        self.steps.append(("settle", nodeid))

    def _kill(self, _name: str, nodeid: int) -> None:
        victims = self.choices.choice(([nodeid], [nodeid], self._some(), self.everyone))
        self.steps += [("kill", it, self.choices.randrange(20)) for it in victims]
        if self.choices.random() < 0.5:
            self._ring([it for it in self.everyone if it not in victims] or self.everyone)
        if self.choices.random() < 0.5:
            self._flow()
        forgets = "forgets" in self.traits and self.choices.random() < 0.7
        self.steps += [("start", it, *[1] * forgets) for it in victims]
        if self.choices.random() < 0.7:
            self._same()

    # Processes

    def _disconnect(self, name: str, _nodeid: int) -> None:
        self.steps.append(("disconnect", name, self.choices.randrange(20), self.choices.choice((0, 0, 1, 3))))

    def _crash(self, name: str, _nodeid: int) -> None:
        self.steps.append(("crash", name, self.choices.choice((0, 0, 1, 3))))
        if self.choices.random() < 0.5:
            self._flow()
        if self.choices.random() < 0.8:
            self._second(name)

    def _tail(self, _name: str, _nodeid: int) -> None:
        """Members lose their connections under traffic, and some of the nodes go on."""
        self._proposals(self.names)
        self._flow(scale=0.3)
        for name in self.choices.sample(self.names, self.choices.randint(1, len(self.names))):
            self.steps.append(("disconnect", name, self.choices.randrange(4), 0))
        part = sorted(self.choices.sample(self.everyone, self.nodes // 2 + 1))
        if self.choices.random() < 0.3:
            self._ring([it for it in self.everyone if it not in part] or part)
        self._ring(part)
        self._proposals([it for it in self.names if int(it[0]) in part])
        self._pause()
        if self.choices.random() < 0.7:
            self._same()

    def _rejoin(self, name: str, slow: int) -> None:
        """Processes connect again, and found ballots; one sends on and on; one node is slow to send."""
        nodeid = int(name[0])
        fast = [it for it in self.everyone if it != slow]
        self._proposals([name])
        self._rounds(fast, 3)
        for _ in range(self.choices.randint(2, 6)):
            other = self.choices.choice(self.names)
            if other != name:
                its = int(other[0])
                self.steps += [("disconnect", other), ("read", other, 99), ("connect", other)]
                self.steps += [("place", its, 9), ("deliver", its, 99)]
                self.steps += [("read", other, 99)] * self.choices.randrange(2)
            self._rounds(fast, self.choices.choice((0, 1, 4)))
            self.steps += [("deliver", slow, 99), ("read", f"{slow}a", 99)] * self.choices.randrange(2)
        self.steps += [("propose", name), ("place", slow, self.choices.randint(0, 2)), ("place", nodeid, 1)]
        self._rounds([self.choices.choice(fast)], 2)

    def _rounds(self, nodeids: Sequence[int], count: int) -> None:
        """Some nodes send and deliver all, and their processes read all."""
        here = [name for name in self.names if int(name[0]) in nodeids]
        for _ in range(count):
            self.steps += [("place", it, 9) for it in nodeids]
            self.steps += [("deliver", it, 99) for it in nodeids]
            self.steps += [("read", it, 99) for it in here]

    def _second(self, name: str, _nodeid: int = 0) -> None:
        self.steps.append(("launch", name, self.choices.randrange(2)))

    def _stop(self, name: str, _nodeid: int) -> None:
        self.steps.append((self.choices.choice(("stop", "stop", "go_on")), name))

    def _lose(self, _name: str, nodeid: int) -> None:
        self.steps.append(("lose", nodeid, self.choices.randrange(5), self.choices.randrange(2)))

    def _tick(self, name: str, _nodeid: int) -> None:
        self.steps.append(("tick", name))

    def _lag(self, name: str, _nodeid: int) -> None:
        self.steps.append(("read", name, self.choices.choice((1, 2, 5)), 0))

    def _withdraw(self, name: str, _nodeid: int) -> None:
        self.steps.append(("withdraw", name))

    def _vote(self, name: str, _nodeid: int) -> None:
        self.steps.append(("vote", name, self.choices.getrandbits(2 * self.nodes + 2)))


# -- shrinking ---------------------------------------------------------------------------------------------------------


def kind_of(fault: str | None) -> str | None:
    """What kind of fault it is, so that shrinking does not wander off to another one."""
    if fault is None:
        return None
    if fault.startswith("crash: "):
        return fault.split(":")[1]
    if fault.startswith("not live"):
        states = {
            state for state in ("AWAY", "OFFERING", "FETCHING", "RESTORING", "ADOPTED", "PRIMARY") if state in fault
        }
        commits = "some" if re.search("committed [1-9]", fault) else "none"
        return f"not live, {commits} committed: {states}"
    kinds = ("come to rest", "restores", "goes back", "discards", "begins again", "say a reason", "all is well, but")
    return next((kind for kind in kinds if kind in fault), "applies")


def shrink(schedule: Schedule, make: Callable[..., Any] = Agreement, seconds: float = 30) -> Schedule:
    """The fewest steps found that still fail in the same way."""
    wanted = kind_of(run(schedule, make).fault)
    until = time.monotonic() + seconds

    def fails(steps: Sequence[Step]) -> bool:
        return time.monotonic() < until and kind_of(run(attrs.evolve(schedule, steps=steps), make).fault) == wanted

    steps = _shorter([*schedule.steps], fails)
    expanded: list[Step] = []
    run(attrs.evolve(schedule, steps=steps), make, done=expanded)
    if fails(expanded):
        steps = _shorter(expanded, fails)
    return attrs.evolve(schedule, steps=_shorter(_with_smaller_numbers(steps, fails), fails))


def _shorter(steps: list[Step], fails: Callable[[Sequence[Step]], bool]) -> list[Step]:
    """The steps without halves, quarters and so on down to single steps, for as long as the rest fails."""
    size = max(len(steps) // 2, 1)
    while size:
        at, found = 0, False
        while at < len(steps):
            candidate = steps[:at] + steps[at + size :]
            if fails(candidate):
                steps, found = candidate, True
            else:
                at += size
        if size > 1 or not found:
            size //= 2
    return steps


def _with_smaller_numbers(steps: list[Step], fails: Callable[[Sequence[Step]], bool]) -> list[Step]:
    for at in range(len(steps)):
        for place in range(2, len(steps[at])):
            for value in (0, 1, 2):
                step = steps[at]
                if step[place] == value:
                    break
                if step[0] in {"place", "deliver", "read"} and not value:
                    continue
                candidate = [*steps[:at], (*step[:place], value, *step[place + 1 :]), *steps[at + 1 :]]
                if fails(candidate):
                    steps = candidate
                    break
    return steps


# -- the command -------------------------------------------------------------------------------------------------------


def batch(nodes: int | None, members: int | None, seeds: range) -> tuple[Counter[str], Counter[str], dict[int, str]]:
    """Run some seeds: what was counted, how many have reached each place, and the faults."""
    counts: Counter[str] = Counter()
    places: Counter[str] = Counter()
    faults: dict[int, str] = {}
    for seed in seeds:
        with counting_places(places):
            outcome = run(generate(seed, nodes, members))
        counts["schedules"] += 1
        counts["commits"] += outcome.commits
        counts["ballots"] += outcome.ballots
        counts["live"] += outcome.live
        if outcome.excused:
            counts[outcome.excused] += 1
        if outcome.fault is not None:
            faults[seed] = outcome.fault
    return counts, places, faults


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="recipes.schedules", description=__doc__)
    parser.add_argument("--seeds", default="0:1000", help="first and end of the seeds to run (%(default)s)")
    parser.add_argument("--seed", type=int, help="run and shrink this seed alone")
    parser.add_argument("--trace", action="store_true", help="with --seed: print all that happens")
    parser.add_argument("--nodes", type=int, help="nodes of each schedule (random, 2 to 5)")
    parser.add_argument("--members", type=int, help="processes of each node (random, 1 or 2)")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count(), help="processes that run them; 0: this one (%(default)s)"
    )
    parser.add_argument("--stop-after", type=int, default=20, help="end after this many faults (%(default)s)")
    parser.add_argument("--ledger", action="store_true", help=f"write a line to {LEDGER.name}")
    options = parser.parse_args(arguments)
    if options.seed is not None:
        return show(generate(options.seed, options.nodes, options.members), trace=options.trace)
    began = time.monotonic()
    counts: Counter[str] = Counter()
    places: Counter[str] = Counter()
    faults: dict[int, str] = {}
    batches = batches_of(options.seeds, BATCH)
    with closing(results(batches, partial(batch, options.nodes, options.members), options.workers)) as done:
        for more, more_places, more_faults in done:
            counts += more
            places += more_places
            for seed, fault in more_faults.items():
                print(f"{seed}: {fault[:300]}", flush=True)
            faults.update(more_faults)
            if len(faults) >= options.stop_after:
                break
    show_places(places)
    seconds = time.monotonic() - began
    print(f"{', '.join(f'{count} {name}' for name, count in counts.items())}, {seconds:.0f} s")
    kinds = Counter(kind_of(fault) for fault in faults.values())
    print(f"{len(faults)} violations: {dict(kinds)}")
    if options.ledger:
        first = batches[0].start
        columns = {column: counts[column] for column in ("schedules", "commits", "ballots")}
        seeds = f"{first}:{first + counts['schedules']}"
        write_ledger(
            LEDGER, tested_commit(), seeds=seeds, **columns, violations=len(faults), undecided=counts["undecided"]
        )
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


if __name__ == "__main__":
    sys.exit(main())
