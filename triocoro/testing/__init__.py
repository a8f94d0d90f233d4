"""Throwaway Corosync clusters for tests, demonstrations and experiments.

`FakeCluster` runs in memory and starts at once. `NetnsCluster` runs real daemons, each in its own network and mount
namespaces. Both are a `Cluster`: the same test runs on either. A `History` records what clients do and see, and `check`
reports what Corosync would not have done; `timeline` tells what happened. `seeded_run` makes a run that can be
repeated.

A test framework can build its own fixtures on the rest, as the pytest plugin does: a `ClusterSource` lends clusters to
tests, and reuses real ones; `missing_requirements` says what real clusters lack on this machine.
"""

from .._endpoint import process_default_endpoint
from .._public import show_public_path as _show_public_path
from .._reached import reached
from ._checkers import Rule, Violation, check
from ._cluster.cluster import Cluster
from ._cluster.node import Node
from ._cluster.options import ClusterOptions, ClusterSettings
from ._cluster.schedule import FaultSchedule, FaultStep
from ._exploring.drawing import ScheduleSettings, random_schedule
from ._exploring.explore import explore, fault_schedules
from ._fake.cluster import FakeCluster
from ._history.entries import (
    Call,
    Cancellation,
    Delivery,
    Entry,
    Failure,
    Fault,
    Invocation,
    Loss,
    Note,
    Outcome,
    OutcomeStatus,
    Return,
)
from ._history.history import History
from ._history.operations import Operation, OperationResult
from ._history.recording import RecordingEndpoint
from ._history.undecided import UndecidedError
from ._linearizability.checking import check_linearizable
from ._netns.cluster import NetnsCluster
from ._netns.installation import describe_daemon, describe_libraries, describe_user
from ._netns.requirements import missing_requirements
from ._netns.supervisor_process import end_with_parent
from ._places import Places
from ._pool.pool import NetnsClusterPool
from ._pool.source import (
    ClusterLoan,
    ClusterSource,
    FakeClusterSource,
)
from ._seeded import seeded, seeded_run
from ._stuck import StuckError, fail_when_stuck
from ._tasks import describe_tasks
from ._timeline.page import timeline_page
from ._timeline.text import timeline

__all__ = [
    "Call",
    "Cancellation",
    "Cluster",
    "ClusterLoan",
    "ClusterOptions",
    "ClusterSettings",
    "ClusterSource",
    "Delivery",
    "Entry",
    "Failure",
    "FakeCluster",
    "FakeClusterSource",
    "Fault",
    "FaultSchedule",
    "FaultStep",
    "History",
    "Invocation",
    "Loss",
    "NetnsCluster",
    "NetnsClusterPool",
    "Node",
    "Note",
    "Operation",
    "OperationResult",
    "Outcome",
    "OutcomeStatus",
    "Places",
    "RecordingEndpoint",
    "Return",
    "Rule",
    "ScheduleSettings",
    "StuckError",
    "UndecidedError",
    "Violation",
    "check",
    "check_linearizable",
    "describe_daemon",
    "describe_libraries",
    "describe_tasks",
    "describe_user",
    "end_with_parent",
    "explore",
    "fail_when_stuck",
    "fault_schedules",
    "missing_requirements",
    "process_default_endpoint",
    "random_schedule",
    "reached",
    "seeded",
    "seeded_run",
    "timeline",
    "timeline_page",
]

_show_public_path(__name__, globals())
