"""What happened in a cluster, for the report of a failed test."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

import attrs

from .._checkers import Violation, check
from .._cluster.cluster import Cluster
from .._cluster.options import ClusterOptions
from .._history.entries import Fault, Note
from .._history.history import History
from .._history.operations import Operation
from .._timeline.evidence import Evidence
from .._timeline.logs import LogLine, notable, ring_in_log
from .._timeline.story import Condition, Kind, NodeState, Story
from .._timeline.telling import tell
from .._timeline.text import lines_of

_VIOLATIONS = 3
"""How many violations are shown."""
_EVIDENCE = 4
"""How many entries are shown of each."""
_WIDTH = 160


def explain(
    cluster: Cluster,
    logs: Mapping[int, Iterable[LogLine]],
    failure: str | None,
    violations: Sequence[Violation],
    limit: int,
) -> str:
    """What happened in a cluster: violations, the timeline with what matters of the logs, and the state at the end.

    Args:
        cluster: the cluster.
        logs: the log of each node.
        failure: why the test failed.
        violations: those that the failure is about.
        limit: the greatest number of lines of the timeline.
    """
    history = cluster.history if cluster.history is not None else History(clock=time.monotonic)
    options = _options(cluster.options, history)
    story = tell(history, options, failure=failure)
    states = story.end.states
    died = {
        nodeid
        for nodeid, node in cluster.nodes.items()
        if cluster.running and not node.running and states.get(nodeid, NodeState()).condition is Condition.UP
    }
    story = tell(history, options, log=list(_notes(history, logs, died)), died=died, failure=failure)
    if cluster.running:
        story = _corrected(story, cluster)
    if cluster.history is not None and _is_uneventful(story):
        failed = lines_of(attrs.evolve(story, end=attrs.evolve(story.end, states={})), limit)
        return "\n".join([*failed, "nothing had happened before: no client had connected, and all nodes were up"])
    evidence = _evidence(history, story, violations)
    return "\n".join([*_violations(history, options), *lines_of(story, limit, evidence)])


def _is_uneventful(story: Story) -> bool:
    up = all(state.condition is Condition.UP for state in story.end.states.values())
    return up and all(event.kind is Kind.FAILURE for event in story.events)


def _evidence(history: History, story: Story, violations: Iterable[Violation]) -> set[int]:
    """The places in the history of what shows the violations: operations, and the messages that were sent meanwhile."""
    evidence = Evidence(list(history))
    places: set[int] = set()
    for violation in violations:
        found = evidence.places(violation)
        places |= found
        for part in violation.evidence:
            if isinstance(part, Operation) and part.began in found and part.ended is not None:
                sent = {sending.index for sending in story.sendings if part.began <= sending.index < part.ended}
                places |= {part.ended} | sent
    return places


def _options(options: ClusterOptions, history: History) -> ClusterOptions | None:
    """The options; `None` if nodes came or went, so that they are not those of all the time."""
    changes = {"add_node", "remove_node"}
    return None if any(isinstance(entry, Fault) and entry.verb in changes for entry in history) else options


def _violations(history: History, options: ClusterOptions | None) -> Iterator[str]:
    if history.dropped:
        yield "the rules of Corosync were not checked: the first entries of the history are gone"
        return
    violations = check(history, options=options)
    if violations:
        yield f"{len(violations)} violations of the rules of Corosync (docs/histories.md):"
    for violation in violations[:_VIOLATIONS]:
        yield from _violation(violation)
    if len(violations) > _VIOLATIONS:
        yield f"  ... {len(violations) - _VIOLATIONS} more"


def _violation(violation: Violation) -> Iterator[str]:
    yield f"  {violation.rule.value}: {violation.text}"
    for entry in violation.evidence[:_EVIDENCE]:
        text = str(entry)
        yield f"    {text if len(text) <= _WIDTH else f'{text[:_WIDTH]}...'}"
    if len(violation.evidence) > _EVIDENCE:
        yield f"    ... {len(violation.evidence) - _EVIDENCE} more entries"


def _notes(history: History, logs: Mapping[int, Iterable[LogLine]], died: set[int]) -> Iterator[Note]:
    """What matters of the logs since the history began."""
    first, latest = (history[0].time, history[-1].time) if len(history) else (math.inf, 0.0)
    for node, log in logs.items():
        for at, text in notable(log, died=node in died):
            if at is not None and at >= first:
                yield Note(time=at, text=text, node=node)
            elif node in died:
                yield Note(time=latest, text=text, node=node)


def _corrected(story: Story, cluster: Cluster) -> Story:
    """The story, with what the cluster itself says of the state at the end, which need not have been recorded."""
    states = dict(story.end.states)
    network = story.end.network if cluster.history is not None else cluster.network
    for nodeid, node in cluster.nodes.items():
        state = states.get(nodeid, NodeState())
        if not node.running:
            state = attrs.evolve(state, condition=Condition.DOWN)
        elif cluster.history is None and node.frozen:
            state = attrs.evolve(state, condition=Condition.FROZEN)
        elif not state.members:
            state = ring_in_log(node.log, state)
        states[nodeid] = state
    return attrs.evolve(story, end=attrs.evolve(story.end, states=states, network=network))
