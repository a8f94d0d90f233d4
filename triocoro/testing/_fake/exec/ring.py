"""A ring, which is what Totem calls a membership, and a message to its members."""

from __future__ import annotations

import attrs

from ...._types import RingId


@attrs.frozen(eq=False)
class Ring:
    """A membership. Two rings are the same only if they are the same object."""

    ring_id: RingId
    members: tuple[int, ...]


@attrs.frozen
class Multicast:
    """A message from one node to a service on every node of its ring, itself included."""

    ring: Ring
    sender: int
    service: str
    message: object
