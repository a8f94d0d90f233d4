"""Write the daemons' configuration file; see corosync.conf(5)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias

from .addresses import Addresses
from .options import ClusterOptions, LogLevel

STATE_DIR = "/run/triocoro"
"""The daemon's working directory, on the node's own tmpfs; the configuration file is there, too."""

KEY_FILE: Final = f"{STATE_DIR}/authkey"
"""The file with the key of a cluster that encrypts or authenticates."""

KEY_BYTES: Final = 64
"""Random bytes of a key; in hexadecimal they are 128 characters, the minimum of knet."""

_DEBUG: Final[dict[LogLevel, str]] = {"info": "off", "debug": "on", "trace": "trace"}

_Entry: TypeAlias = "tuple[str, str | int | Sequence[_Entry]] | str"
"""A key with its value, a section with its entries, or a line as it is."""


def corosync_conf(options: ClusterOptions, addresses: Addresses, cluster_name: str) -> str:
    """The text of corosync.conf, the same on every node.

    Args:
        options: the configuration of the cluster.
        addresses: the addresses of its nodes.
        cluster_name: its name.
    """
    token = options.token
    totem: list[_Entry] = [
        ("version", 2),
        ("cluster_name", cluster_name),
        ("transport", options.transport),
        ("crypto_cipher", options.crypto_cipher),
        ("crypto_hash", options.crypto_hash),
        ("token", token),
        # The token timeout is the one in the options, whatever the number of nodes.
        ("token_coefficient", 0),
        ("consensus", options.consensus),
        # Each change of membership takes at least this long. If it is shorter, joins overtake each other.
        ("join", 30),
    ]
    if options.encrypts:
        totem.append(("keyfile", KEY_FILE))
    if options.compression != "none":
        totem.append(("knet_compression_model", options.compression))
    if options.transport == "knet":
        totem.extend(("interface", _interface(link, token)) for link in range(options.links))
    elif options.transport == "udp" and options.ip_versions == (6,):
        # The multicast address is derived from it.
        totem.append(("ip_version", "ipv6"))
    system: list[_Entry] = [
        ("state_dir", STATE_DIR),
        # Ordinary users are not allowed to do either, and a test's daemons should have no priority over all else.
        ("sched_rr", "no"),
        ("move_to_root_cgroup", "no"),
    ]
    logging: list[_Entry] = [
        ("to_stderr", "yes"),
        ("to_syslog", "no"),
        ("to_logfile", "no"),
        ("timestamp", "hires"),
        ("debug", _DEBUG[options.log_level]),
    ]
    nodelist: list[_Entry] = [
        (
            "node",
            [
                ("nodeid", nodeid),
                ("name", f"node{nodeid}"),
                *((f"ring{link}_addr", address) for link, address in enumerate(addresses.of(nodeid))),
                ("quorum_votes", options.votes_of(nodeid)),
            ],
        )
        for nodeid in options.nodeids
    ]
    sections: dict[str, Sequence[_Entry]] = {
        "totem": totem,
        "system": system,
        "logging": logging,
        "quorum": list(_quorum(options)),
        "nodelist": nodelist,
    }
    for name, lines in options.extra.items():
        sections[name] = [*sections.get(name, ()), *lines]
    return "\n".join([*_lines(list(sections.items())), ""])


def _interface(link: int, token: int) -> list[_Entry]:
    return [
        ("linknumber", link),
        # A dead link must be noticed before the token is lost. A single pong marks a link as up.
        ("knet_ping_interval", token // 5),
        ("knet_ping_timeout", token // 2),
        ("knet_pong_count", 1),
    ]


def _quorum(options: ClusterOptions) -> Iterator[_Entry]:
    """The entries of the section `quorum`; see votequorum(5)."""
    yield "provider", "corosync_votequorum"
    yield "two_node", int(options.two_node)
    # `None` differs from False: two_node turns it on if it is absent.
    if options.wait_for_all is not None:
        yield "wait_for_all", int(options.wait_for_all)
    yield "last_man_standing", int(options.last_man_standing)
    yield "last_man_standing_window", options.last_man_standing_window
    yield "auto_tie_breaker", int(options.auto_tie_breaker)
    if options.auto_tie_breaker_node is not None:
        yield "auto_tie_breaker_node", options.auto_tie_breaker_node
    yield "allow_downscale", int(options.allow_downscale)
    if options.expected_votes is not None:
        yield "expected_votes", options.expected_votes
    if options.qdevice_votes is not None:
        yield (
            "device",
            [
                ("model", "net"),
                ("votes", options.qdevice_votes),
                ("timeout", options.qdevice_timeout),
                ("sync_timeout", options.qdevice_sync_timeout),
            ],
        )


def _lines(entries: Sequence[_Entry], indent: str = "") -> Iterator[str]:
    for entry in entries:
        if isinstance(entry, str):
            yield f"{indent}{entry}"
            continue
        key, value = entry
        if isinstance(value, (str, int)):
            yield f"{indent}{key}: {value}"
        else:
            yield f"{indent}{key} {{"
            yield from _lines(value, indent + "    ")
            yield f"{indent}}}"
