"""Runs the workloads: the subjects take turns, on one cluster for each number of nodes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack

import attrs
import trio
from support.external_programs import Child, running

from triocoro.testing import NetnsCluster

from .subjects import Subject, subjects_of
from .workloads import KILLED, Result, Row, Workload, one_line, rows

DEADLINE = 60.0
"""Seconds that one run may take."""


class FailedRunError(Exception):
    """A run did not come to its result."""


@attrs.define
class Measurements:
    """All that was measured."""

    rounds: dict[str, list[dict[str, Result]]]
    """For each workload, for each round, the result of each subject."""
    rows: list[Row]
    """The rows of the table."""
    failures: list[str]
    """What could not be measured, and why."""


async def measure(
    workloads: Sequence[Workload], available: Mapping[str, Subject], base: Subject | None, rounds: int
) -> Measurements:
    """Run each workload for some rounds, and print its rows."""
    measurements = Measurements(rounds={}, rows=[], failures=[])
    for nodes in dict.fromkeys(workload.nodes for workload in workloads):
        async with NetnsCluster(nodes=nodes) as cluster:
            for workload in workloads:
                subjects = subjects_of(workload, available, base)
                if workload.nodes == nodes and subjects:
                    await _measure_one(cluster, workload, subjects, rounds, measurements)
    return measurements


async def _measure_one(
    cluster: NetnsCluster, workload: Workload, subjects: list[Subject], rounds: int, measurements: Measurements
) -> None:
    results: list[dict[str, Result]] = []
    failed: set[str] = set()
    for number in range(rounds):
        done: dict[str, Result] = {}
        # They take turns to begin: a run may leave the daemon in a state that helps or slows down the next one.
        for subject in subjects if number % 2 == 0 else subjects[::-1]:
            if subject.name not in failed:
                try:
                    done[subject.name] = await run(cluster, subject, workload, f"bench {number} {subject.name}")
                except FailedRunError as error:
                    failed.add(subject.name)
                    measurements.failures.append(f"{workload.name}, {subject.name}: {error}")
                    print(f"FAILED: {measurements.failures[-1]}", flush=True)
        results.append({subject.name: done[subject.name] for subject in subjects if subject.name in done})
    measurements.rounds[workload.name] = results
    found = rows(workload.name, results)
    measurements.rows += found
    for row in found:
        print(one_line(row), flush=True)


async def run(cluster: NetnsCluster, subject: Subject, workload: Workload, group: str) -> Result:
    """Run a workload once. The result is that of the member on node 1, with the losses of all members."""
    # A name that no run before had: members of that one may still be about to leave.
    command = subject.command(workload, f"{group} {workload.work} {workload.size}".replace(" ", "-"))
    with trio.move_on_after(DEADLINE):
        async with AsyncExitStack() as stack:
            members = [
                await stack.enter_async_context(running(cluster[nodeid], *command))
                for nodeid in range(1, subject.processes(workload) + 1)
            ]
            try:
                for member in members:
                    await member.line()
                for member in members:
                    await member.send_line("start")
                if workload.is_failover:
                    return await _fail_over(cluster, workload, command, members, stack)
                results: list[Result] = [json.loads(await member.line()) for member in members]
            except (EOFError, trio.BrokenResourceError) as error:
                raise FailedRunError("the program ended early; what it printed is above") from error
            for member in members:
                await member.end()
            if "lost" in results[0]:
                results[0]["lost"] = sum(result["lost"] for result in results)
            return results[0]
    raise FailedRunError(f"no result within {DEADLINE:g} seconds")


async def _fail_over(
    cluster: NetnsCluster, workload: Workload, command: list[str], members: list[Child], stack: AsyncExitStack
) -> Result:
    """Kill the leader, the second member, again and again, or its daemon; the first one follows, and has the result."""
    successor, leader = members[:2]
    for _ in range(workload.count):
        await leader.line()
        if workload.work == KILLED:
            leader.kill()
        else:
            await cluster[2].kill()
        await successor.line()
        if workload.work == KILLED:
            leader = await stack.enter_async_context(running(cluster[2], *command))
            await leader.line()
            await leader.send_line("start")
        else:
            await cluster[2].start()
    result: Result = json.loads(await successor.line())
    return result
