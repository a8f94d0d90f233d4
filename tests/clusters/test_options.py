"""Clusters take their options ready-made, as keyword arguments, or both."""

from __future__ import annotations

import re
from typing import Any, TypeAlias

import pytest

import triocoro
from pytest_corosync.plugin import Mode
from triocoro.testing import ClusterOptions, FakeCluster, FakeClusterSource, NetnsCluster, Node
from triocoro.testing._cluster.waits import membership_time, stretched

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


@pytest.mark.parametrize("token", [0, 125, 3_579_139_414, 2**32 - 1])
def test_tokens_that_corosync_refuses_are_refused(token: int) -> None:
    with pytest.raises(ValueError, match="'token' must be"):
        ClusterOptions(token=token)


@pytest.mark.corosync(nodes=1, token=126)
async def test_shortest_token_works(corosync: Node) -> None:
    async with triocoro.open_cmap(endpoint=corosync.endpoint) as cmap:
        assert await cmap.get("runtime.config.totem.token") == 126


def test_longest_token_leaves_room_for_the_consensus() -> None:
    assert ClusterOptions(token=3_579_139_413).consensus == 2**32 - 1


@pytest.mark.parametrize(
    "section, line, reason",
    [
        ("totem", "token: 125", "Not appropriate token or token_retransmits_before_loss_const value set"),
        ("totem", "join: 29", "The join timeout parameter (29 ms) may not be less than (30 ms)."),
        ("totem", "token_warning: 101", "The token warning parameter (101%) must be between 0 (disabled) and 100."),
        ("totem", "join: 700", "The consensus timeout parameter (600 ms) may not be less than join timeout (700 ms)."),
        (
            "totem",
            "token: long",
            '"totem.token" is expected to be integer in range (0..4294967295), but "long"',
        ),
        (
            "quorum",
            "two_node: 256",
            '"quorum.two_node" is expected to be integer in range (0..255), but "256"',
        ),
    ],
)
def test_extra_lines_that_corosync_refuses_end_the_start(kind: Kind, section: str, line: str, reason: str) -> None:
    with pytest.raises(triocoro.CorosyncUnavailableError, match=re.escape(reason)):
        kind(nodes=1, extra={section: [line]}).__enter__()


@pytest.mark.parametrize("option", ["two_node", "wait_for_all", "last_man_standing", "auto_tie_breaker"])
def test_what_is_no_bool_is_refused(option: str) -> None:
    wrong: Any = {option: "no"}
    with pytest.raises(TypeError, match=f"'{option}' must be"):
        ClusterOptions(**wrong)


@pytest.mark.parametrize("wrong", [{"nodes": True}, {"token": True}, {"votes": {1: True}}, {"nodeids": [True]}])
def test_bools_are_no_numbers(wrong: Any) -> None:
    with pytest.raises(TypeError, match="must be a"):
        ClusterOptions(**wrong)


@pytest.mark.parametrize(
    "options, seconds",
    [
        (ClusterOptions(), 1.1),
        (ClusterOptions(token=16_000), 35.2),
        (ClusterOptions(extra={"totem": ["token: 16000"]}), 16.6),
        (ClusterOptions(nodes=4, extra={"totem": [" token_coefficient : 650 ", "consensus: 9000"]}), 10.8),
        (ClusterOptions(qdevice_votes=1), 31.1),
    ],
)
def test_waits_follow_the_configuration(options: ClusterOptions, seconds: float) -> None:
    assert membership_time(options) == pytest.approx(seconds)
    assert stretched(30, options) == pytest.approx(30 * max(1, seconds / 7.5))


class _Liar(int):
    """An int that claims to be within any bounds."""

    def __le__(self, _: object) -> bool:
        return True

    __lt__ = __ge__ = __gt__ = __le__


def test_numbers_count_for_what_they_are_whatever_their_class_says(kind: Kind) -> None:
    for nodes in (_Liar(10**30), _Liar(-1)):
        with pytest.raises(ValueError, match=f"'nodes' must be .*: {int.__index__(nodes)}"):
            kind(nodes=nodes)
    with pytest.raises(ValueError, match="'token' must be >= 126: -1"):
        kind(token=_Liar(-1))
    with pytest.raises(ValueError, match="nodeids must be 1 to 65535"):
        kind(nodeids=[1, _Liar(2**16)])
    with pytest.raises(ValueError, match="votes must not be negative"):
        kind(votes={1: _Liar(-1)})
