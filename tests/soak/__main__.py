"""Use a real cluster under every fault for a long time, and measure: `make soak`, `python -m soak --help`."""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, cast

import attrs
import trio
from support.external_programs import Child, running

import triocoro
from triocoro.testing import NetnsCluster, Node, describe_daemon, missing_requirements

from .faults import Faults
from .judge import prepare
from .measure import Usage, usage
from .report import Run, Sample, as_markdown, plot, verdict

SETTINGS: dict[str, Any] = {"nodes": 3, "token": 1000}
"""The options of the cluster."""
PERIOD = 5.0
"""Seconds between samples."""
PATIENCE = 90.0
"""Seconds that clients may take to end a window, and a cluster to become whole."""


class Soak:
    """One run.

    Args:
        cluster: a cluster that runs.
        folder: where samples and histories go.
        run: collects what is found.
        roles: what clients do; everything if empty.
        calm: without faults.
    """

    def __init__(self, cluster: NetnsCluster, folder: Path, run: Run, *, roles: str, calm: bool) -> None:
        self._cluster = cluster
        self._roles = roles
        self._calm = calm
        self._folder = folder
        self._run = run
        self._began = time.monotonic()
        self._clients: dict[int, Child] = {}
        self._counted: dict[str, Any] = {}
        self._ended: dict[int, dict[str, Any]] = {}
        """The clients that have ended the window, each with what it says of itself."""
        self._change = trio.Event()
        self._faults_scope = trio.CancelScope()
        self._stopping = self._crashed = False
        self._judging = trio.CapacityLimiter(1)

    async def run(self, seconds: float, window: float) -> None:
        """Run for `seconds`; all connections are closed and everything is checked after each `window` of seconds."""
        chance = random.Random(self._run.seed)
        nodes = ",".join(map(str, self._cluster.nodes))
        async with AsyncExitStack() as stack, trio.open_nursery() as watchers:
            for nodeid, node in self._cluster.nodes.items():
                command = [sys.executable, "-m", "soak.client", str(nodeid), nodes, str(self._run.seed), self._roles]
                self._clients[nodeid] = await stack.enter_async_context(running(node, *command))
            for nodeid, client in self._clients.items():
                await client.line()  # it is ready
                watchers.start_soon(self._read, nodeid)
            watchers.start_soon(self._sample_now_and_then)
            watchers.start_soon(self._watch_signals)
            async with trio.open_nursery() as judges:
                number = 0
                while not self._stopping and time.monotonic() - self._began < seconds:
                    number += 1
                    folder = self._folder / f"window {number}"
                    await self._window(number, folder, window, chance)
                    judges.start_soon(self._judge, number, folder)
            watchers.cancel_scope.cancel()

    async def _window(self, number: int, folder: Path, seconds: float, chance: random.Random) -> None:
        prepare(folder, SETTINGS)
        self._ended.clear()
        for nodeid in self._clients:
            await self._tell(nodeid, f"begin {number} {folder}/{nodeid}.jsonl")
        faults = Faults(self._cluster, chance)
        with trio.move_on_after(seconds) as self._faults_scope:
            if self._calm:
                await trio.sleep_forever()
            await faults.run()
        with trio.fail_after(PATIENCE):
            await faults.mend()
            rings = {nodeid: await _rings(node) for nodeid, node in self._cluster.nodes.items()}
            for nodeid in self._clients:
                await self._tell(nodeid, "end")
            while not self._crashed and len(self._ended) < len(self._clients):
                await self._change.wait()
        if self._crashed:
            return
        faults.history.save(folder / "faults.jsonl")
        self._run.faults += faults.count
        sample = self._sample()
        # Trio keeps threads for its next calls: these are no leak.
        usages = [
            attrs.evolve(found, **{name: self._ended[found.node][name] for name in ("threads", "python", "other")})
            if found.kind == "client"
            else attrs.evolve(found, rings=rings[found.node])
            for found in sample.usages
        ]
        rest = attrs.evolve(sample, usages=usages)
        self._run.rests.append(rest)
        self._write("between.jsonl", rest)
        print(f"soak: {self._time() / 60:.1f} min: window {number}, {faults.count} faults", flush=True)

    async def _tell(self, nodeid: int, line: str) -> None:
        with suppress(trio.BrokenResourceError):  # its reader notices that the client has ended
            await self._clients[nodeid].send_line(line)

    def _find(self, finding: str) -> None:
        self._run.findings.append(finding)
        print(f"soak: {finding.strip().splitlines()[0][:300]}", flush=True)

    def _stop(self) -> None:
        """End with the window that is open."""
        self._stopping = True
        self._faults_scope.cancel()
        self._wake()

    def _wake(self) -> None:
        self._change.set()
        self._change = trio.Event()

    def _time(self) -> float:
        return time.monotonic() - self._began

    # -- watching ------------------------------------------------------------------------------------------------------

    async def _read(self, nodeid: int) -> None:
        """Read what a client prints."""
        while True:  # noqa: ASYNC913 - reading a line is a checkpoint
            try:
                report: dict[str, Any] = json.loads(await self._clients[nodeid].line())
            except EOFError:
                self._find(f"the client of node {nodeid} has ended by itself; what it printed is above")
                self._crashed = True
                self._stop()
                return
            if report["kind"] == "crashed":
                self._find(f"the client of node {nodeid}: {report['traceback']}")
                self._crashed = True
                self._stop()
                return
            for name, value in report["counters"].items():
                self._counted[name] = self._counted[name] + value if name in self._counted else value
            if report["kind"] == "ended":
                self._ended[nodeid] = report
                self._wake()

    async def _sample_now_and_then(self) -> None:
        while True:
            await trio.sleep(PERIOD)
            self._sample()

    def _sample(self) -> Sample:
        sample = Sample(self._time(), list(self._usages()), **self._counted)
        self._counted = {}
        self._run.samples.append(sample)
        self._write("samples.jsonl", sample)
        return sample

    def _write(self, name: str, sample: Sample) -> None:
        with (self._folder / name).open("a", encoding="ascii") as file:
            file.write(json.dumps(attrs.asdict(sample)) + "\n")

    def _usages(self) -> Iterator[Usage]:
        for nodeid, node in self._cluster.nodes.items():
            shared_memory = Path(f"/proc/{node.namespace_pid}/root/dev/shm")
            for kind, pid in (("client", self._clients[nodeid].pid), ("daemon", node.pid)):
                found = None if pid is None else usage(kind, nodeid, pid, shared_memory)
                if found is not None:
                    yield found

    async def _watch_signals(self) -> None:
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for _ in signals:
                if self._stopping:
                    raise KeyboardInterrupt
                print("soak: ends with this window; a second signal ends it at once", flush=True)
                self._stop()

    async def _judge(self, number: int, folder: Path) -> None:
        """Check a window's histories; they are kept if there is a violation."""
        command = [sys.executable, "-m", "soak.judge", str(folder)]
        async with self._judging:
            result = await trio.run_process(command, capture_stdout=True, check=False)
        if result.returncode:
            self._find(f"window {number}: the check failed with status {result.returncode}; see {folder}")
            return
        judgement = json.loads(result.stdout)
        self._run.entries += judgement["entries"]
        for violation in judgement["violations"]:
            self._find(f"window {number}, see {folder}: {violation}")
        if not judgement["violations"]:
            shutil.rmtree(folder)


