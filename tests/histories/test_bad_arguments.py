"""What is no history, entry, node, endpoint or service is refused at once, where it is given."""

from __future__ import annotations

from typing import Any, cast

import pytest

import triocoro
from triocoro import lowlevel
from triocoro.testing import Cluster, ClusterLoan, ClusterOptions, FakeClusterSource, History, NetnsClusterPool, check

WRONG: Any = 7


def test_a_history_takes_entries_only() -> None:
    with pytest.raises(TypeError, match="an entry of a history is needed, not int"):
        History([WRONG])
    history = History()
    with pytest.raises(TypeError, match="an entry of a history is needed, not dict"):
        history.append({})  # type: ignore[arg-type]
    assert len(history) == 0


def test_merging_and_checking_takes_histories_only() -> None:
    with pytest.raises(TypeError, match="a History is needed, not int"):
        History.merge([History(), WRONG])
    with pytest.raises(TypeError, match="a History is needed, not list"):
        check([])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="options must be ClusterOptions, not int"):
        check(History(), options=WRONG)
    with pytest.raises(TypeError, match="from a str, not bytes"):
        History.from_json_lines(b"")  # type: ignore[arg-type]


async def test_what_is_recorded_is_a_node_or_an_endpoint(corosync_cluster: Cluster) -> None:
    history, node = History(), corosync_cluster[1]
    with pytest.raises(TypeError, match="node must be a node of a cluster, not int"):
        history.endpoint(WRONG, client="client")
    with pytest.raises(TypeError, match="client must be a str, not int"):
        history.endpoint(node, client=WRONG)
    with pytest.raises(TypeError, match="an endpoint is needed"):
        history.endpoint(node, client="client", via=WRONG)
    with pytest.raises(TypeError, match="service must be a ServiceSpec, not int"):
        await history.endpoint(node, client="client").connect(WRONG)


async def test_an_endpoint_is_no_cluster_and_no_class(corosync_cluster: Cluster) -> None:
    node = corosync_cluster[1]

    class Broken:
        endpoint = 7

    wrongs: list[Any] = [corosync_cluster, 7, b"", type(node), type(node.endpoint), Broken()]
    for wrong in wrongs:
        with pytest.raises(TypeError, match=r"an endpoint is needed, or a node of a cluster such as cluster\[1\]"):
            async with triocoro.open_group("group", endpoint=wrong):
                pass
        with pytest.raises(TypeError, match="an endpoint is needed"):
            await lowlevel.cpg_initialize(endpoint=wrong)


async def test_a_cluster_takes_options_and_is_not_iterable(corosync_cluster: Cluster) -> None:
    kind: Any = type(corosync_cluster)
    with pytest.raises(TypeError, match="options must be ClusterOptions, not int"):
        kind(options=WRONG)
    with pytest.raises(TypeError, match="not iterable"):
        iter(cast("Any", corosync_cluster))


@pytest.mark.corosync_fake_only(reason="each kind of source refuses without a cluster")
def test_clusters_are_lent_with_options_and_taken_back_as_clusters() -> None:
    for source in (FakeClusterSource(), NetnsClusterPool(None)):
        with pytest.raises(TypeError, match="options must be ClusterOptions, not int"):
            source.borrow(WRONG, "test")
        with pytest.raises(TypeError, match="cluster must be Cluster, not int"):
            source.give_back(WRONG)
    loan = FakeClusterSource().borrow(ClusterOptions(nodes=1), "test")
    assert isinstance(loan, ClusterLoan)
    with pytest.raises(TypeError, match="node must be Node, not int"):
        loan.log(WRONG)
    FakeClusterSource().give_back(loan.cluster)
