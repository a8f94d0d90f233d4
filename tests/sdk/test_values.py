"""Values, enumerations and errors: printing, pickling, comparing and changing them."""

from __future__ import annotations

import copy
import importlib.metadata
import inspect
import pickle
import re
from collections.abc import Callable
from enum import IntEnum, IntFlag
from types import ModuleType
from typing import cast

import attrs
import pytest
import trio
from support import installed

import triocoro
import triocoro.lowlevel
import triocoro.recipes
import triocoro.testing.models
from triocoro import (
    Address,
    CmapChange,
    CmapMap,
    CmapTrack,
    CmapType,
    ConfigChange,
    ConnectionLostError,
    CorosyncError,
    CorosyncUnavailableError,
    CsError,
    ExpectedVotesChange,
    GroupMember,
    InterruptedSendError,
    KeyNotFoundError,
    LibraryError,
    LinkStatus,
    MemberChange,
    Message,
    MessageLost,
    MessageLostError,
    NodelistChange,
    NodeState,
    NodeStatus,
    QuorumChange,
    QuorumType,
    Reason,
    RingId,
    RingStatus,
    ShutdownFlag,
    SlowConsumerError,
    TotemChange,
    TypedValue,
    VotequorumChange,
    VotequorumFlag,
    VotequorumInfo,
    VotequorumNode,
    VotequorumNodelist,
)
from triocoro._errors import error_from_code
from triocoro.lowlevel import CpgModelFlag, Dispatch, FlowControlState, IterationType, Track
from triocoro.testing import ClusterOptions, FaultSchedule, FaultStep, Node

_HEADERS = installed.include() / "corosync"

_OWN = (
    CorosyncUnavailableError,
    ConnectionLostError,
    SlowConsumerError,
    MessageLostError,
    InterruptedSendError,
    KeyNotFoundError,
)
"""The errors that stand for no code of the C library."""

_FAILURES = [code for code in CsError if code is not CsError.OK]


def _public(kind: type) -> list[type]:
    values = (*vars(triocoro).values(), *vars(triocoro.recipes).values())
    return [value for value in values if inspect.isclass(value) and issubclass(value, kind)]


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", _FAILURES)
def test_each_code_has_a_class_of_its_own(code: CsError) -> None:
    error = error_from_code(int(code), "cpg_join")
    assert error.code is code
    assert error.function == "cpg_join"
    assert str(error).startswith(f"cpg_join: CS_ERR_{code.name}")
    assert type(error).default_code is code
    assert f"`CS_ERR_{code.name}`" in (type(error).__doc__ or "")
    # Nobody else's class: `except BusyError` must not catch anything but CS_ERR_BUSY.
    assert [c for c in _FAILURES if isinstance(error_from_code(int(c), ""), type(error))] == [code]


@pytest.mark.parametrize("code", _FAILURES)
def test_class_is_public_and_named_after_its_code(code: CsError) -> None:
    cls = type(error_from_code(int(code), ""))
    name = "".join(word.capitalize() for word in code.name.split("_"))
    # TimeoutError is the language's, and a name that ends in "ErrorError" would be silly.
    expected = {"Timeout": "CorosyncTimeoutError", "MessageError": "MessageError"}.get(name, f"{name}Error")
    assert cls.__name__ == expected
    assert getattr(triocoro, expected) is cls


@pytest.mark.parametrize("code", [0, 29, 31, 101, -1, 2**31 - 1])
def test_unknown_code_is_a_broken_connection(code: int) -> None:
    error = error_from_code(code, "cpg_mcast_joined")
    assert type(error) is LibraryError
    assert error.code is CsError.LIBRARY
    assert f"({code})" in str(error)
    assert "cpg_mcast_joined" in str(error)


@pytest.mark.parametrize(
    "code,words",
    [
        (CsError.LIBRARY, ["daemon does not run"]),
        (CsError.TRY_AGAIN, ["busy", "try again"]),
        (CsError.ACCESS, ["permission denied", "run as root", "uidgid.d", "corosync.conf(5)"]),
        (CsError.BAD_HANDLE, ["finalized"]),
    ],
)
def test_advice(code: CsError, words: list[str]) -> None:
    text = str(error_from_code(int(code), "cpg_join"))
    assert [word for word in words if word not in text] == []


def test_the_callers_advice_wins() -> None:
    assert str(error_from_code(int(CsError.ACCESS), "cpg_join", "ask the porter")) == (
        "cpg_join: CS_ERR_ACCESS: ask the porter"
    )


def test_no_advice_leaves_no_trace() -> None:
    assert str(error_from_code(int(CsError.BUSY), "cpg_join")) == "cpg_join: CS_ERR_BUSY"


