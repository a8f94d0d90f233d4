"""What a run of the fuzzer does: a list of steps, made from a seed, which can be kept as JSON."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import attrs

GROUPS = ("g", "h")
KEYS = ("fuzz.a", "fuzz.b")

Step: TypeAlias = dict[str, Any]
"""A verb (`do`) and its arguments."""


@attrs.frozen
class Program:
    """The steps for a cluster of so many nodes."""

    seed: int
    nodes: int
    steps: tuple[Step, ...]

    def without(self, start: int, stop: int) -> Program:
        """The program without some of its steps."""
        return attrs.evolve(self, steps=(*self.steps[:start], *self.steps[stop:]))

    def to_json(self) -> str:
        """One line."""
        return json.dumps(attrs.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Program:
        fields = json.loads(text)
        return cls(fields["seed"], fields["nodes"], tuple(fields["steps"]))


def generate(seed: int, *, nodes: int, length: int) -> Program:
    """A program; the same one for the same arguments. Steps that make no sense where they come do nothing."""
    generator = _Generator(random.Random(seed), nodes)
    return Program(seed, nodes, tuple(generator.step() for _ in range(length)))


class _Generator:
    """Makes steps, with an eye on what the ones before have left."""

    def __init__(self, choices: random.Random, nodes: int) -> None:
        self._random = choices
        self._nodes = range(1, nodes + 1)
        self._down: set[int] = set()
        self._frozen: set[int] = set()
        self._joined: set[tuple[int, str]] = set()
        self._cut = False
        self._numbers = 0

    def step(self) -> Step:
        weights: dict[Callable[[], Step | None], int] = {
            self._join: 6,
            self._send: 8,
            self._burst: 5,
            self._storm: 2,
            self._leave: 2,
            self._drop: 1,
            self._partition: 2,
            self._isolate: 1,
            self._heal: 3 if self._cut else 0,
            self._stop: 1,
            self._kill: 1,
            self._start: 4 if self._down else 0,
            self._restart: 1,
            self._freeze: 1,
            self._thaw: 4 if self._frozen else 0,
            self._set_votes: 1,
            self._set_expected: 1,
            self._set_key: 1,
            self._delete_key: 1,
        }
        while True:
            (make,) = self._random.choices(list(weights), list(weights.values()))
            step = make()
            if step is not None:
                return step

    def _up(self) -> list[int]:
        return [nodeid for nodeid in self._nodes if nodeid not in self._down | self._frozen]

    def _client(self) -> tuple[int, str] | None:
        alive = sorted(client for client in self._joined if client[0] in self._up())
        return self._random.choice(alive) if alive else None

    def _payloads(self, count: int) -> list[str]:
        sizes = [self._random.choice((1, 1, 10, 100, 2_000, 60_000)) for _ in range(count)]
        first, self._numbers = self._numbers, self._numbers + count
        return [f"{first + index}:{'x' * size}" for index, size in enumerate(sizes)]

    def _join(self) -> Step | None:
        free = [(n, g) for n in self._up() for g in GROUPS if (n, g) not in self._joined]
        if not free:
            return None
        node, group = self._random.choice(free)
        self._joined.add((node, group))
        return {"do": "join", "node": node, "group": group, "raw": self._random.random() < 0.3}

    def _send(self) -> Step | None:
        client = self._client()
        if client is None:
            return None
        return {"do": "send", "node": client[0], "group": client[1], "payloads": self._payloads(1)}

    def _burst(self) -> Step | None:
        client = self._client()
        if client is None:
            return None
        payloads = self._payloads(self._random.randint(2, 30))
        return {"do": "send", "node": client[0], "group": client[1], "payloads": payloads}

    def _storm(self) -> Step | None:
        """Several send at once."""
        alive = sorted(client for client in self._joined if client[0] in self._up())
        if len(alive) < 2:
            return None
        chosen = self._random.sample(alive, self._random.randint(2, len(alive)))
        sends = [{"node": n, "group": g, "payloads": self._payloads(self._random.randint(1, 10))} for n, g in chosen]
        return {"do": "storm", "sends": sends}

    def _leave(self) -> Step | None:
        client = self._client()
        if client is None:
            return None
        self._joined.discard(client)
        return {"do": "leave", "node": client[0], "group": client[1]}

    def _drop(self) -> Step | None:
        """As a client that dies does."""
        step = self._leave()
        return None if step is None else {**step, "do": "drop"}

    def _partition(self) -> Step:
        sides = [self._random.randrange(2) for _ in self._nodes]
        self._cut = True
        return {
            "do": "partition",
            "sides": [[n for n, side in zip(self._nodes, sides, strict=True) if side == which] for which in range(2)],
        }

    def _isolate(self) -> Step:
        self._cut = True
        return {"do": "isolate", "node": self._random.choice(self._nodes)}

    def _heal(self) -> Step:
        self._cut = False
        return {"do": "heal"}

    def _victim(self) -> int | None:
        up = self._up()
        return self._random.choice(up) if len(up) > 1 else None

    def _gone(self, node: int) -> None:
        self._joined = {client for client in self._joined if client[0] != node}

    def _stop(self) -> Step | None:
        return self._end("stop")

    def _kill(self) -> Step | None:
        return self._end("kill")

    def _end(self, verb: str) -> Step | None:
        node = self._victim()
        if node is None:
            return None
        self._down.add(node)
        self._gone(node)
        return {"do": verb, "node": node}

    def _start(self) -> Step:
        node = self._random.choice(sorted(self._down))
        self._down.discard(node)
        return {"do": "start", "node": node}

    def _restart(self) -> Step | None:
        node = self._victim()
        if node is None:
            return None
        self._gone(node)
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

    def _set_votes(self) -> Step | None:
        up = self._up()
        if not up:
            return None
        target = self._random.choice([*self._nodes, 99])
        return {"do": "set_votes", "node": self._random.choice(up), "of": target, "votes": self._random.randint(0, 3)}

    def _set_expected(self) -> Step | None:
        up = self._up()
        if not up:
            return None
        return {"do": "set_expected", "node": self._random.choice(up), "votes": self._random.randint(0, 6)}

    def _set_key(self) -> Step | None:
        up = self._up()
        if not up:
            return None
        value = self._random.choice([self._random.randint(0, 255), "text"])
        return {"do": "set_key", "node": self._random.choice(up), "key": self._random.choice(KEYS), "value": value}

    def _delete_key(self) -> Step | None:
        up = self._up()
        if not up:
            return None
        return {"do": "delete_key", "node": self._random.choice(up), "key": self._random.choice(KEYS)}


def halves(program: Program) -> Iterator[Program]:
    """Shorter programs, the shortest first: what to try when looking for a small one that fails."""
    size = len(program.steps) // 2
    while size:
        for start in range(0, len(program.steps), size):
            yield program.without(start, start + size)
        size //= 2
