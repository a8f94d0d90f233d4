"""Turns random numbers into schedules of faults.

The numbers of each step are independent of those of the others, so that a search can leave steps out, and make the
numbers smaller, one at a time. Steps that do not apply, or would impair more than is allowed, are left out.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Final, TypeAlias, TypedDict, cast

import attrs

from ... import _validate
from .._cluster.network import ALL, Network
from .._cluster.options import ClusterOptions
from .._cluster.schedule import FaultSchedule, FaultStep

if TYPE_CHECKING:
    from typing_extensions import Unpack  # in typing from Python 3.11 on

USUAL: Final = ("isolate", "partition", "freeze", "kill", "stop", "restart")
"""The faults without those after which real nodes may need long to agree on a ring."""

_FAULTS: Final = (*USUAL, "cut", "lose")
_MEND: Final = "mend"
"""Stands for a step that undoes an earlier one."""
_LOSSES: Final = (ALL, 10)
_HARMFUL: Final = 15
"""The loss in per cent from which on nodes lose each other."""
_HALF: Final = 2

Numbers: TypeAlias = "tuple[int, str, int]"
"""A step: its time in milliseconds, its verb or `_MEND`, and a number that decides on its arguments."""


class ScheduleSettings(TypedDict, total=False):
    """The arguments of `fault_schedules` and `random_schedule`."""

    options: ClusterOptions
    """The cluster's configuration, for the ids and votes of its nodes; by default, it has three nodes."""
    verbs: Collection[str]
    """The faults, out of ``isolate``, ``partition``, ``freeze``, ``kill``, ``stop``, ``restart``, which are the
    default, ``cut`` and ``lose``. Repairs (``heal``, ``thaw``, ``start``) come by themselves.
    """
    steps: int
    """The maximum number of faults and repairs, without those at the end; 6 by default."""
    seconds: float
    """The time that the steps are spread over; 10 seconds by default."""
    heal: bool
    """Whether the last steps, at the end of that time, repair everything; true by default."""
    minority: bool
    """Whether nodes with a majority of the votes are up and connected all the time, which is the default. Otherwise
    anything goes.
    """


def _names(verbs: Collection[str]) -> tuple[str, ...]:
    return tuple(verbs)