@pytest.mark.parametrize("cls", _public(CorosyncError))
def test_error_survives_pickle_and_copy(cls: type[CorosyncError]) -> None:
    error = cls("it rains", function="cpg_dispatch", code=CsError.NO_SPACE)
    if isinstance(error, ConnectionLostError):
        error.unconfirmed = 7
    if isinstance(error, MessageLostError):
        error.payloads = (b"a", b"\0")
    copies: list[Callable[[CorosyncError], CorosyncError]] = [
        *(
            lambda e, p=protocol: cast("CorosyncError", pickle.loads(pickle.dumps(e, p)))  # noqa: S301
            for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
        ),
        copy.copy,
        copy.deepcopy,
    ]
    for make in copies:
        twin = make(error)
        assert type(twin) is cls
        assert twin is not error
        assert twin.args == error.args
        assert str(twin) == "it rains"
        assert twin.code is CsError.NO_SPACE
        assert vars(twin) == vars(error)


@pytest.mark.parametrize("cls", _public(CorosyncError))
def test_error_shows_its_message_and_public_path(cls: type[CorosyncError]) -> None:
    error = cls("it rains")
    assert repr(error) == f"{cls.__name__}('it rains')"
    assert cls.__module__ == "triocoro"
    assert error.function == ""
    assert error.code is cls.default_code


def test_every_public_error_is_a_codes_or_our_own() -> None:
    of_codes = {type(error_from_code(int(code), "")) for code in _FAILURES}
    assert set(_public(CorosyncError)) == {CorosyncError, *of_codes, *_OWN}


def test_families() -> None:
    assert issubclass(ConnectionLostError, trio.BrokenResourceError)
    assert issubclass(InterruptedSendError, triocoro.InterruptError)
    assert not issubclass(CorosyncUnavailableError, LibraryError)
    assert issubclass(KeyNotFoundError, triocoro.NotExistError)
    assert issubclass(KeyNotFoundError, KeyError)


def test_errors_carry_counts_and_payloads_of_messages() -> None:
    assert ConnectionLostError("gone").unconfirmed == 0
    assert ConnectionLostError("gone", unconfirmed=3).unconfirmed == 3
    assert MessageLostError("gone").payloads == ()
    assert MessageLostError("gone", payloads=(b"x",)).payloads == (b"x",)


# -- enumerations, as the C headers have them --------------------------------------------------------------------------


