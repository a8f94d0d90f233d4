"""What safe groups, replicas, locks and leaderships have in common: a status, and an electorate."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Generic, TypeVar

from ._member import Member, Status
from ._validate import checked_nodes

T = TypeVar("T")


class Participant(Generic[T]):
    """The base of `SafeGroup`, `Replica`, `Lock` and `Leadership`: it has a status, and can change the electorate."""

    def __init__(self, member: Member[T]) -> None:
        self._member = member

    def __repr__(self) -> str:
        return f"<triocoro.recipes.{type(self).__name__} {self._member.label}, {self._member.agreement.state.value}>"

    @property
    def primary(self) -> bool:
        """Whether messages can be committed now, as far as this member knows."""
        return self._member.primary

    def status(self) -> Status:
        """Return what this member knows of the group: who is missing, who is behind."""
        return self._member.status()

    async def change_nodes(self, nodes: Mapping[int, int] | Collection[int]) -> None:
        """Change the electorate, once majorities of the old and of the new one agree.

        Args:
            nodes: votes by node, or nodes with a vote each. A node without a member gets its vote once it has one.

        Raises:
            TypeError, ValueError: as `open_safe_group`.
            NotPrimaryError: there is no majority, of the old electorate or of the new one. The electorate stays.
            UncertainError: the change was sent, and then the majority or the connection was lost.
            trio.ClosedResourceError: the block that opened it has ended.

        Cancelled: the electorate may be changed or not.

        Source: votequorum(5) has the votes of Corosync, which these are not.
        """
        await self._member.change_nodes(checked_nodes(nodes))

    async def wait_primary(self) -> None:
        """Wait until messages can be committed, and this member votes for its node if that falls to it.

        Raises:
            trio.ClosedResourceError: the block that opened it has ended.

        Cancelled: nothing has changed.
        """
        await self._member.wait_primary()
