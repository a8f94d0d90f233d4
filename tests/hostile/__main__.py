"""Call everything that is public with hostile arguments: `make hostile`, `python -m hostile --help`."""

from __future__ import annotations

import argparse
import faulthandler
import gc
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import trio
import trio.testing

from triocoro.testing import FakeCluster, NetnsCluster, missing_requirements

from .rounds import Findings, Round

_FOUND = 3
"""The status of a process that had findings. That of one that was stuck is 1."""


async def _work(mode: str, calls: int, seed: int, findings: Findings, last: Path) -> None:
    number = 0
    held: list[int] = []
    while findings.calls < calls:
        cluster = FakeCluster(nodes=2) if mode == "fake" else NetnsCluster(nodes=2, token=2000)
        async with cluster:
            # A new cluster now and then, as some calls leave settings behind.
            for _ in range(5):
                number += 1
                chance = random.Random(f"{seed} {number}")
                one = Round(cluster, chance, findings, last)
                try:
                    await one.run()
                except Exception as error:  # noqa: BLE001 - it is a finding
                    one.damaged(error)
                    break
                if one.spoilt or findings.calls >= calls:
                    break
        gc.collect()
        held.append(len(os.listdir("/proc/self/fd")))  # noqa: PTH208 - iterdir holds one itself
    # The first cluster opens some for good.
    if held[-1] > held[0]:
        findings.add("file descriptors leak", f"held after each cluster: {held}")


def _worker(mode: str, calls: int, seed: int, last: Path, report: Path | None) -> int:
    faulthandler.enable()
    os.chdir(tempfile.mkdtemp())  # histories are saved to names from the pool
    findings = Findings()
    clock = trio.testing.MockClock(autojump_threshold=0) if mode == "fake" else None
    began = time.monotonic()
    trio.run(_work, mode, calls, seed, findings, last, clock=clock)
    print(f"hostile: {mode}: in {time.monotonic() - began:.0f} s {findings.summary()}")
    if report:
        report.write_text(json.dumps(findings.outcomes, indent=1, sort_keys=True), encoding="utf-8")
    print(f"hostile: {mode}: {len(findings.found)} findings", *findings.found, sep="\n  ")
    return _FOUND if findings.found else 0


def main() -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="hostile", description=__doc__)
    parser.add_argument(
        "-n", "--calls", type=int, default=2000, help="how many hostile calls in each mode (%(default)s)"
    )
    parser.add_argument("--seed", type=int, help="chooses the calls (random)")
    parser.add_argument("--corosync", choices=("fake", "real"), help="only this mode")
    parser.add_argument(
        "--report", type=Path, help="write how often each call ended in which way, for each mode, to a file (JSON)"
    )
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    if options.worker:
        return _worker(options.corosync, options.calls, seed, options.worker, options.report)
    modes = [options.corosync] if options.corosync else ["fake", "real"]
    if "real" in modes and (missing := missing_requirements()):
        print("hostile: real clusters cannot run here:", *missing, sep="\n  ", file=sys.stderr)
        return 1
    status = 0
    for mode in modes:
        print(f"hostile: {mode}: --seed={seed}", flush=True)
        with tempfile.NamedTemporaryFile(mode="r") as last:
            # In a process of its own, as it may crash.
            command = [sys.executable, "-m", "hostile", f"--worker={last.name}", f"--corosync={mode}"]
            if options.report:
                command.append(f"--report={options.report.with_suffix(f'.{mode}.json')}")
            result = subprocess.run([*command, f"--calls={options.calls}", f"--seed={seed}"], check=False)
            if result.returncode not in {0, _FOUND}:
                print(f"hostile: {mode}: ended with status {result.returncode} in: {last.read()}")
            status = status or result.returncode
    return 1 if status else 0


if __name__ == "__main__":
    sys.exit(main())
