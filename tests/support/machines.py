"""A machine to replicate: a map, whose commands are in JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Literal

Verb = Literal["get", "put", "cas", "delete", "fail"]


def command(verb: Verb, *arguments: object) -> bytes:
    """A command to the map."""
    return json.dumps([verb, *arguments]).encode()


class Map:
    """A map of texts to values.

    Args:
        padding: as many bytes come with its snapshot.
    """

    def __init__(self, padding: int = 0) -> None:
        self.values: dict[str, Any] = {}
        self.applied: list[bytes] = []
        """Since the latest restore."""
        self.count = 0
        """How many were applied, also before the snapshots that it has taken: one that comes twice shows here."""
        self.restores = 0
        self._padding = padding

    def apply(self, command: bytes) -> bytes:
        self.applied.append(command)
        self.count += 1
        verb, *arguments = json.loads(command)
        return json.dumps(getattr(self, f"_{verb}")(*arguments)).encode()

    def snapshot(self) -> Iterable[bytes]:
        values = json.dumps([self.count, self.values]).encode()

        def chunks() -> Iterable[bytes]:
            yield values
            yield b""
            for _ in range(self._padding // 10_000):
                yield b" " * 10_000

        return chunks()

    def restore(self, chunks: Iterable[bytes]) -> None:
        self.count, self.values = json.loads(b"".join(chunks))
        self.applied.clear()
        self.restores += 1

    def _get(self, key: str) -> Any:
        return self.values.get(key)

    def _put(self, key: str, value: Any) -> None:
        self.values[key] = value

    def _cas(self, key: str, old: Any, new: Any) -> bool:
        same = bool(self.values.get(key) == old)
        if same:
            self.values[key] = new
        return same

    def _delete(self, key: str) -> bool:
        return self.values.pop(key, None) is not None

    def _fail(self, text: str) -> None:
        self.values["failed"] = self.values.get("failed", 0) + 1
        raise KeyError(text)
