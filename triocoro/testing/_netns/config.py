"""The configuration file of a node's daemon; see corosync.conf(5)."""

from __future__ import annotations

from .._cluster import ClusterOptions

STATE_DIR = "/run/triocoro"
"""Where the daemon works; on the node's own tmpfs, as the configuration file is."""

MAX_NODES = 254
"""As many as the network has addresses."""


def address(nodeid: int) -> str:
    """The address of a node, from TEST-NET-1 (RFC 5737)."""
    return f"192.0.2.{nodeid}"


def corosync_conf(options: ClusterOptions, cluster_name: str) -> str:
    """The text of corosync.conf, the same on every node.

    The timeouts follow from the token, as in production, but for these: `token_coefficient` 0, as few nodes need no
    allowance; a short `join`, which every change of membership waits for at least once; a short `merge`, which is how
    long idle rings take to notice each other; and knet's pings, so that a link is up after a single pong.
    """
    token = options.token
    quorum = ["provider: corosync_votequorum", f"two_node: {int(options.two_node)}"]
    if options.wait_for_all is not None:
        quorum.append(f"wait_for_all: {int(options.wait_for_all)}")
    nodes = "\n".join(
        f"    node {{\n        nodeid: {nodeid}\n        name: node{nodeid}\n        ring0_addr: {address(nodeid)}\n    }}"
        for nodeid in range(1, options.nodes + 1)
    )
    return f"""\
totem {{
    version: 2
    cluster_name: {cluster_name}
    transport: knet
    crypto_cipher: none
    crypto_hash: none
    token: {token}
    token_coefficient: 0
    consensus: {token * 6 // 5}
    join: 30
    interface {{
        linknumber: 0
        knet_ping_interval: {token // 5}
        knet_ping_timeout: {token // 2}
        knet_pong_count: 1
    }}
}}
system {{
    state_dir: {STATE_DIR}
    sched_rr: no
    move_to_root_cgroup: no
}}
logging {{
    to_stderr: yes
    to_syslog: no
    to_logfile: no
    timestamp: hires
}}
quorum {{
    {chr(10).join(quorum).replace(chr(10), chr(10) + "    ")}
}}
nodelist {{
{nodes}
}}
"""
