"""A web page that shows a cluster live: quorum, votes, nodes, and process groups.

    pip install hypercorn
    python examples/cluster_page.py [HOST:PORT]

The page is at http://127.0.0.1:8642/ by default. A WebSocket tells it of each change; the nodes of a group, which
Corosync does not announce, are looked at every second. The server is an ASGI application of its own on Hypercorn.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast

import attrs
import trio
from hypercorn.config import Config
from hypercorn.trio import serve  # pyright: ignore[reportUnknownVariableType]
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, HTTPResponseStartEvent, Scope

import triocoro
from triocoro import Cfg, Cmap, Cpg, NodeState, NotExistError, Votequorum, VotequorumChange

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Cluster</title>
<style>
  body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 46rem; padding: 0 1rem; color: #1b1f24 }
  h1 { font-size: 1.3rem } h2 { font-size: 1rem; margin-top: 2rem } table { border-collapse: collapse; width: 100% }
  td, th { text-align: left; padding: .35rem .75rem .35rem 0; border-bottom: 1px solid #d8dee4 }
  .badge { padding: .15rem .6rem; border-radius: 1rem; color: #fff; background: #57606a }
  .good { background: #1a7f37 } .bad { background: #cf222e }
</style>
<h1>Cluster, as node <span id="node">?</span> sees it <span id="quorum" class="badge">connecting</span></h1>
<p id="votes"></p>
<h2>Nodes</h2>
<table><thead><tr><th>id<th>name<th>state<th>links</thead><tbody id="nodes"></tbody></table>
<h2>Process groups</h2>
<table><thead><tr><th>name<th>members (node:pid)</thead><tbody id="groups"></tbody></table>
<script>
  const at = (id) => document.getElementById(id);
  const badge = (text, kind) => { at("quorum").textContent = text; at("quorum").className = "badge " + kind };
  const rows = (id, all) => at(id).replaceChildren(...all.map((cells) => {
    const row = document.createElement("tr");
    for (const text of cells) row.insertCell().textContent = text;
    return row;
  }));
  function connect() {
    const socket = new WebSocket(`ws://${location.host}/changes`);
    socket.onmessage = (message) => {
      const state = JSON.parse(message.data);
      if (!state.node) return badge("no daemon", "bad");
      at("node").textContent = state.node;
      badge(state.quorate ? "quorate" : "not quorate", state.quorate ? "good" : "bad");
      at("votes").textContent = `${state.votes} of ${state.expected} votes; ${state.quorum} are needed`;
      rows("nodes", state.nodes);
      rows("groups", state.groups);
    };
    socket.onclose = () => { badge("no server", "bad"); setTimeout(connect, 500) };
  }
  connect();
</script>"""


@attrs.frozen
class Connections:
    """What a session consists of."""

    votequorum: Votequorum
    cfg: Cfg
    cmap: Cmap
    cpg: Cpg

    async def look(self) -> dict[str, Any]:
        """The state of the cluster, as JSON has it."""
        info = await self.votequorum.info()
        names = {
            await self.cmap.get(key.replace(".name", ".nodeid"), int): name
            for key, name in await self.cmap.items("nodelist.node.")
            if key.endswith(".name")
        }
        nodes: list[list[str]] = []
        for key, nodeid in await self.cmap.items("nodelist.node."):
            if key.endswith(".nodeid") and isinstance(nodeid, int):
                there = "member" if await self._is_member(nodeid) else "away"
                links = [link for link in (await self.cfg.node_status(nodeid)).links if link.connected]
                connected = ", ".join(f"link {link.number}" for link in links) or "no link"
                here = "this node" if nodeid == info.nodeid else connected
                nodes.append([str(nodeid), str(names.get(nodeid, "")), there, here])
        groups: dict[str, list[str]] = {}
        for member in await self.cpg.groups():
            groups.setdefault(member.group.decode(errors="replace"), []).append(str(member.address))
        return {
            "node": info.nodeid,
            "quorate": info.quorate,
            "votes": info.total_votes,
            "expected": info.expected_votes,
            "quorum": info.quorum,
            "nodes": nodes,
            "groups": [[name, " ".join(members)] for name, members in groups.items()],
        }

    async def _is_member(self, nodeid: int) -> bool:
        try:
            return (await self.votequorum.info(nodeid)).state is NodeState.MEMBER
        except NotExistError:  # it has never been up
            return False


@asynccontextmanager
async def open_all() -> AsyncGenerator[Connections, None]:
    """Connect to all services that the page is about."""
    async with (
        triocoro.open_votequorum() as votequorum,
        triocoro.open_cfg() as cfg,
        triocoro.open_cmap() as cmap,
        triocoro.open_cpg() as cpg,
    ):
        yield Connections(votequorum, cfg, cmap, cpg)


class ClusterPage:
    """The page, and what it shows: an ASGI application.

    Args:
        interval: the seconds after which it looks at the cluster again, if Corosync announces nothing.
    """

    def __init__(self, interval: float = 1) -> None:
        self._interval = interval
        self._state: dict[str, Any] = {}
        self._changed = trio.Event()

    async def watch(self) -> None:
        """Follow the cluster, until cancelled. Start it beside the server."""
        async for session in triocoro.sessions(open_all):
            async with session as connections, connections.votequorum.track() as changes:
                while True:
                    self._publish(await connections.look())
                    with trio.move_on_after(self._interval):
                        while not isinstance(await changes.receive(), VotequorumChange):
                            pass
            self._publish({})  # the daemon is gone

    def _publish(self, state: dict[str, Any]) -> None:
        if state != self._state:
            self._state = state
            self._changed.set()
            self._changed = trio.Event()

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Serve a request."""
        if scope["type"] == "http":
            found = scope["path"] == "/"
            headers = [(b"content-type", b"text/html; charset=utf-8")]
            status = 200 if found else 404
            start = HTTPResponseStartEvent(type="http.response.start", status=status, headers=headers, trailers=False)
            await send(start)
            await send({"type": "http.response.body", "body": PAGE.encode() * found, "more_body": False})
        elif scope["type"] == "websocket":
            await receive()  # websocket.connect
            await send({"type": "websocket.accept", "subprotocol": None, "headers": []})
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._tell, send)
                while (await receive())["type"] != "websocket.disconnect":
                    pass
                nursery.cancel_scope.cancel()
        else:  # lifespan
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})

    async def _tell(self, send: ASGISendCallable) -> None:
        while True:
            changed = self._changed
            await send({"type": "websocket.send", "bytes": None, "text": json.dumps(self._state)})
            await changed.wait()

    async def serve(self, address: str, *, task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow the cluster and serve the page, until cancelled. Starts with the addresses that it listens on."""
        config = Config()
        config.bind = [address]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.watch)
            task_status.started(await nursery.start(cast("Any", serve), self, config))
            await trio.sleep_forever()


def main() -> None:
    """Run the program."""
    address = sys.argv[1] if sys.argv[1:] else "127.0.0.1:8642"
    logging.basicConfig(format="* %(message)s")  # such as that it waits for the daemon
    trio.run(ClusterPage().serve, address)


if __name__ == "__main__":
    main()
