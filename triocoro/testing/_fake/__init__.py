"""The in-memory Corosync, laid out as Corosync's own sources.

- `cluster`: `FakeCluster` and `FakeNode`, which tests use.
- `endpoint`: the services of a node, and the endpoint through which clients connect.
- `lib/`: the client libraries. `handle` is their base class; each service has a module.
- `exec/`: the daemon. From the bottom up:
    - `ring`, `jobs`: memberships and messages; jobs of a daemon and pending replies.
    - `icmap`: a map of keys with trackers. `coroparse`, `totemconfig`, `voteconfig` read and write configuration in it;
      `stats` is the map of statistics.
    - `service`: the base classes of services, and a client's connection as they see it. `trackers`: clients that track.
    - `daemon`: one corosync process with its services, connections and queue of jobs.
    - `totem`: the network of all daemons, which forms rings and delivers messages in order. `transit`: latency.
    - `ipc`: the connection between a client and a daemon, with the ring buffers and the socket of libqb.
    - The services: `cpg`, `cmap`, `cfg`, `quorum`, `votequorum`; the latter with `votes` (arithmetic) and `qdevice`.

A new service is a `Service` or `Synchronised` in `exec/`, a `FakeHandle` in `lib/`, and its entries in `endpoint`.
"""
