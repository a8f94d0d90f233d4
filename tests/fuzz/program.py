"""Programs of the fuzzer: lists of steps, generated from a seed, that can be saved as JSON."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import attrs

from triocoro import CmapType

GROUPS = ("g", "h")
LETTERS = "ab"
"""A client process is named after its node and a letter: 1a, 1b, 2a, ..."""
KEYS = ("fuzz.a", "fuzz.b")
APIS = ("sdk", "sdk", "sdk", "ONE", "ALL", "BLOCKING", "ONE_NONBLOCKING")
"""How a client joins a group: with `open_group`, or with a handle of `lowlevel` and this type of dispatch."""
SERVICES = ("quorum", "votequorum", "cmap")
"""The services that a client can track."""
VALUES = (0, 7, 7, 255, -7, 2**40, 1.5, "text", "")
"""The values of keys. There are few, so that a key is often set to the value that it has already."""
TYPES = tuple(CmapType.__members__)
"""The types of keys. Most steps name none."""
SIZES = (1, 1, 1, 10, 100, 2_000, 60_000)
"""The sizes of most payloads, in bytes."""
LARGE = 1_200_000
"""A size above the atomic one: the library sends such a message in fragments."""

Step: TypeAlias = Mapping[str, Any]
"""A verb (`do`) and its arguments."""


@attrs.frozen
class Program:
    """The steps to run on a cluster with this many nodes."""

    seed: int
    nodes: int
    steps: tuple[Step, ...]

    def without(self, start: int, stop: int) -> Program:
        """Return the program without the steps from `start` to before `stop`."""
        return attrs.evolve(self, steps=(*self.steps[:start], *self.steps[stop:]))

    def to_json(self) -> str:
        """Return the program as JSON, with a line for each step."""
        steps = ",\n".join(json.dumps(step) for step in self.steps)
        return f'{{"seed": {self.seed}, "nodes": {self.nodes}, "steps": [\n{steps}\n]}}\n'

    @classmethod
    def from_json(cls, text: str) -> Program:
        """Return the program that `to_json` turned into text."""
        fields = json.loads(text)
        return cls(fields["seed"], fields["nodes"], tuple(fields["steps"]))


def generate(seed: int, *, nodes: int, length: int, choices: random.Random | None = None) -> Program:
    """Generate a program, the same one for the same arguments. Steps that do not apply when they are run do nothing."""
    generator = _Generator(choices or random.Random(f"{seed} {nodes} {length}"), nodes)
    return Program(seed, nodes, tuple(generator.step() for _ in range(length)))


class _Generator:
    """Generates steps. It tracks what the earlier ones leave behind, so that most steps apply."""

    def __init__(self, choices: random.Random, nodes: int) -> None:
        self._random = choices
        self._nodes = range(1, nodes + 1)
        self._clients = [f"{node}{letter}" for node in self._nodes for letter in LETTERS]
        self._down: set[int] = set()
        self._frozen: set[int] = set()
        self._members: set[tuple[str, str]] = set()
        self._trackers: set[tuple[str, str]] = set()
        self._keys: set[tuple[int, str]] = set()
        self._cut = False
        self._numbers = 0

    def step(self) -> Step:
        return self._choose(
            {
                self._join: 9,
                self._send: 6,
                self._burst: 4,
                self._storm: 4,
                self._leave: 2,
                self._drop: 1,
                self._die: 1,
                self._track: 3,
                self._untrack: 1,
                self._mistake: 1,
                self._set_votes: 1,
                self._set_expected: 1,
                self._set_key: 3,
                self._count_key: 1,
                self._delete_key: 1,
                self._fault: 10,
            }
        )

    def _choose(self, weights: Mapping[Callable[[], Step | None], int]) -> Step:
        makers = [make for make, weight in weights.items() for _ in range(weight)]
        while True:
            make = self._random.choice(makers)
            step = make()
            if step is not None:
                return step
            makers = [other for other in makers if other != make]

    def _fault(self) -> Step:
        return self._choose(
            {
                self._partition: 4,
                self._isolate: 2,
                self._heal: 6 if self._cut else 0,
                self._stop: 1,
                self._kill: 2,
                self._start: 8 if self._down else 0,
                self._restart: 1,
                self._freeze: 2,
                self._thaw: 8 if self._frozen else 0,
            }
        )

    def _up(self) -> list[int]:
        return [node for node in self._nodes if node not in self._down | self._frozen]

    def _usable_clients(self) -> list[str]:
        return [client for client in self._clients if node_of(client) in self._up()]

    def _any_member(self) -> tuple[str, str] | None:
        usable = self._usable_clients()
        alive = sorted(member for member in self._members if member[0] in usable)
        return self._random.choice(alive) if alive else None

    def _payloads(self, count: int) -> list[list[int]]:
        first, self._numbers = self._numbers, self._numbers + count
        return [[first + index, self._random.choice(SIZES)] for index in range(count)]

    def _join(self) -> Step | None:
        free = [(c, g) for c in self._usable_clients() for g in GROUPS if (c, g) not in self._members]
        if not free:
            return None
        client, group = self._random.choice(free)
        self._members.add((client, group))
        return {"do": "join", "client": client, "group": group, "api": self._random.choice(APIS)}

    def _send(self) -> Step | None:
        return self._send_many(1)

    def _burst(self) -> Step | None:
        return self._send_many(self._random.randint(2, 30))

    def _send_many(self, count: int) -> Step | None:
        member = self._any_member()
        if member is None:
            return None
        payloads = self._payloads(count)
        if count == 1 and self._random.random() < 0.05:
            payloads[0][1] = LARGE
        return {"do": "send", "client": member[0], "group": member[1], "payloads": payloads}

    def _storm(self) -> Step | None:
        """Several members send at the same time, and a fault may happen meanwhile."""
        usable = self._usable_clients()
        alive = sorted(member for member in self._members if member[0] in usable)
        if len(alive) < 2:
            return None
        chosen = self._random.sample(alive, self._random.randint(2, len(alive)))
        sends = [{"client": c, "group": g, "payloads": self._payloads(self._random.randint(1, 10))} for c, g in chosen]
        during = self._choose({self._fault: 3, self._die: 1}) if self._random.random() < 0.5 else None
        return {"do": "storm", "sends": sends, "during": during}

    def _leave(self) -> Step | None:
        member = self._any_member()
        if member is None:
            return None
        self._members.discard(member)
        return {"do": "leave", "client": member[0], "group": member[1]}

    def _drop(self) -> Step | None:
        """Close the connection without leaving first."""
        step = self._leave()
        return None if step is None else {**step, "do": "drop"}

    def _die(self) -> Step | None:
        """Kill a client process."""
        alive = sorted({client for client, _ in self._members | self._trackers})
        if not alive:
            return None
        dead = self._random.choice(alive)
        self._members = {member for member in self._members if member[0] != dead}
        self._trackers = {tracker for tracker in self._trackers if tracker[0] != dead}
        return {"do": "die", "client": dead}

    def _track(self) -> Step | None:
        free = [(c, s) for c in self._usable_clients() for s in SERVICES if (c, s) not in self._trackers]
        if not free:
            return None
        client, service = self._random.choice(free)
        self._trackers.add((client, service))
        return {"do": "track", "client": client, "service": service}

    def _untrack(self) -> Step | None:
        usable = self._usable_clients()
        alive = sorted(tracker for tracker in self._trackers if tracker[0] in usable)
        if not alive:
            return None
        client, service = self._random.choice(alive)
        self._trackers.discard((client, service))
        return {"do": "untrack", "client": client, "service": service}

    def _mistake(self) -> Step | None:
        usable = self._usable_clients()
        return {"do": "mistake", "client": self._random.choice(usable)} if usable else None

    def _partition(self) -> Step:
        number = self._random.choice([2, 2, 3])
        sides: list[list[int]] = [[] for _ in range(number)]
        for node in self._nodes:
            self._random.choice(sides).append(node)
        self._cut = True
        return {"do": "partition", "sides": sides}

    def _isolate(self) -> Step:
        self._cut = True
        return {"do": "isolate", "node": self._random.choice(self._nodes)}

    def _heal(self) -> Step:
        self._cut = False
        return {"do": "heal"}

    def _victim(self) -> int | None:
        up = self._up()
        return self._random.choice(up) if len(up) > 1 else None

    def _forget(self, node: int) -> None:
        self._members = {member for member in self._members if node_of(member[0]) != node}
        self._trackers = {tracker for tracker in self._trackers if node_of(tracker[0]) != node}
        self._keys = {key for key in self._keys if key[0] != node}

    def _stop(self) -> Step | None:
        return self._take_down("stop")

    def _kill(self) -> Step | None:
        return self._take_down("kill")

    def _take_down(self, verb: str) -> Step | None:
        node = self._victim()
        if node is None:
            return None
        self._down.add(node)
        self._forget(node)
        return {"do": verb, "node": node}

    def _start(self) -> Step:
        node = self._random.choice(sorted(self._down))
        self._down.discard(node)
        return {"do": "start", "node": node}

    def _restart(self) -> Step | None:
        node = self._victim()
        if node is None:
            return None
        self._forget(node)
        return {"do": "restart", "node": node}

    def _freeze(self) -> Step | None:
        node = self._victim()
        if node is None:
            return None
        self._frozen.add(node)
        return {"do": "freeze", "node": node}

    def _thaw(self) -> Step:
        node = self._random.choice(sorted(self._frozen))
        self._frozen.discard(node)
        return {"do": "thaw", "node": node}

    def _any_up(self) -> int:
        return self._random.choice(self._up())

    def _set_votes(self) -> Step:
        target = self._random.choice([*self._nodes, 99])
        return {"do": "set_votes", "node": self._any_up(), "target": target, "votes": self._random.randint(0, 3)}

    def _set_expected(self) -> Step:
        return {"do": "set_expected", "node": self._any_up(), "votes": self._random.randint(0, 6)}

    def _set_key(self) -> Step:
        # Mostly on a node where a client tracks keys.
        told = sorted({node_of(client) for client, service in self._trackers if service == "cmap"} & set(self._up()))
        node = self._random.choice(told) if told and self._random.random() < 0.7 else self._any_up()
        key = self._random.choice(KEYS)
        self._keys.add((node, key))
        step = {"do": "set_key", "node": node, "key": key, "value": self._random.choice(VALUES)}
        return {**step, "type": self._random.choice(TYPES)} if self._random.random() < 0.3 else step

    def _count_key(self) -> Step | None:
        return self._with_key({"do": "count_key", "up": self._random.random() < 0.5})

    def _delete_key(self) -> Step | None:
        step = self._with_key({"do": "delete_key"})
        if step is not None:
            self._keys.discard((step["node"], step["key"]))
        return step

    def _with_key(self, step: Step) -> Step | None:
        """Complete a step with a key, mostly one that exists."""
        up = self._up()
        there = sorted(key for key in self._keys if key[0] in up)
        if self._random.random() < 0.2:
            there = [(self._random.choice(up), self._random.choice(KEYS))]
        if not there:
            return None
        node, key = self._random.choice(there)
        return {**step, "node": node, "key": key}


def node_of(client: str) -> int:
    """Return the node of a client."""
    return int(client[:-1])
