"""What an operator does when too few members hold the state."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final, final

import trio

import triocoro
from triocoro import Address, Endpoint, HasEndpoint, Message, MessageLost, View, Views

from ._ballots import Ballot, choose, choose_by_force
from ._errors import NotPrimaryError, RecipeError
from ._frames import OPERATOR, Ack, Found, FrameError, Offer, decode, encode

_PATIENCE: Final = 5.0  # seconds in which members must have answered


async def bootstrap(name: bytes | str, *, endpoint: Endpoint | HasEndpoint | None = None) -> None:
    """Let the members that are there go on, although too few of them hold the state: the way out after its loss.

    Call it in a program of its own. A process can be in a group once on each node.

    What this does not promise: that nothing is lost. What had been committed is kept only as far as a member that is
    there holds it. A member that holds more, and comes back later, discards it. Call it once you know that the missing
    members will not come back with their memory, for instance because their machines have restarted.

    Members on nodes with a majority of the votes must be there, and all members of the group that are there must
    answer: kill those that are stopped. They take the most advanced log among them, or begin an empty one, and get the
    seats of their nodes.

    Args:
        name: of the group: that of `open_safe_group`, `open_replica`, `open_lock` or `open_leadership`.
        endpoint: the daemon to connect to; by default the default endpoint.

    Raises:
        NotPrimaryError: no members are there, or not on nodes with a majority; or they did not answer within seconds.
        triocoro.ExistError: this process has a member in the group on this node.
        RecipeError: the group has a primary component, or can have one: there is nothing to do.
        others: as `triocoro.open_views`.

    Cancelled: the members may have done it or not.

    Source: cpg_overview(3).
    """
    async with triocoro.open_views(name, endpoint=endpoint) as views:
        operator = _Operator(views)
        with trio.move_on_after(_PATIENCE) as scope:
            await operator.run()
        if scope.cancelled_caught:
            silent = ", ".join(map(str, operator.silent()))
            raise NotPrimaryError(f"these members do not answer; kill those that are stopped, and try again: {silent}")


@final
class _Operator:
    """An observer that founds ballots."""

    def __init__(self, views: Views) -> None:
        self._views = views
        self._members: Sequence[Address] = ()
        self._offers: dict[Address, Offer] = {}

    def silent(self) -> Sequence[Address]:
        """The members that have not offered."""
        return [address for address in self._members if address not in self._offers]

    async def run(self) -> None:
        """Found a ballot to hear what there is, and another one in which force decides."""
        ballot = await self._offered(forced=False)
        claims = {offer.incarnation: offer.claim for offer in self._offers.values()}
        if choose(claims) is not None:
            raise RecipeError("there is a primary component, or there can be one: nothing to bootstrap")
        ballot = await self._offered(forced=True)
        claims = {offer.incarnation: offer.claim for offer in self._offers.values()}
        who = {address: offer.incarnation for address, offer in self._offers.items()}
        choice = choose_by_force(ballot, claims, who, self._votes())
        if choice is None:
            here = ", ".join(map(str, sorted({address.nodeid for address in self._offers})))
            raise NotPrimaryError(
                f"no majority: there are members on the nodes {here} alone, or they do not agree on `nodes`"
            )
        (config,) = choice.configs
        seats = {address for address, it in who.items() if it in config.seats.values()}
        while seats:
            sender, frame = await self._frame()
            if isinstance(frame, Ack) and frame.ballot == ballot:
                seats.discard(sender)

    def _votes(self) -> Mapping[int, int] | None:
        votes = [offer.votes for offer in self._offers.values()]
        return votes[0] if all(it == votes[0] for it in votes) else None

    async def _offered(self, *, forced: bool) -> Ballot:
        """Found a ballot, and wait until all members have offered in it."""
        founder = random.getrandbits(64)
        while self._views.view is None:
            await self._frame()
        ring = self._views.view.ring_id
        await self._views.send(encode(Found(Ballot(ring.seq, ring.nodeid, 0, founder), forced), OPERATOR))
        self._offers.clear()
        ballot: Ballot | None = None
        while ballot is None or self.silent():
            if not self._members:
                raise NotPrimaryError("there are no members of the group")
            sender, frame = await self._frame()
            if isinstance(frame, Offer) and frame.ballot.founder == founder:
                self._offers[sender] = frame
                ballot = frame.ballot
        return ballot

    async def _frame(self) -> tuple[Address, object]:
        """The next frame of a member."""
        while True:
            event = await self._views.receive()
            if isinstance(event, View):
                self._members = [it for it in event.members if it != self._views.address]
                return self._views.address, event
            if isinstance(event, MessageLost):
                await self._views.send(event.payload)
            if isinstance(event, Message):
                with suppress(FrameError):
                    return event.sender, decode(event.payload)
