"""`triocoro export`."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from support.commands import Result, invoke

import triocoro
from triocoro._cli.export import Metric, as_text
from triocoro.testing import Cluster

_SAMPLE = re.compile(r'[a-z_]+(\{([a-z]+="(\\.|[^"\\])*",?)+\})? -?[0-9.e+-]+')


def samples(text: str) -> dict[str, float]:
    """The samples in the text format; each line is checked."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        if not line.startswith(("# HELP corosync_", "# TYPE corosync_")):
            assert _SAMPLE.fullmatch(line), line
            name, value = line.rsplit(" ", 1)
            found[name] = float(value)
    return found


async def test_what_the_cluster_does(corosync_cluster: Cluster) -> None:
    first, *_, last = corosync_cluster.nodes.values()
    async with triocoro.open_group('a "b"\n'):
        before = samples((await invoke("export")).stdout)
        assert before["corosync_up"] == before["corosync_quorate"] == 1
        assert before["corosync_votes"] == before["corosync_expected_votes"] == 3
        assert before[f'corosync_node_member{{node="{last.nodeid}"}}'] == 1
        assert before[f'corosync_link_connected{{node="{last.nodeid}",link="0"}}'] == 1
        assert before[r'corosync_group_members{group="a \"b\"\\x0a"}'] == 1
        await last.kill()
        await corosync_cluster.settled()
        after = samples((await invoke("export")).stdout)
        assert after["corosync_votes"] == 2
        assert after[f'corosync_node_member{{node="{last.nodeid}"}}'] == 0
        assert after[f'corosync_node_member{{node="{first.nodeid}"}}'] == 1
        assert after["corosync_totem_rings_total"] > before["corosync_totem_rings_total"]
        assert (await invoke("export", "--json")).result["corosync_votes"] == [{"labels": {}, "value": 2}]


@pytest.mark.usefixtures("corosync")
async def test_the_text_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "corosync.prom"
    path.write_text("old")
    assert await invoke("export", f"--textfile={path}") == Result(0, "", "")
    assert samples(path.read_text())["corosync_up"] == 1
    assert path.stat().st_mode & 0o777 == 0o644
    assert [found.name for found in os.scandir(tmp_path)] == [path.name]


async def test_a_daemon_that_does_not_run_is_a_metric_too(corosync_cluster: Cluster, tmp_path: Path) -> None:
    node = next(iter(corosync_cluster.nodes.values()))
    await node.stop()
    path = tmp_path / "corosync.prom"
    with node.as_default():
        done = await invoke("export", f"--textfile={path}")
    assert (done.status, done.stdout) == (3, "")
    assert "start it" in done.stderr
    assert samples(path.read_text()) == {"corosync_up": 0}


@pytest.mark.usefixtures("corosync")
async def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    done = await invoke("export", f"--textfile={tmp_path}/none/corosync.prom")
    assert done == Result(
        2, "", f"triocoro: {tmp_path}/none/corosync.prom cannot be written: No such file or directory\n"
    )


def test_labels_are_escaped() -> None:
    assert as_text([Metric("x", "gauge", "X.", [({"a": 'b"\\\n', "c": ""}, 1e20)])]) == (
        '# HELP corosync_x X.\n# TYPE corosync_x gauge\ncorosync_x{a="b\\"\\\\\\n",c=""} 1e+20\n'
    )
