"""`python -m support.each_service ROUNDS`: open, use and close each service of the daemon here, for a leak checker."""

from __future__ import annotations

import sys

import trio

import triocoro
from triocoro import lowlevel


async def _group() -> None:
    async with triocoro.open_group("leaks", totem_changes=True) as group:
        await group.send_batch([bytes(10), bytes(100_000)])
        await group.send_and_wait(bytes(2_000_000))
        await group.receive_batch()


async def _views() -> None:
    async with triocoro.open_views("leaks") as views:
        await views.send_and_wait(bytes(10))
        await views.receive_batch()


async def _queries() -> None:
    async with triocoro.open_cpg() as cpg:
        await cpg.groups()
        await cpg.members("leaks")


async def _zero_copy() -> None:
    handle = await lowlevel.cpg_initialize()
    await handle.join("leaks")
    async with handle.zcb_alloc(1000) as buffer:
        await handle.zcb_mcast_joined(buffer)
    await handle.finalize()


async def _votequorum() -> None:
    async with triocoro.open_votequorum() as votequorum, votequorum.track() as changes:
        await votequorum.info()
        await changes.receive()


async def _quorum() -> None:
    async with triocoro.open_quorum() as quorum, quorum.track() as changes:
        await quorum.is_quorate()
        await changes.receive()


async def _cmap() -> None:
    async with triocoro.open_cmap() as cmap, cmap.track("leaks.", prefix=True) as changes:
        await cmap.set("leaks.key", "value")
        await changes.receive()
        await cmap.items("leaks.")
        await cmap.delete("leaks.key")
        try:
            await cmap.get("leaks.key")
        except triocoro.KeyNotFoundError:
            return
        raise AssertionError


async def _cfg() -> None:
    async with triocoro.open_cfg() as cfg, cfg.track_shutdown():
        await cfg.local_nodeid()
        await cfg.node_status(1)
        await cfg.ring_status()
        await cfg.node_addresses()


async def _cancelled() -> None:
    with trio.CancelScope() as scope:
        async with triocoro.open_group("leaks"):
            scope.cancel()
    with trio.move_on_after(0.001):
        await _queries()


async def main(rounds: int) -> None:
    """Do everything that often."""
    for _ in range(rounds):
        for use in (_group, _views, _queries, _zero_copy, _votequorum, _quorum, _cmap, _cfg, _cancelled):
            await use()


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]))
