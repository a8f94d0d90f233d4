"""The supervisor's requests, without namespaces: a socket pair and a file stand in for the process."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest

from triocoro.testing._netns.supervisor import PACKET, ManagedNode, Supervisor

Ask: TypeAlias = Callable[..., dict[str, Any]]


@pytest.fixture
def ask() -> Iterator[Ask]:
    """A function that sends a request to a supervisor with one node, whose daemon ended with status 0."""
    requests = os.memfd_create("requests")
    supervisor = Supervisor(requests)
    node = supervisor.nodes["1"] = ManagedNode(log=-1, ports=[])
    node.status = 0
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def ask(**request: object) -> dict[str, Any]:
        text = json.dumps(request).encode()
        os.pwrite(requests, text, 0)
        ours.send(str(len(text)).encode())
        assert supervisor.answer(theirs)
        reply: dict[str, Any] = json.loads(ours.recv(PACKET))
        return reply

    with ours, theirs:
        yield ask
    os.close(requests)


def test_status(ask: Ask) -> None:
    assert ask(op="status", node="1") == {"status": 0}


@pytest.mark.parametrize("op", ["statsu", "", "reap", "answer", "nodes", None])
def test_an_unknown_request_is_an_error(ask: Ask, op: str | None) -> None:
    assert ask(op=op, node="1") == {"error": f"there is no request {op!r}"}
    assert ask(op="status", node="1") == {"status": 0}, "it serves the requests that follow"
