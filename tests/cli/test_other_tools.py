"""docs/from-other-tools.md: what Corosync's own tools print is in `triocoro --json`."""

from __future__ import annotations

import re

import pytest
from support.commands import run_inside
from support.external_programs import ask

import triocoro
from triocoro.testing import Cluster


@pytest.mark.corosync_real_only(reason="Corosync's tools need a real node")
@pytest.mark.corosync(links=2)
async def test_the_fields_of_the_tools(corosync_cluster: Cluster) -> None:
    node = next(iter(corosync_cluster.nodes.values()))
    async with triocoro.open_group("chat", receive=False, endpoint=node) as group:
        result = (await run_inside(node, "status", "--json")).result
        quorumtool = await ask(node, "corosync-quorumtool", "-s")
        links = await ask(node, "corosync-cfgtool", "-n")
        groups = await ask(node, "corosync-cpgtool")

    fields = dict(re.findall(r"^([\w ]+): +(.*?) *$", quorumtool, re.MULTILINE))
    quorum, votes = result["quorum"], result["quorum"]["votes"]
    assert fields["Quorum provider"] == quorum["provider"]
    assert int(fields["Nodes"]) == len(quorum["members"])
    assert int(fields["Node ID"]) == result["nodeid"]
    assert fields["Ring ID"] == f"{quorum['ring_id']['nodeid']}.{quorum['ring_id']['seq']:x}"
    assert (fields["Quorate"] == "Yes") is quorum["quorate"]
    assert int(fields["Expected votes"]) == votes["expected"]
    assert int(fields["Highest expected"]) == votes["highest_expected"]
    assert int(fields["Total votes"]) == votes["total"]
    assert int(fields["Quorum"].split()[0]) == votes["needed"]
    listed = re.findall(r"^ +(\d+) +(\d+) (\S+)( \(local\))?$", quorumtool, re.MULTILINE)
    assert listed == [
        (str(each["nodeid"]), str(each["votes"]), each["name"], " (local)" if each["local"] else "")
        for each in result["nodes"]
    ]

    found = re.findall(r"LINK: (\d+) \w+ \((\S+)->(\S+)\) (enabled) (connected) mtu: (\d+)", links)
    assert found == [
        (str(link["number"]), link["source"], link["destination"], "enabled", "connected", str(link["mtu"]))
        for each in result["nodes"]
        for link in each["links"]
        if link["enabled"] and link["connected"]
    ]
    assert len(found) == 2 * (len(result["nodes"]) - 1)

    (ours,) = result["groups"]
    assert ours["name"]["text"] == "chat"
    assert re.search(rf"^chat\s+{group.address.pid}\s+{group.address.nodeid}\b", groups, re.MULTILINE)
    assert ours["members"] == [{"nodeid": group.address.nodeid, "pid": group.address.pid}]
