"""Run random programs on real clusters and on fakes, and compare the results: `make fuzz`, `python -m fuzz --help`."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NoReturn

from fuzz.program import Program, generate
from fuzz.shrink import shrink
from fuzz.verdict import Verdict, judge

HERE = Path(__file__).parent
LEDGER = HERE / "ledger.csv"
NODES = (3, 5)
STEPS = (25, 40)
TRIES = 3
"""How often a smaller program is run while shrinking on real clusters, whose schedules vary."""


def main() -> int:
    """Run the command; returns its exit status."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return _run(_parser().parse_args())
    except KeyboardInterrupt as interrupt:
        print("fuzz: interrupted")
        (number,) = interrupt.args or (signal.SIGINT,)
        return 128 + int(number)


def _interrupt(number: int, _: object) -> NoReturn:
    raise KeyboardInterrupt(number)


def _run(options: argparse.Namespace) -> int:
    if options.programs:
        programs = [Program.from_json(path.read_text(encoding="ascii")) for path in options.programs]
    else:
        seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
        print(f"fuzz: programs {seed} to {seed + options.number - 1}; --seed={seed} runs them again", flush=True)
        programs = [program_of(seed + index) for index in range(options.number)]
    failed: list[Verdict] = []
    with closing(_judged(programs, fake=options.fake, workers=options.workers)) as verdicts:
        for verdict in verdicts:
            _report(verdict)
            if options.ledger and not (options.fake or options.programs):
                _add_to_ledger(verdict)
            if verdict.findings:
                failed.append(verdict)
    for verdict in failed:
        small = (
            _shrunk_program(verdict, fake=options.fake, workers=options.workers) if options.shrink else verdict.program
        )
        path = options.keep.absolute() / f"{small.seed}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(small.to_json(), encoding="ascii")
        print(f"fuzz: {len(small.steps)} steps are left of program {small.seed}: {path}")
    print(f"fuzz: {len(programs)} programs, {len(failed)} failed" + "".join(f" {v.program.seed}" for v in failed))
    return 1 if failed else 0


def program_of(seed: int) -> Program:
    """Generate the program of a seed."""
    choices = random.Random(seed)
    return generate(seed, nodes=choices.choice(NODES), length=choices.randint(*STEPS))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("programs", nargs="*", type=Path, help="saved programs, to run instead of random ones")
    parser.add_argument("-n", "--number", type=int, default=10, help="how many random programs (%(default)s)")
    parser.add_argument("--seed", type=int, help="the first program's seed; the others count up from it (random)")
    parser.add_argument("--fake", action="store_true", help="use no real clusters: only check what the fake does")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count(), help="how many programs to run at once (%(default)s)"
    )
    parser.add_argument("--shrink", action="store_true", help="shrink failing programs")
    parser.add_argument("--ledger", action="store_true", help=f"write the verdicts to {LEDGER.name}")
    parser.add_argument("--keep", type=Path, default=Path("build/fuzz"), help="where failing programs go (%(default)s)")
    return parser


def _judged(programs: Iterable[Program], *, fake: bool, workers: int) -> Generator[Verdict, None, None]:
    """Judge the programs in worker processes; yields verdicts as they complete."""
    die_on_interrupt = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("forkserver"), die_on_interrupt)
    try:
        for verdict in as_completed([pool.submit(judge, program, fake=fake) for program in programs]):
            yield verdict.result()
    except BaseException:
        # The other verdicts are not needed. Clients and nodes notice that their worker has ended, and end as well.
        for worker in multiprocessing.active_children():
            worker.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _report(verdict: Verdict) -> None:
    program = verdict.program
    excused = f", {verdict.excused} differences excused" if verdict.excused else ""
    size = f"{program.nodes} nodes, {len(program.steps)} steps"
    print(f"{program.seed}: {size}, {verdict.seconds:.1f} s: {verdict.kind}{excused}")
    for finding in verdict.findings[:10]:
        print("    " + finding[:4000].replace("\n", "\n    "))
    sys.stdout.flush()


def _add_to_ledger(verdict: Verdict) -> None:
    program = verdict.program
    if not LEDGER.exists():
        LEDGER.write_text("day,commit,seed,nodes,steps,verdict,excused\n", encoding="ascii")
    with LEDGER.open("a", encoding="ascii") as ledger:
        day = time.strftime("%Y-%m-%d")
        columns = f"{program.seed},{program.nodes},{len(program.steps)},{verdict.kind},{verdict.excused}"
        ledger.write(f"{day},{_tested_commit()},{columns}\n")


def _tested_commit() -> str:
    """The commit under test, with a + if there are uncommitted changes."""
    git = ["git", "-C", str(HERE)]
    commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], check=True, capture_output=True, text=True)
    changes = [*git, "diff", "--quiet", "HEAD", "--", ":/", f":(exclude){LEDGER.name}"]
    return commit.stdout.strip() + "+" * subprocess.run(changes, check=False).returncode


def _shrunk_program(verdict: Verdict, *, fake: bool, workers: int) -> Program:
    """The smallest program found that gets the same kind of verdict."""
    attempts = 1 if fake else TRIES

    def fails(program: Program) -> bool:
        with closing(_judged([program] * attempts, fake=fake, workers=workers)) as judged:
            has_failed = any(other.kind == verdict.kind for other in judged)
        if has_failed:
            print(f"fuzz: {len(program.steps)} steps of program {program.seed} fail as well", flush=True)
        return has_failed

    return shrink(verdict.program, fails)


if __name__ == "__main__":
    sys.exit(main())
