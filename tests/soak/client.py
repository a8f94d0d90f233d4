"""A client process: `python -m soak.client NODE NODES SEED ROLES`, in the namespaces of its node.

It reads lines. `begin NUMBER FILE` begins a window, whose history goes to that file; `end` ends it. It prints lines of
JSON: one when it is ready, a report every few seconds, and one after each window, when all connections are closed.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import attrs
import trio
from support.traces import busy_threads

from soak import memory
from soak.roles import ROLES, Counters, Life, again
from triocoro import Message, MessageLost
from triocoro._corosync import SYSTEM
from triocoro.testing import Call, Delivery, Entry, History, RecordingEndpoint
from triocoro.testing._history.log import Part, made

PERIOD = 2.0
"""Seconds between reports."""
_REST = 5.0
"""Seconds that closing in the background may take."""
_SHORT = 64
"""The length in bytes from which on the history has digests in place of payloads."""
_BATCH = 500


class Recorder:
    """Writes the entries of a window to a file as they come, so that the process does not grow by its history."""

    def __init__(self, file: TextIOWrapper, node: int, number: int) -> None:
        self._file = file
        self._node = node
        self._number = number
        self._entries: list[Entry] = []

    def endpoint(self, role: str) -> RecordingEndpoint:
        """An endpoint of the daemon in our namespaces that records."""
        client = f"{role} {self._node} {self._number}"
        return RecordingEndpoint(SYSTEM, add=self._add, clock=time.monotonic, client=client, node=self._node)

    def _add(self, part: Part) -> None:
        self._entries += map(_with_short_payloads, made(part))
        if len(self._entries) >= _BATCH:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting."""
        self._file.write(History(self._entries).to_json_lines())
        self._entries.clear()


def _with_short_payloads(entry: Entry) -> Entry:
    """The same entry, with digests of payloads that are long."""
    if isinstance(entry, Delivery) and isinstance(entry.event, (Message, MessageLost)):
        return attrs.evolve(entry, event=attrs.evolve(entry.event, payload=_short(entry.event.payload)))
    if isinstance(entry, Call) and "payloads" in entry.arguments:
        payloads = tuple(_short(payload) for payload in entry.arguments["payloads"])
        return attrs.evolve(entry, arguments={**entry.arguments, "payloads": payloads})
    if isinstance(entry, Call) and "payload" in entry.arguments:
        return attrs.evolve(entry, arguments={**entry.arguments, "payload": _short(entry.arguments["payload"])})
    return entry


def _short(payload: bytes) -> bytes:
    if len(payload) <= _SHORT:
        return payload
    return payload[:_SHORT].rstrip(b".") + hashlib.blake2b(payload, digest_size=12).hexdigest().encode()


class Client:
    """Carries out what the lines say."""

    def __init__(self, node: int, nodes: tuple[int, ...], seed: str, roles: Sequence[str]) -> None:
        self._roles = [role for role in ROLES if not roles or role.__name__ in roles]
        self._node = node
        self._nodes = nodes
        self._chance = random.Random(f"{seed} {node}")
        self._counters = Counters()

    async def run(self) -> None:
        """Run until the input ends."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._report_now_and_then)
            write("ready")
            while line := await _line():
                _, number, path = line.split(maxsplit=2)
                await self._window(int(number), Path(path))
                await _rest()
                python = memory.of_objects()
                self._report("ended", threads=len(busy_threads()), python=python, other=memory.in_use() - python)
            nursery.cancel_scope.cancel()

    async def _window(self, number: int, path: Path) -> None:
        with path.open("w", encoding="ascii") as file:
            recorder = Recorder(file, self._node, number)
            life = Life(self._node, self._nodes, self._chance, self._counters, recorder.endpoint)
            async with trio.open_nursery() as nursery:
                for role in self._roles:
                    nursery.start_soon(again, life, role)
                await _line()
                nursery.cancel_scope.cancel()
            recorder.flush()

    async def _report_now_and_then(self) -> None:
        while True:
            await trio.sleep(PERIOD)
            self._report("report")

    def _report(self, kind: str, **fields: int) -> None:
        write(kind, **fields, counters=attrs.asdict(self._counters))
        self._counters.clear()


async def _rest() -> None:
    """Wait for what is being closed in the background."""
    with trio.move_on_after(_REST):  # noqa: ASYNC912 - nothing may be under way
        while len(busy_threads()) > 1:  # noqa: ASYNC110 - no event reports the end of a thread
            await trio.sleep(0.05)
    memory.clear()


def write(kind: str, **fields: Any) -> None:
    """Print a line."""
    print(json.dumps({"kind": kind, **fields}), flush=True)


async def _line() -> str:
    line: str = await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)
    return line.strip()


def main(arguments: Sequence[str]) -> None:
    """Run, and report how it went wrong."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
    node, nodes, seed, roles = arguments
    client = Client(int(node), tuple(map(int, nodes.split(","))), seed, roles.split(",") if roles else ())
    try:
        trio.run(client.run)
    except BaseException:  # noqa: BLE001, ASYNC103 - the parent reports it
        write("crashed", traceback=traceback.format_exc())
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
