"""The states of a member of an agreement, and what leads from one to the next: see docs/recipes/agreement.md."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final


class State(enum.Enum):
    """What a member does."""

    AWAY = "away"
    OFFERING = "offering"
    FETCHING = "fetching"
    RESTORING = "restoring"
    ADOPTED = "adopted"
    PRIMARY = "primary"


class Event(enum.Enum):
    """What ends a state."""

    APART = "the connection is lost, or the numbers of the rings have gone back"
    BALLOT = "a ballot begins: a ring, or a founding, also one of its own"
    HAS_LOG = "it has the log that was chosen"
    LACKS_LOG = "a log was chosen, and it lacks a part of it"
    CUT_OFF = "no holder has the entries after its own any more, or its log is another one"
    RESTORED = "the snapshot is whole"
    ESTABLISHED = "a majority has acknowledged the log that was chosen; all seats, if it has no entries"


_ALWAYS: Final = {Event.APART: State.AWAY, Event.BALLOT: State.OFFERING}
TRANSITIONS: Final[Mapping[State, Mapping[Event, State]]] = {
    State.AWAY: _ALWAYS,
    State.OFFERING: {**_ALWAYS, Event.HAS_LOG: State.ADOPTED, Event.LACKS_LOG: State.FETCHING},
    State.FETCHING: {**_ALWAYS, Event.HAS_LOG: State.ADOPTED, Event.CUT_OFF: State.RESTORING},
    State.RESTORING: {**_ALWAYS, Event.RESTORED: State.FETCHING},
    State.ADOPTED: {**_ALWAYS, Event.ESTABLISHED: State.PRIMARY},
    State.PRIMARY: _ALWAYS,
}
"""The state that follows, by the present one and what ends it. Nothing else may end a state."""
