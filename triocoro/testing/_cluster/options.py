"""The options of a cluster, and which of them go together."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias, TypedDict, cast

import attrs

from ... import _validate

MAX_NODES: Final = 253
"""The number of fds that fit into one packet to the supervisor of real nodes. The network has 254 addresses."""

_NODES: Final = 3
_MOST_LINKS: Final = 8
_MOST: Final = 2**32 - 1
_LEAST_TOKEN: Final = 126
"""Below, its retransmission would take less than the 30 ms that Corosync demands."""
_MOST_TOKEN: Final = 3_579_139_413
"""Beyond, `ClusterOptions.consensus` would exceed 32 bits."""
_WINDOW: Final = 10_000
_DEVICE_TIMEOUT: Final = 10_000
_DEVICE_SYNC_TIMEOUT: Final = 30_000
_MOST_VOTES: Final = 509
_LEAST_BESIDE_DEVICE: Final = 2
_SECTION: Final = re.compile(r"\w+")
_LINE: Final = re.compile(r"(#.*|\w+ *\{|\}|[^\s:{}]+ *:.*)?")


LogLevel: TypeAlias = Literal["info", "debug", "trace"]
"""How much daemons log."""

LOG_LEVELS: Final[tuple[LogLevel, ...]] = ("info", "debug", "trace")

Transport: TypeAlias = Literal["knet", "udpu", "udp"]
"""How nodes send packets to each other: by knet, or by UDP, unicast or multicast."""

TRANSPORTS: Final[tuple[Transport, ...]] = ("knet", "udpu", "udp")

Cipher: TypeAlias = Literal["none", "aes128", "aes192", "aes256"]
"""How packets are encrypted."""

CIPHERS: Final[tuple[Cipher, ...]] = ("none", "aes128", "aes192", "aes256")

Hash: TypeAlias = Literal["none", "md5", "sha1", "sha256", "sha384", "sha512"]
"""How packets are authenticated."""

HASHES: Final[tuple[Hash, ...]] = ("none", "md5", "sha1", "sha256", "sha384", "sha512")

Compression: TypeAlias = Literal["none", "zlib", "lz4", "lz4hc", "lzo2", "lzma", "bzip2", "zstd"]
"""How messages are compressed."""

COMPRESSIONS: Final[tuple[Compression, ...]] = ("none", "zlib", "lz4", "lz4hc", "lzo2", "lzma", "bzip2", "zstd")


class ClusterSettings(TypedDict, total=False):
    """The keyword arguments of the constructors of clusters: the fields of `ClusterOptions`, but for `nodes`."""

    nodeids: Sequence[int] | None
    two_node: bool
    wait_for_all: bool | None
    last_man_standing: bool
    last_man_standing_window: int
    auto_tie_breaker: bool
    auto_tie_breaker_node: str | None
    allow_downscale: bool
    expected_votes: int | None
    votes: Mapping[int, int]
    qdevice_votes: int | None
    qdevice_timeout: int
    qdevice_sync_timeout: int
    token: int
    transport: Transport
    links: int
    ip_version: int | Sequence[int]
    crypto_cipher: Cipher
    crypto_hash: Hash
    compression: Compression
    log_level: LogLevel
    extra: Mapping[str, Sequence[str]]


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _no_bool(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if isinstance(value, bool):
        raise TypeError(f"{attribute.name} must be a number, not {value}")


def _number(minimum: int, maximum: int = _MOST) -> Callable[[Any, Any, Any], None]:
    is_number = attrs.validators.and_(attrs.validators.instance_of(int), _no_bool)
    is_within = attrs.validators.and_(attrs.validators.ge(minimum), attrs.validators.le(maximum))

    def check(options: object, attribute: attrs.Attribute[Any], value: int) -> None:
        is_number(options, attribute, value)
        is_within(options, attribute, int.__index__(value))  # its real value, whatever a subclass says of itself

    return check


_BOOL: Final = attrs.validators.instance_of(bool)


def _votes(votes: Mapping[int, int]) -> dict[int, int]:
    """A copy, so that changes of the caller's mapping have no effect."""
    if not isinstance(cast("object", votes), Mapping) or not all(
        _is_number(number) for item in votes.items() for number in item
    ):
        raise TypeError(f"votes must be a mapping of node ids to numbers: {votes!r}")
    return {int.__index__(nodeid): int.__index__(number) for nodeid, number in votes.items()}


def _versions(ip_version: int | Sequence[int]) -> int | tuple[int, ...]:
    """A copy, so that changes of the caller's sequence have no effect."""
    return ip_version if isinstance(ip_version, int) else tuple(ip_version)