def _c_names(header: str, prefix: str) -> dict[str, int]:
    """Enumerators and macros whose names begin with `prefix`, without it."""
    path = _HEADERS / header
    if not path.exists():
        pytest.skip(f"{path} is not installed")
    text = re.sub(r"/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    found: dict[str, int] = {}
    for body in re.findall(r"enum\s*\w*\s*{(.*?)}", text, flags=re.DOTALL):
        value = -1
        for entry in cast("str", body).split(","):
            name, _, given = (part.strip() for part in entry.partition("="))
            if name:
                value = int(given, 0) if given else value + 1
                found[name] = value
    found.update(
        (name, int(value, 0)) for name, value in re.findall(r"#define\s+(\w+)\s+(0x\w+|\d+)\s*$", text, re.MULTILINE)
    )
    return {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}


_OTHERS: dict[type, set[str]] = {
    CmapMap: {"DEFAULT"},  # another name of ICMAP
    QuorumType: {"MODEL_V0", "MODEL_V1"},
    ShutdownFlag: {"NO", "YES"},  # the answers: bools here
}
"""Names in the header that have the prefix, and belong to something else."""

_NEWER: dict[type, set[str]] = {VotequorumFlag: {"QDEVICE_HAS_EXTRA_INFO"}}
"""Names that only newer headers have."""


@pytest.mark.parametrize(
    "enum,header,prefix",
    [
        (CsError, "corotypes.h", "CS_ERR_"),
        (Dispatch, "corotypes.h", "CS_DISPATCH_"),
        (Track, "corotypes.h", "CS_TRACK_"),
        (Reason, "cpg.h", "CPG_REASON_"),
        (IterationType, "cpg.h", "CPG_ITERATION_"),
        (FlowControlState, "cpg.h", "CPG_FLOW_CONTROL_"),
        (CpgModelFlag, "cpg.h", "CPG_MODEL_V1_"),
        (NodeState, "votequorum.h", "VOTEQUORUM_NODESTATE_"),
        (VotequorumFlag, "votequorum.h", "VOTEQUORUM_INFO_"),
        (QuorumType, "quorum.h", "QUORUM_"),
        (CmapMap, "cmap.h", "CMAP_MAP_"),
        (CmapType, "cmap.h", "CMAP_VALUETYPE_"),
        (CmapTrack, "cmap.h", "CMAP_TRACK_"),
        (ShutdownFlag, "cfg.h", "COROSYNC_CFG_SHUTDOWN_FLAG_"),
    ],
)
def test_enumeration_is_that_of_the_header(enum: type[IntEnum | IntFlag], header: str, prefix: str) -> None:
    theirs = _c_names(header, prefix)
    if enum is CsError:
        theirs["OK"] = _c_names(header, "CS_")["OK"]
    ours = {member.name: int(member) for member in enum}
    newer = {name for name in _NEWER.get(enum, set()) if name not in theirs}
    assert {name: value for name, value in ours.items() if name not in newer} == {
        name: value for name, value in theirs.items() if name not in _OTHERS.get(enum, set())
    }


def test_group_names_may_be_as_long_as_the_header_says_less_one() -> None:
    # 128 bytes leave no room for the daemon's NUL.
    from triocoro._validate import MAX_GROUP_NAME

    assert _c_names("cpg.h", "CPG_MAX_NAME_")["LENGTH"] - 1 == MAX_GROUP_NAME


def test_bounds_are_those_of_the_headers() -> None:
    from triocoro import _validate

    keys = _c_names("cmap.h", "CMAP_KEYNAME_")
    assert (keys["MINLEN"], keys["MAXLEN"]) == (_validate.MIN_KEY, _validate.MAX_KEY)
    # A NUL must fit in as well.
    assert _c_names("votequorum.h", "VOTEQUORUM_QDEVICE_MAX_NAME_")["LEN"] - 1 == _validate.MAX_QDEVICE_NAME


# -- values ------------------------------------------------------------------------------------------------------------

_ADDRESS = Address(1, 200)
_RING = RingId(1, 12)

_LINK = LinkStatus(0, True, True, False, 1397, "192.0.2.1", "192.0.2.2")  # noqa: FBT003 - as they come

_VALUES: list[attrs.AttrsInstance] = [
    _ADDRESS,
    MemberChange(_ADDRESS, Reason.JOIN),
    Message(_ADDRESS, b"hello"),
    ConfigChange((_ADDRESS,), (MemberChange(_ADDRESS, Reason.JOIN),), ()),
    _RING,
    TotemChange(_RING, (1, 2)),
    MessageLost(b"hello"),
    triocoro.View(_RING, (_ADDRESS,), frozenset({1, 2}), True, frozenset()),  # noqa: FBT003 - as they come
    triocoro.PrimaryChange(_RING, primary=False),
    GroupMember(b"chat", _ADDRESS),
    VotequorumInfo(1, NodeState.MEMBER, 1, 3, 3, 2, 2, VotequorumFlag.QUORATE, 0, ""),
    VotequorumNode(1, NodeState.DEAD),
    VotequorumChange(quorate=True, nodes=(VotequorumNode(1, NodeState.MEMBER),)),
    VotequorumNodelist(_RING, (1, 2)),
    ExpectedVotesChange(3),
    QuorumChange(quorate=True, ring_id=_RING, members=(1, 2)),
    NodelistChange(_RING, (1, 2), (2,), ()),
    TypedValue(CmapType.UINT8, 3),
    CmapChange(CmapTrack.MODIFY, "totem.token", 2, 1, CmapType.UINT32, CmapType.UINT32),
    _LINK,
    NodeStatus(2, True, False, False, 0, 1, 1, (_LINK,)),  # noqa: FBT003 - as they come
    RingStatus("0 192.0.2.1", "n33"),
    triocoro.QdeviceExtraInfo(2, b"x"),
    ClusterOptions(nodes=3),
    FaultStep(1, "isolate", [1]),
    FaultSchedule([FaultStep(1, "heal")]),
    triocoro.StreamStatistics(1, 2, 3, 4),
    triocoro.ServiceSpec(),
    triocoro.GroupStatistics(1, 2, 3, 4, 5, 6, triocoro.StreamStatistics(1, 2, 3, 4)),
    triocoro.recipes.Request(_ADDRESS, b"x"),
    triocoro.recipes.Answer(_ADDRESS, b"x"),
    triocoro.recipes.Failure(_ADDRESS, "ValueError: x"),
    triocoro.recipes.Unknown(_ADDRESS),
    triocoro.recipes.Commit(4, 1),
    triocoro.recipes.Delivery(_ADDRESS, b"x", triocoro.recipes.Commit(4, 1)),
    triocoro.recipes.Missed(1, 2),
    triocoro.recipes.Token(4, 1),
    triocoro.recipes.MemberStatus(_ADDRESS, 1, None),
    triocoro.recipes.Status(
        primary=True,
        obstacle=None,
        committed=1,
        nodes={1: 1},
        vacant=(),
        members=(triocoro.recipes.MemberStatus(_ADDRESS, 1, 0),),
    ),
]


@pytest.mark.parametrize("value", _VALUES, ids=lambda value: type(value).__name__)
def test_value_is_frozen_comparable_hashable_and_picklable(value: attrs.AttrsInstance) -> None:
    for field in attrs.fields(type(value)):
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(value, field.name, getattr(value, field.name))
    with pytest.raises(AttributeError):
        value.something_else = 1  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    twin = pickle.loads(pickle.dumps(value))  # noqa: S301
    assert twin == value
    assert hash(twin) == hash(value)
    assert repr(value).startswith(f"{type(value).__name__}(")
    assert type(value).__module__.startswith("triocoro")
    assert "._" not in type(value).__module__


def test_every_public_value_is_tested_above() -> None:
    classes = {cls for cls in _public(object) if attrs.has(cls)}
    assert classes - {type(value) for value in _VALUES} == set()


def test_addresses_sort_by_node_then_pid() -> None:
    addresses = [Address(2, 1), Address(1, 30), Address(1, 4)]
    assert sorted(addresses) == [Address(1, 4), Address(1, 30), Address(2, 1)]


def test_quorate_is_the_flag() -> None:
    def info(flags: VotequorumFlag) -> VotequorumInfo:
        return VotequorumInfo(1, NodeState.MEMBER, 1, 3, 3, 2, 2, flags, 0, "")

    assert info(VotequorumFlag.QUORATE | VotequorumFlag.TWONODE).quorate is True
    assert info(VotequorumFlag.TWONODE).quorate is False


@pytest.mark.parametrize("value", [Message(_ADDRESS, b""), MessageLost(b"")])
def test_payload_is_shown_whole_only_if_small(value: Message | MessageLost) -> None:
    assert repr(b"x" * 64) in repr(attrs.evolve(value, payload=b"x" * 64))
    large = repr(attrs.evolve(value, payload=b"x" * 2**20))
    assert "1048576 bytes" in large
    assert len(large) < 200


# -- names -------------------------------------------------------------------------------------------------------------


def test_public_names_show_their_public_path() -> None:
    shown = {"reached": triocoro}  # triocoro.testing exports it, too
    for module in (triocoro.lowlevel, triocoro, triocoro.recipes, triocoro.testing, triocoro.testing.models):
        for name, value in vars(module).items():
            if inspect.isclass(value) or (inspect.isfunction(value) and not name.startswith("_")):
                assert value.__module__ == shown.get(name, module).__name__, name


@pytest.mark.parametrize("module", [triocoro, triocoro.lowlevel, triocoro.recipes, triocoro.testing])
def test_all_lists_what_is_public(module: ModuleType) -> None:
    seen = {name for name, value in vars(module).items() if name[0] != "_" and not inspect.ismodule(value)}
    assert seen == set(module.__all__) - {"__version__"}


def test_version_is_that_of_the_distribution() -> None:
    assert triocoro.__version__ == importlib.metadata.version("triocoro")


def test_an_address_is_short_as_text() -> None:
    assert f"{Address(2, 4711)}" == "2:4711"


def test_options_show_what_is_not_as_usual() -> None:
    assert repr(ClusterOptions()) == "ClusterOptions(nodes=3)"
    options = ClusterOptions(nodeids=[7, 5], token=1000, votes={7: 2})
    assert repr(options) == "ClusterOptions(nodes=2, nodeids=(7, 5), votes={7: 2}, token=1000)"
    assert eval(repr(options)) == options  # noqa: S307


@pytest.mark.usefixtures("corosync")
async def test_connections_show_their_service_and_daemon(corosync: Node) -> None:
    label = corosync.endpoint.label
    async with (
        triocoro.open_cpg() as cpg,
        triocoro.open_votequorum() as votequorum,
        triocoro.open_quorum() as quorum,
        triocoro.open_cmap(CmapMap.STATS) as cmap,
        triocoro.open_cfg() as cfg,
    ):
        assert repr(cpg) == f"<triocoro.Cpg on {label}>"
        assert repr(votequorum) == f"<triocoro.Votequorum on {label}>"
        assert repr(quorum) == f"<triocoro.Quorum on {label}>"
        assert repr(cmap) == f"<triocoro.Cmap STATS on {label}>"
        assert repr(cfg) == f"<triocoro.Cfg on {label}>"
    assert repr(cpg) == f"<triocoro.Cpg on {label}, closed>"
    with pytest.raises(ConnectionLostError):
        async with triocoro.open_cfg() as cfg:
            await corosync.kill()
            try:
                await trio.sleep_forever()
            finally:
                assert repr(cfg) == f"<triocoro.Cfg on {label}, lost>"
