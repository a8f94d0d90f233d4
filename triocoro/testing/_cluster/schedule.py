"""Schedules of faults: values that say what happens to a cluster, and when."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, cast

import attrs

from .network import ALL

NODE_VERBS: Final = ("freeze", "thaw", "kill", "stop", "start", "restart")
"""The verbs of a node; their argument is its id."""


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _are_nodes(value: object) -> bool:
    return isinstance(value, tuple) and all(map(_is_number, cast("tuple[object, ...]", value)))


def _is_loss(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= ALL


def _fit(arguments: tuple[object, ...], *kinds: Callable[[object], bool], optional: int = 0) -> bool:
    """Whether there is an argument of each kind; as many of the last ones as `optional` may be missing."""
    return len(kinds) - optional <= len(arguments) <= len(kinds) and all(
        fits(argument) for fits, argument in zip(kinds, arguments, strict=False)
    )


_SHAPES: Final[Mapping[str, tuple[str, Callable[[tuple[object, ...]], bool]]]] = {
    "partition": ("the nodes of each side", lambda sides: bool(sides) and all(map(_are_nodes, sides))),
    "isolate": ("a node", lambda arguments: _fit(arguments, _is_number)),
    "cut": (
        "the source, the target and, for one link only, its number",
        lambda arguments: _fit(arguments, _is_number, _is_number, _is_number, optional=1),
    ),
    "lose": (
        "the loss in per cent (0 to 100) and, unless it is for all, the nodes",
        lambda arguments: _fit(arguments, _is_loss, _are_nodes, optional=1),
    ),
    "heal": ("nothing", lambda arguments: not arguments),
    **dict.fromkeys(NODE_VERBS, ("a node", lambda arguments: _fit(arguments, _is_number))),
}
"""The arguments of each verb, in words, and whether some fit."""


def _frozen(value: object) -> Any:  # noqa: ANN401 - it takes any type
    """Tuples for lists and sets."""
    if isinstance(value, (set, frozenset)):
        return tuple(sorted(cast("Iterable[Any]", value)))
    return tuple(map(_frozen, cast("Iterable[object]", value))) if isinstance(value, (list, tuple)) else value


def _arguments(value: Iterable[object]) -> tuple[Any, ...]:
    if isinstance(value, (str, bytes)) or not isinstance(cast("object", value), Iterable):
        raise TypeError(f"the arguments of a verb must be a list or tuple, not {value!r}")
    return tuple(map(_frozen, value))


def _seconds(_: object, __: object, at: float) -> None:
    if not isinstance(cast("object", at), (int, float)) or isinstance(at, bool):
        raise TypeError(f"the time of a step must be a number of seconds, not {at!r}")
    if not 0 <= at < math.inf:
        raise ValueError(f"the time of a step must be 0 seconds or more, and finite, not {at!r}")


@attrs.frozen(repr=False)
class FaultStep:
    """A fault, or a repair, at a moment of a `FaultSchedule`.

    Raises:
        ValueError: there is no such verb, it takes other arguments, or the time is negative or not finite.
        TypeError: the time is no number, or the arguments are no list.
    """

    at: float = attrs.field(validator=_seconds)
    """The seconds since the schedule began."""
    verb: str
    """A method of `Cluster` (``partition``, ``isolate``, ``cut``, ``lose``, ``heal``) or `Node` (``freeze``, ``thaw``,
    ``kill``, ``stop``, ``start``, ``restart``).
    """
    arguments: tuple[Any, ...] = attrs.field(default=(), converter=_arguments)
    """Its arguments, in their order: the id of the node for a method of `Node`, a tuple of node ids for each side of a
    ``partition``, ``(source, target)`` or ``(source, target, link)`` for ``cut``, ``(percent,)`` or ``(percent,
    nodes)`` for ``lose``. Lists and sets become tuples.
    """

    def __attrs_post_init__(self) -> None:
        if self.verb not in _SHAPES:
            raise ValueError(f"there is no verb {self.verb!r}; the verbs are {', '.join(_SHAPES)}")
        words, fits = _SHAPES[self.verb]
        if not fits(self.arguments):
            raise ValueError(f"the arguments of {self.verb} are {words}, not {self.arguments!r}")

    def __repr__(self) -> str:
        arguments = f", {self.arguments!r}" if self.arguments else ""
        return f"FaultStep({self.at!r}, {self.verb!r}{arguments})"

    @property
    def nodeids(self) -> frozenset[int]:
        """The nodes that the step names."""
        if self.verb == "partition":
            return frozenset(nodeid for side in self.arguments for nodeid in side)
        if self.verb == "lose":
            return frozenset(self.arguments[1]) if len(self.arguments) > 1 else frozenset()
        return frozenset(self.arguments[:2])


def _steps(value: Iterable[FaultStep]) -> tuple[FaultStep, ...]:
    steps = tuple(value)
    for step in steps:
        if not isinstance(step, FaultStep):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers need not be typed
            raise TypeError(f"a schedule consists of FaultSteps, not of {type(step).__name__}")
    for before, after in itertools.pairwise(steps):
        if after.at < before.at:
            raise ValueError(f"the steps of a schedule must be in the order of their times: {before} is before {after}")
    return steps


@attrs.frozen(repr=False)
class FaultSchedule:
    """What happens to a cluster, and when. `Cluster.nemesis` plays it.

    Its repr is code that builds it again, and so is its text, with a line for each step.

    Raises:
        ValueError: the steps are not in the order of their times.
        TypeError: they are no steps.
    """

    steps: tuple[FaultStep, ...] = attrs.field(default=(), converter=_steps)
    """The steps, in the order of their times."""

    def __repr__(self) -> str:
        return f"FaultSchedule([{', '.join(map(repr, self.steps))}])"

    def __str__(self) -> str:
        lines = "".join(f"    {step!r},\n" for step in self.steps)
        return f"FaultSchedule([\n{lines}])" if lines else repr(self)

    def _repr_pretty_(self, printer: Any, cycle: object) -> None:  # noqa: ANN401 - a class of IPython or Hypothesis
        """Write it with a line for each step where IPython or Hypothesis show it."""
        del cycle
        with printer.group(4, "FaultSchedule([", "])"):
            for step in self.steps:
                printer.break_()
                printer.text(f"{step!r},")

    @property
    def nodeids(self) -> frozenset[int]:
        """The nodes that the steps name."""
        return frozenset[int]().union(*(step.nodeids for step in self.steps))

    def to_json(self) -> str:
        """Return the schedule as JSON: a list of steps, each on its line, with `at`, `verb` and `arguments`."""
        lines = ",\n".join(json.dumps(attrs.asdict(step)) for step in self.steps)
        return f"[\n{lines}\n]\n"

    @classmethod
    def from_json(cls, text: str) -> FaultSchedule:
        """Return the schedule that `to_json` turned into text. `arguments` may be missing where there are none.

        Raises:
            ValueError: the text is no such JSON.
        """
        found: object = json.loads(text)
        if not isinstance(found, list):
            raise ValueError(f"not a list of steps: {text!r}")  # noqa: TRY004 - the text is wrong
        steps: list[FaultStep] = []
        for fields in cast("list[object]", found):
            try:
                steps.append(FaultStep(**cast("dict[str, Any]", fields)))
            except TypeError as error:
                raise ValueError(f"not a step of a schedule: {fields!r} ({error})") from None
        return cls(tuple(steps))
