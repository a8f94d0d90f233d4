"""The in-memory cluster.

From the bottom up: `totem` (rings and ordered delivery), `icmap` and `stats` (a node's maps; `coroparse` is what the
configuration puts there), `daemon` (one node's corosync), `ipc` (the connection between a client and a daemon),
`handle` (what client libraries have in common), a service and its client library each (`cpg` and `libcpg`, `cmap` and
`libcmap`, `cfg` and `libcfg`, `quorum` and `libquorum`, `votequorum` with `votes` and `libvotequorum`), `endpoint`
(what a node serves, and the way to it), and `cluster`, what a test sees. A further service is a `daemon.Service` and a
`handle.Handle`.
"""