@attrs.frozen(kw_only=True)
class Knobs:
    """The settings, checked and complete."""

    options: ClusterOptions = attrs.field(
        factory=ClusterOptions, validator=attrs.validators.instance_of(ClusterOptions)
    )
    verbs: tuple[str, ...] = attrs.field(default=USUAL, converter=_names)
    steps: int = 6
    seconds: float = 10
    heal: bool = True
    minority: bool = True

    def __attrs_post_init__(self) -> None:
        unknown = [verb for verb in self.verbs if verb not in _FAULTS]
        if unknown or not self.verbs:
            raise ValueError(f"verbs must be some of {', '.join(_FAULTS)}, not {', '.join(unknown) or 'none'}")
        _validate.positive(self.steps, "steps")
        FaultStep(self.seconds, "heal")  # which checks the time
        for name in ("heal", "minority"):
            _validate.boolean(getattr(self, name), name)
        if self.minority and not any(_State(self.options).take("kill", (nodeid,)) for nodeid in self.options.nodeids):
            raise ValueError(
                f"a cluster of {self.options.nodes} nodes with these votes has no majority without one of them; for"
                " faults nevertheless, pass minority=False"
            )

    @property
    def milliseconds(self) -> int:
        """The time that the steps are spread over."""
        return round(self.seconds * 1000)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The second number of each step is one of these."""
        return (*self.verbs, _MEND)

    @property
    def choices(self) -> int:
        """The third number of each step is less than this: enough for every pair of nodes, and for every partition."""
        number: int = self.options.nodes
        return max(1 << (number - 1), 2 * number**2)


def schedule_of(knobs: Knobs, steps: Iterable[Numbers]) -> FaultSchedule:
    """The schedule that these numbers stand for."""
    state = _State(knobs.options)
    found: list[FaultStep] = []
    for milliseconds, verb, choice in sorted(steps, key=lambda step: step[0]):
        chosen = state.choose(verb, choice)
        if chosen is not None and state.take(*chosen, minority=knobs.minority):
            found.append(FaultStep(milliseconds / 1000, *chosen))
    if knobs.heal:
        found += [FaultStep(knobs.seconds, *repair) for repair in state.repairs()]
    return FaultSchedule(found)


def random_schedule(chance: random.Random | None = None, **settings: Unpack[ScheduleSettings]) -> FaultSchedule:
    """Return a schedule of faults at random times.

    Args:
        chance: random numbers; by default those of Python's `random`, which `seeded`, `seeded_run` and the marker
            `corosync_seeds` seed.
        settings: see `ScheduleSettings`.

    Raises:
        ValueError: a setting is wrong, or a minority has no nodes.
        TypeError: a setting is wrong, or `chance` is no `random.Random`.
    """
    if chance is not None:
        _validate.instance(chance, random.Random, "chance")
    knobs = Knobs(**settings)
    numbers = random.Random(random.getrandbits(64)) if chance is None else chance  # noqa: S311 - to be repeated
    return schedule_of(
        knobs,
        [
            (numbers.randint(0, knobs.milliseconds), numbers.choice(knobs.kinds), numbers.randrange(knobs.choices))
            for _ in range(knobs.steps)
        ],
    )


_Verb: TypeAlias = "tuple[str, tuple[object, ...]]"
"""A verb and its arguments."""


class _State:
    """What the steps so far have made of a cluster."""

    def __init__(self, options: ClusterOptions) -> None:
        self._options = options
        self._nodes = sorted(options.nodeids)
        self._network = Network(frozenset(self._nodes), options.links)
        self._repairs: dict[int, str] = {}

    def choose(self, verb: str, choice: int) -> _Verb | None:
        """The arguments that a number stands for; `None` if the verb does not apply."""
        if verb == "partition":
            return self._choose_sides(choice)
        candidates = list(self._candidates(verb))
        return candidates[choice % len(candidates)] if candidates else None

    def _candidates(self, verb: str) -> Iterator[_Verb]:
        nodes = self._nodes
        if verb == _MEND:
            yield from self.repairs()
        elif verb == "cut":
            yield from ((verb, pair) for pair in itertools.permutations(nodes, 2))
        elif verb == "lose":
            yield from ((verb, (percent, (nodeid,))) for percent in _LOSSES for nodeid in nodes)
        else:
            yield from ((verb, (nodeid,)) for nodeid in nodes if verb == "isolate" or nodeid not in self._repairs)

    def _choose_sides(self, choice: int) -> _Verb | None:
        """A partition into two sides; there may be too many to list them."""
        first, *others = self._nodes
        if not others:
            return None
        bits = choice % (2 ** len(others) - 1) + 1
        there = tuple(nodeid for bit, nodeid in enumerate(others) if bits >> bit & 1)
        return "partition", ((first, *(nodeid for nodeid in others if nodeid not in there)), there)

    def take(self, verb: str, arguments: tuple[object, ...], *, minority: bool = True) -> bool:
        """Take a step, unless it leaves no majority and that is forbidden; returns whether it was taken."""
        network, repairs = self._network, dict(self._repairs)
        nodeid = cast("int", arguments[0]) if arguments else 0
        if verb == "partition":
            network = network.partition(cast("tuple[tuple[int, ...], ...]", arguments))
        elif verb == "isolate":
            network = network.isolate(nodeid)
        elif verb == "cut":
            network = network.cut_off(nodeid, cast("int", arguments[1]))
        elif verb == "lose":
            network = network.lose(nodeid, cast("tuple[int, ...]", arguments[1]))
        elif verb == "heal":
            network = network.healed()
        elif verb in {"thaw", "start"}:
            del repairs[nodeid]
        else:
            repairs[nodeid] = "thaw" if verb == "freeze" else "start"
        if minority and not self._has_majority(network, repairs):
            return False
        if verb == "restart":
            del repairs[nodeid]
        self._network, self._repairs = network, repairs
        return True

    def repairs(self) -> Iterator[_Verb]:
        """The steps that undo the ones so far."""
        if self._network != self._network.healed():
            yield "heal", ()
        for nodeid, verb in sorted(self._repairs.items()):
            yield verb, (nodeid,)

    def _has_majority(self, network: Network, impaired: Collection[int]) -> bool:
        lossy = {nodeid for nodeid, percent in network.loss.items() if percent >= _HARMFUL}
        up = [nodeid for nodeid in self._nodes if nodeid not in impaired and nodeid not in lossy]
        votes = {nodeid: self._options.votes.get(nodeid, 1) for nodeid in self._nodes}
        return any(
            sum(votes[nodeid] for nodeid in ring) * _HALF > sum(votes.values())
            for ring in network.rings(up, lambda _: False)
        )
