"""Clusters take their options ready-made, as keyword arguments, or both."""

from __future__ import annotations

import re
from typing import Any, TypeAlias

import pytest

from pytest_corosync.plugin import Mode
from triocoro.testing import ClusterOptions, FakeCluster, FakeClusterSource, NetnsCluster

Kind: TypeAlias = "type[FakeCluster | NetnsCluster]"

FIVE = ClusterOptions(nodes=5, wait_for_all=True, votes={2: 3})


@pytest.fixture
def kind(corosync_mode: Mode) -> Kind:
    """The class of the clusters of this mode."""
    return NetnsCluster if corosync_mode == "real" else FakeCluster


def test_ready_made_options_are_used_as_they_are(kind: Kind) -> None:
    cluster = kind(options=FIVE)
    assert cluster.options is FIVE
    assert sorted(cluster.nodes) == [1, 2, 3, 4, 5]


def test_keyword_arguments_replace_fields_of_ready_made_options(kind: Kind) -> None:
    cluster = kind(options=FIVE, nodes=4, wait_for_all=None)
    assert cluster.options == ClusterOptions(nodes=4, votes={2: 3})
    assert sorted(cluster.nodes) == [1, 2, 3, 4]
    assert kind(options=FIVE, nodes=2).options == ClusterOptions(nodes=2, wait_for_all=True, votes={2: 3})
    with pytest.raises(ValueError, match="votes must be of nodes 1 to 1"):
        kind(options=FIVE, nodes=1)


def test_without_ready_made_options_keyword_arguments_are_fields(kind: Kind) -> None:
    assert kind().options == ClusterOptions()
    assert kind(nodes=2, two_node=True).options == ClusterOptions(nodes=2, two_node=True)


@pytest.mark.parametrize(
    "extra, words",
    [
        ({"my app": ["a: b"]}, "extra has no name of a section: 'my app'"),
        ({"": ["a: b"]}, "extra has no name of a section: ''"),
        ({"totem": ["token"]}, "extra['totem']: 'token' is no line of corosync.conf, such as 'key: value'"),
        ({"totem": ["a: b\nc: d"]}, "extra['totem']: 'a: b\\nc: d' is no line of corosync.conf"),
        ({"totem": ["interface {"]}, "extra['totem']: the braces do not match"),
        ({"totem": ["}", "quorum {"]}, "extra['totem']: the braces do not match"),
    ],
)
def test_extra_lines_that_are_none_are_refused(extra: dict[str, list[str]], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        ClusterOptions(extra=extra)


@pytest.mark.parametrize("extra", [{"totem": "token: 5"}, {"totem": [5]}, {5: []}, {"totem": 5}, ["totem"]])
def test_extra_lines_of_other_types_are_refused(extra: Any) -> None:
    with pytest.raises(TypeError, match="extra must be a mapping of section names to sequences of lines"):
        ClusterOptions(extra=extra)


@pytest.mark.corosync_fake_only(reason="the pool of real clusters is tested in test_reuse.py")
def test_the_plugins_source_passes_its_options_on() -> None:
    source = FakeClusterSource()
    cluster = source.borrow(FIVE, "a test").cluster
    assert cluster.options is FIVE
    source.give_back(cluster)