async def _rings(node: Node) -> int:
    """How many rings the node's daemon has entered."""
    async with triocoro.open_cmap(map=triocoro.CmapMap.STATS, endpoint=node.endpoint) as statistics:
        return cast("int", await statistics.get("stats.srp.operational_entered"))


async def _soak(folder: Path, run: Run, options: argparse.Namespace) -> None:
    async with NetnsCluster(**SETTINGS) as cluster:
        soak = Soak(cluster, folder, run, roles=options.roles, calm=options.calm)
        await soak.run(60 * options.minutes, options.window)


def main() -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("-m", "--minutes", type=float, default=10, help="how long (%(default)s)")
    parser.add_argument("--window", type=float, default=20, metavar="SECONDS", help="until each check (%(default)s)")
    parser.add_argument("--seed", type=int, help="chooses the faults and the traffic (random)")
    parser.add_argument(
        "--roles", default="", metavar="NAMES", help="what clients do, with commas between (everything)"
    )
    parser.add_argument("--calm", action="store_true", help="without faults")
    parser.add_argument("--patched", action="store_true", help="Corosync has the patches for facts 106 and 113")
    parser.add_argument("--folder", type=Path, help="where the report goes (build/soak/ and the time)")
    options = parser.parse_args()
    if missing := missing_requirements():
        print("soak: real clusters cannot run here:", *missing, sep="\n  ", file=sys.stderr)
        return 1
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    folder: Path = options.folder or Path("build/soak") / time.strftime("%Y%m%d-%H%M%S")
    folder = folder.absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    conditions = f"{describe_daemon()}, Python {sys.version.split()[0]}, Trio {trio.__version__}, {SETTINGS}."
    run = Run(seed, conditions, patched=options.patched)
    print(f"soak: --seed={seed}, for {options.minutes:g} minutes; see {folder}", flush=True)
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[1])  # clients start in another folder
    os.environ["PYTHONMALLOC"] = "malloc"  # they count what is in use; see memory.py
    status = 0
    try:
        trio.run(_soak, folder, run, options)
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    except Exception:  # noqa: BLE001 - it is a finding, and the report has it
        run.findings.append(traceback.format_exc())
    (folder / "report.md").write_text(as_markdown(run), encoding="utf-8")
    drawn = plot(run, folder / "soak.svg")
    print(f"\n{as_markdown(run)}\nsoak: report.md{' and soak.svg' if drawn else ''} in {folder}")
    return status or (1 if verdict(run) else 0)


if __name__ == "__main__":
    sys.exit(main())
