"""Endpoints and clusters."""

from __future__ import annotations

from triocoro._raw import RawHandle
from triocoro._services import CFG, CPG, ICMAP, QUORUM, STATS, VOTEQUORUM
from triocoro.testing import Cluster, History

from . import Case, checked, registrar

CASES: dict[str, Case] = {}
"""The cases, by the name of the function that each calls; a case may depend on those before it."""

case = registrar(CASES)


# -- endpoints and clusters --------------------------------------------------------------------------------------------


@case("Endpoint.connect")
async def _(cluster: Cluster) -> None:
    endpoint = cluster[1].endpoint
    for service in (CPG, VOTEQUORUM, QUORUM, ICMAP, STATS, CFG):
        raw: RawHandle[object] = await checked(endpoint.connect(service))
        raw.close()
        await raw.wait_closed()


@case("testing.Cluster.settled")
async def _(cluster: Cluster) -> None:
    await checked(cluster.settled())


@case("testing.Cluster.__aenter__")
async def _(cluster: Cluster) -> None:
    another = type(cluster)(nodes=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await checked(another.__aenter__())
    await checked(another.__aexit__(None, None, None))


@case("testing.Cluster.__aexit__")
async def _(_: Cluster) -> None:
    """Tried together with entering."""


@case("testing.Node.freeze")
async def _(cluster: Cluster) -> None:
    await checked(cluster[1].freeze())
    await checked(cluster[1].freeze())


@case("testing.Node.thaw")
async def _(cluster: Cluster) -> None:
    await checked(cluster[1].thaw())
    await checked(cluster[1].thaw())


@case("testing.Node.stop")
async def _(cluster: Cluster) -> None:
    await checked(cluster[1].stop())
    await checked(cluster[1].stop())


@case("testing.Node.start")
async def _(cluster: Cluster) -> None:
    await checked(cluster[1].start())
    await checked(cluster[1].start())


@case("testing.Node.kill")
async def _(cluster: Cluster) -> None:
    await checked(cluster[1].kill())
    await checked(cluster[1].kill())
    await cluster[1].start()


@case("testing.Node.restart")
async def _(cluster: Cluster) -> None:
    await checked(cluster[1].restart())


@case("testing.Cluster.partition")
async def _(cluster: Cluster) -> None:
    await checked(cluster.partition({1}))


@case("testing.Cluster.isolate")
async def _(cluster: Cluster) -> None:
    await checked(cluster.isolate(1))


@case("testing.Cluster.cut")
async def _(cluster: Cluster) -> None:
    async with type(cluster)(nodes=2) as two:  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        await checked(two.cut(1, 2))


@case("testing.Cluster.add_node")
async def _(cluster: Cluster) -> None:
    async with type(cluster)(nodes=1) as growing:  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        added = await checked(growing.add_node())
        await checked(growing.remove_node(added.nodeid))


@case("testing.Cluster.remove_node")
async def _(_: Cluster) -> None:
    """Tried together with adding one."""


@case("testing.Cluster.lose")
async def _(cluster: Cluster) -> None:
    await checked(cluster.lose(1))


@case("testing.Cluster.heal")
async def _(cluster: Cluster) -> None:
    await checked(cluster.heal())


@case("testing.RecordingEndpoint.connect")
async def _(cluster: Cluster) -> None:
    endpoint = History().endpoint(cluster[1], client="a")
    for service in (CPG, VOTEQUORUM, QUORUM, ICMAP, STATS, CFG):
        raw: RawHandle[object] = await checked(endpoint.connect(service))
        raw.close()
        await raw.wait_closed()