def _ids(nodeids: Sequence[int] | None) -> tuple[int, ...] | None:
    """A copy, so that changes of the caller's sequence have no effect."""
    if nodeids is None:
        return None
    if not isinstance(cast("object", nodeids), Sequence) or not all(_is_number(nodeid) for nodeid in nodeids):
        raise TypeError(f"nodeids must be a sequence of numbers: {nodeids!r}")
    return tuple(map(int.__index__, nodeids))


def _lines(extra: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """A copy, so that changes of the caller's mapping have no effect."""
    if not isinstance(cast("object", extra), Mapping) or not all(
        isinstance(cast("object", name), str)
        and isinstance(cast("object", lines), Sequence)
        and not isinstance(lines, (str, bytes))
        and all(isinstance(cast("object", line), str) for line in lines)
        for name, lines in extra.items()
    ):
        raise TypeError(f"extra must be a mapping of section names to sequences of lines: {extra!r}")
    return {name: tuple(lines) for name, lines in extra.items()}


def _number_of(options: ClusterOptions) -> int:
    """The number of nodes where it is not given."""
    nodeids = options._nodeids  # noqa: SLF001 - it is the only one that is set already
    return _NODES if nodeids is None else len(nodeids)


def _described(nodeids: Sequence[int]) -> str:
    """The ids in words."""
    return f"1 to {len(nodeids)}" if isinstance(nodeids, range) else ", ".join(map(str, nodeids))


def _complaint(lines: Sequence[str]) -> str:
    """The reason why these lines cannot be part of a section; empty if they can."""
    depth = 0
    for line in map(str.strip, lines):
        if "\n" in line or not _LINE.fullmatch(line):
            return f"{line!r} is no line of corosync.conf, such as 'key: value'"
        depth += line.endswith("{") - (line == "}")
        if depth < 0:
            break
    return "the braces do not match" if depth else ""


@attrs.frozen(kw_only=True, repr=False)
class ClusterOptions:
    """The configuration of a cluster; see votequorum(5) and corosync.conf(5).

    Options that votequorum would refuse or ignore are a `ValueError`.
    """

    _nodeids: tuple[int, ...] | None = attrs.field(default=None, converter=_ids, alias="nodeids")
    nodes: int = attrs.field(default=attrs.Factory(_number_of, takes_self=True), validator=_number(1, MAX_NODES))
    """How many nodes, at most 253, by default 3. Two cores can start about 30 real ones in time."""
    two_node: bool = attrs.field(default=False, validator=_BOOL)
    """votequorum's two_node: one of two nodes is quorate. It turns on wait_for_all, unless that is set."""
    wait_for_all: bool | None = attrs.field(default=None, validator=attrs.validators.optional(_BOOL))
    """votequorum's wait_for_all: quorum needs all nodes once, at the start. `None` leaves it to two_node."""
    last_man_standing: bool = attrs.field(default=False, validator=_BOOL)
    """votequorum's last_man_standing: it expects fewer votes once nodes have been away for the window's time."""
    last_man_standing_window: int = attrs.field(default=_WINDOW, validator=_number(1))
    """votequorum's last_man_standing_window, in milliseconds."""
    auto_tie_breaker: bool = attrs.field(default=False, validator=_BOOL)
    """votequorum's auto_tie_breaker: half of the votes is enough for the side with a certain node."""
    auto_tie_breaker_node: str | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.instance_of(str))
    )
    """That node: ``"lowest"`` (votequorum's default), ``"highest"``, or ids in order, such as ``"3 1"``."""
    allow_downscale: bool = attrs.field(default=False, validator=_BOOL)
    """votequorum's allow_downscale: it no longer expects the votes of nodes that shut down cleanly."""
    expected_votes: int | None = attrs.field(default=None, validator=attrs.validators.optional(_number(1)))
    """votequorum's expected_votes; `None` stands for the votes of all nodes."""
    votes: Mapping[int, int] = attrs.field(default=MappingProxyType[int, int]({}), converter=_votes, hash=False)
    """The votes of nodes that do not have one vote, by node id (quorum_votes)."""
    qdevice_votes: int | None = attrs.field(default=None, validator=attrs.validators.optional(_number(0)))
    """The votes of the quorum device. With `None` no device is configured; one that still registers has no votes."""
    qdevice_timeout: int = attrs.field(default=_DEVICE_TIMEOUT, validator=_number(1))
    """The milliseconds that a quorum device may be silent."""
    qdevice_sync_timeout: int = attrs.field(default=_DEVICE_SYNC_TIMEOUT, validator=_number(1))
    """The milliseconds that a change of the membership waits for a quorum device that is alive."""
    token: int = attrs.field(default=500, validator=_number(_LEAST_TOKEN, _MOST_TOKEN))
    """totem's token timeout in milliseconds, at least 126. It has no effect on the fake, whose changes take no time.

    Waits for real nodes take it into account.
    """

    transport: Transport = attrs.field(default="knet", validator=attrs.validators.in_(TRANSPORTS))
    """totem's transport: "knet", "udpu" (unicast) or "udp" (multicast). What follows needs knet, except for IPv6."""
    links: int = attrs.field(default=1, validator=_number(1, _MOST_LINKS))
    """The number of links between the nodes, at most 8, each a network of its own."""
    ip_version: int | Sequence[int] = attrs.field(default=4, converter=_versions)
    """The IP version of all links, 4 or 6, or one for each link, such as ``(4, 6)``."""
    crypto_cipher: Cipher = attrs.field(default="none", validator=attrs.validators.in_(CIPHERS))
    """totem's crypto_cipher: "aes128", "aes192" or "aes256". The key is in a file on each node."""
    crypto_hash: Hash = attrs.field(default="none", validator=attrs.validators.in_(HASHES))
    """totem's crypto_hash: "md5", "sha1", "sha256", "sha384" or "sha512". A cipher needs one."""
    compression: Compression = attrs.field(default="none", validator=attrs.validators.in_(COMPRESSIONS))
    """totem's knet_compression_model, such as "zlib" or "lz4". A daemon built without it does not start."""

    log_level: LogLevel = attrs.field(default="info", validator=attrs.validators.in_(LOG_LEVELS))
    """How much the daemons log: "info", "debug" or "trace". The fake's log is always the same."""
    extra: Mapping[str, Sequence[str]] = attrs.field(
        default=MappingProxyType[str, Sequence[str]]({}), converter=_lines, hash=False
    )
    """Further lines of corosync.conf by section, such as ``{"system": ["qb_ipc_type: socket"]}``, at its end.

    Corosync takes the last of several values, so they replace those that other fields lead to. Their
    values are not checked: a real daemon that refuses one does not start. The fake has their keys, and votequorum's
    options among them take effect there.
    """

    def __attrs_post_init__(self) -> None:
        for wrong, complaint in self._rules():
            if wrong:
                raise ValueError(complaint)

    def votes_of(self, nodeid: int) -> int:
        """The votes of a node at the start."""
        return self.votes.get(nodeid, 1)

    @property
    def total_votes(self) -> int:
        """The votes of all nodes together at the start."""
        return sum(self.votes_of(nodeid) for nodeid in self.nodeids)

    def with_node(self, nodeid: int | None, votes: int) -> ClusterOptions:
        """These options, with a further node at the end of the node list; `None` is the id after the highest."""
        if nodeid is None:
            nodeid = max(self.nodeids) + 1
        return attrs.evolve(
            self,
            nodeids=(*self.nodeids, nodeid),
            nodes=self.nodes + 1,
            votes={**self.votes, nodeid: votes} if votes != 1 else self.votes,
        )

    def without_node(self, nodeid: int) -> ClusterOptions:
        """These options without one of the nodes."""
        if nodeid not in self.nodeids:
            raise ValueError(f"no node {nodeid!r} is among {_described(self.nodeids)}")
        return attrs.evolve(
            self,
            nodeids=tuple(other for other in self.nodeids if other != nodeid),
            nodes=self.nodes - 1,
            votes={other: votes for other, votes in self.votes.items() if other != nodeid},
        )

    def __repr__(self) -> str:
        # Only what differs from the defaults.
        usual = type(self)(nodes=self.nodes)
        settings = [
            f", {field.alias}={value!r}"
            for field in attrs.fields(type(self))
            if (value := getattr(self, field.name)) != getattr(usual, field.name)
        ]
        return f"{type(self).__name__}(nodes={self.nodes}{''.join(settings)})"

    @property
    def consensus(self) -> int:
        """Totem's consensus timeout in milliseconds: 1.2 times the token timeout, as by default."""
        return self.token * 6 // 5

    @property
    def tie_breakers(self) -> tuple[int, ...]:
        """The ids in `auto_tie_breaker_node`; empty if it is a word or `None`."""
        words = (self.auto_tie_breaker_node or "").split()
        return tuple(map(int, words)) if all(word.isdecimal() for word in words) else ()

    @property
    def nodeids(self) -> Sequence[int]:
        """The ids of the nodes in the order of the node list, which the argument `nodeids` gives; else 1 to `nodes`.

        knet takes ids up to 65535, the other transports up to 2**32 - 1.
        """
        return range(1, self.nodes + 1) if self._nodeids is None else self._nodeids

    @property
    def ip_versions(self) -> tuple[int, ...]:
        """The IP version of each link."""
        return (self.ip_version,) * self.links if isinstance(self.ip_version, int) else tuple(self.ip_version)

    @property
    def encrypts(self) -> bool:
        """Whether the packets between the nodes need a key."""
        return (self.crypto_cipher, self.crypto_hash) != ("none", "none")

    def _rules(self) -> Iterator[tuple[bool, str]]:
        """The rules of votequorum_readconfig in exec/votequorum.c: whether each is broken, and the complaint."""
        tie_breaker = self.auto_tie_breaker_node
        most = max(self.expected_votes or 0, self.total_votes + (self.qdevice_votes or 0))
        yield (
            self._nodeids is not None and len(self._nodeids) != self.nodes,
            f"nodeids must have as many ids as there are nodes, {self.nodes}: {self._nodeids}",
        )
        yield len(set(self.nodeids)) != self.nodes, f"nodeids must be different: {self._nodeids}"
        highest = 2**16 - 1 if self.transport == "knet" else 2**32 - 1
        yield (
            not all(0 < nodeid <= highest for nodeid in self.nodeids),
            f"nodeids must be 1 to {highest} with the transport {self.transport}: {self._nodeids}",
        )
        yield (
            len(self.ip_versions) != self.links or not set(self.ip_versions) <= {4, 6},
            f"ip_version must be 4 or 6, or one of these for each of the {self.links} links: {self.ip_version}",
        )
        for name in ("links", "crypto_cipher", "crypto_hash", "compression"):
            yield (
                self.transport != "knet" and getattr(self, name) not in {1, "none"},
                f"{name} needs the transport knet, not {self.transport}",
            )
        yield self.crypto_cipher != "none" and self.crypto_hash == "none", "crypto_cipher needs crypto_hash"
        yield (
            not self.votes.keys() <= set(self.nodeids),
            f"votes must be of nodes {_described(self.nodeids)}: {self.votes}",
        )
        yield any(votes < 0 for votes in self.votes.values()), f"votes must not be negative: {self.votes}"
        yield most > _MOST_VOTES, f"{most} votes are too many: votequorum counts quorum in one byte"
        yield self.two_node and self.auto_tie_breaker, "two_node and auto_tie_breaker exclude each other"
        yield (
            self.allow_downscale and self.expected_votes is not None,
            "expected_votes are ignored with allow_downscale: what was expected before counts",
        )
        yield (
            self.auto_tie_breaker and self.total_votes % 2 == 1 and not self.wait_for_all,
            "auto_tie_breaker needs wait_for_all where the number of votes is odd",
        )
        yield tie_breaker is not None and not self.auto_tie_breaker, "auto_tie_breaker_node needs auto_tie_breaker"
        yield (
            tie_breaker not in {None, "lowest", "highest"}
            and not (
                set(self.tie_breakers) <= set(self.nodeids)
                and " ".join(map(str, self.tie_breakers)) == tie_breaker != ""
            ),
            f"auto_tie_breaker_node must be 'lowest', 'highest', or ids of nodes in a row: {tie_breaker!r}",
        )
        yield (
            self.last_man_standing and any(votes > 1 for votes in self.votes.values()),
            "last_man_standing needs nodes of one vote each",
        )
        yield (
            self.last_man_standing_window != _WINDOW and not self.last_man_standing,
            "last_man_standing_window needs last_man_standing",
        )
        for name, default in (("timeout", _DEVICE_TIMEOUT), ("sync_timeout", _DEVICE_SYNC_TIMEOUT)):
            yield (
                self.qdevice_votes is None and getattr(self, f"qdevice_{name}") != default,
                f"qdevice_{name} needs qdevice_votes",
            )
        for name, lines in self.extra.items():
            yield not _SECTION.fullmatch(name), f"extra has no name of a section: {name!r}"
            complaint = _complaint(lines)
            yield bool(complaint), f"extra[{name!r}]: {complaint}"
        for name in ("two_node", "last_man_standing", "auto_tie_breaker", "allow_downscale"):
            yield self.qdevice_votes is not None and bool(getattr(self, name)), f"no quorum device beside {name}"
        yield (
            None not in {self.expected_votes, self.qdevice_votes}
            and (self.expected_votes or 0) - (self.qdevice_votes or 0) < _LEAST_BESIDE_DEVICE,
            f"expected_votes must be at least {_LEAST_BESIDE_DEVICE} more than qdevice_votes",
        )


def signed(nodeid: int) -> int:
    """A node id as votequorum compares it with others: as a signed number, so that ids from 2**31 on come first."""
    return nodeid - 2**32 if nodeid >= 2**31 else nodeid


def merge(options: ClusterOptions | None, nodes: int | None, settings: ClusterSettings) -> ClusterOptions:
    """The options that a cluster's constructor is given: ready-made ones, in which keyword arguments replace fields."""
    changes: dict[str, Any] = {**settings}
    if nodes is not None:
        changes["nodes"] = nodes
    if options is None:
        return ClusterOptions(**changes)
    _validate.instance(options, ClusterOptions, "options")
    # One of the two replaces both.
    if "nodeids" in changes:
        changes.setdefault("nodes", len(changes["nodeids"] or options.nodeids))
    elif "nodes" in changes:
        changes["nodeids"] = None
    return attrs.evolve(options, **changes) if changes else options
