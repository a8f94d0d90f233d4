"""Measure triocoro beside C and Trio on real clusters: `make bench`, `python -m benchmarks --help`."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence

import trio

from triocoro.testing import missing_requirements

from . import report
from .running import measure
from .subjects import BUILD, ROOT, CannotBuildError, Subject, build_commit, build_peer, current_commit
from .workloads import GROUP, OURS, SMOKE, TRIO, WORKLOADS, Workload


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each subject does each workload (5)")
    parser.add_argument("--only", default="", metavar="TEXT", help="only workloads with this in their names")
    parser.add_argument("--base", metavar="REVISION", help="compare with this commit of ours, and with nothing else")
    parser.add_argument("--smoke", action="store_true", help="a few short workloads, to see that all programs work")
    parser.add_argument("--save", action="store_true", help="keep the results in docs/")
    parser.add_argument("--list", action="store_true", help="print the names of the workloads")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    if options.save and (options.only or options.base or options.smoke):
        parser.error("--save keeps a whole run: it goes with neither --only, --base nor --smoke")
    if not chosen(options):
        parser.error(f"no workload has {options.only!r} in its name; see --list")
    return options


def chosen(options: argparse.Namespace) -> list[Workload]:
    """The workloads that the options name."""
    return [workload for workload in (SMOKE if options.smoke else WORKLOADS) if options.only in workload.name]


def main() -> int:
    """Run the command; returns its exit status."""
    try:
        return _run()
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except CannotBuildError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1


def _run() -> int:
    options = parse(sys.argv[1:])
    workloads = chosen(options)
    if options.list:
        print("\n".join(workload.name for workload in workloads))
        return 0
    if missing := missing_requirements():
        print("bench: real clusters cannot run here:", *missing, sep="\n  ", file=sys.stderr)
        return 1
    under = report.conditions(current_commit(), options.rounds)
    base = build_commit(options.base) if options.base else None
    subjects = [Subject(OURS), Subject(TRIO), Subject(GROUP), *([] if base else [build_peer()])]
    print(report.conditions_line(under), flush=True)
    available = {subject.name: subject for subject in subjects}
    measurements = trio.run(measure, workloads, available, base, options.rounds)
    print(f"\n{report.as_markdown(under, measurements)}")
    print(report.write(BUILD, under, measurements))
    if options.save:
        report.save(ROOT / "docs", under, measurements)
    return 1 if measurements.failures else 0


if __name__ == "__main__":
    sys.exit(main())
