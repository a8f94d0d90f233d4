"""The options of the plugin, from the command line, the ini file or the defaults, and the markers of a test."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast

import pytest

if TYPE_CHECKING:
    from triocoro.testing import ClusterOptions

Mode: TypeAlias = Literal["real", "fake"]
"""The kind of a session's clusters."""

MODES: Final[tuple[Mode, ...]] = ("real", "fake")

REAL_RUNS: Final = 3
"""The runs of a test with seeds on real clusters, unless the command line says otherwise: they take real time."""

MARKERS: Final = {
    "corosync(*, nodes, ...)": (
        "the options of the cluster that `corosync` and `corosync_cluster` give this test (the fields of"
        " triocoro.testing.ClusterOptions); they take precedence over the command line and the ini file"
    ),
    "corosync_seeds(n, *, latency, jitter)": (
        "run this test on the fake under the seeds 0 to n - 1, in virtual time, until one fails; its fixtures of"
        " function scope are made anew for each; latency and jitter are those of `triocoro.testing.FakeCluster`; with"
        f" --corosync=real, run it {REAL_RUNS} times in real time"
    ),
    "corosync_real_only(*, reason)": "skip this test unless --corosync=real; the reason, if there is one, is printed",
    "corosync_fake_only(*, reason)": "skip this test unless --corosync=fake; the reason, if there is one, is printed",
}

_MODE_HELP: Final = "what the clusters of the tests are: real daemons in network namespaces, or an in-memory fake"

_SETTINGS: Final = {
    "nodes": ("N", "how many nodes `corosync_cluster` and `make_corosync_cluster()` have (default: 3)"),
    "token": ("MS", "totem's token timeout in milliseconds; the fake only stores it (default: 500)"),
    "log_level": (
        "LEVEL",
        "how much the daemons log: info, debug or trace; the fake's log is the same (default: info)",
    ),
}
"""The fields of `ClusterOptions` that have a command-line option and an ini value: metavar and help text."""

_TIMES: Final = {
    "latency": "seconds that a message takes to each node of a fake cluster",
    "jitter": "the most random seconds that are added to the latency",
}
"""The arguments of `FakeCluster` that tests with seeds have; each has a command-line option and an ini value."""
_TIMEOUT_HELP: Final = (
    "seconds of real time that a test with a cluster may take, its fixtures aside; then it is cancelled and fails, and"
    " its report says where its tasks were (default: no limit)"
)
_LOGS_HELP: Final = "add the whole log of each node to the report of a failed test"

_HISTORY: Final[tuple[str, ...]] = ("on", "off")
_HISTORY_HELP: Final = (
    "record what happens in the clusters of each test, for its report; a test with the fixture corosync_history is"
    " recorded anyway"
)

_TIMELINE_HELP: Final = (
    "the folder for a page of each test with a cluster, which shows in a browser what happened: docs/timeline.md"
)

_MODE: Final = pytest.StashKey[Mode]()
_TIMELINE: Final = pytest.StashKey["Path | None"]()
_DEFAULTS: Final = pytest.StashKey[Mapping[str, Any]]()
_SOURCES: Final = pytest.StashKey[Mapping[str, str]]()
"""The option or ini line that each of these comes from, for error messages."""


def add_options(parser: pytest.Parser) -> None:
    """Add the options and the ini values."""
    group = parser.getgroup("corosync", "Corosync clusters")
    group.addoption("--corosync", choices=MODES, default=None, help=f"{_MODE_HELP} (default: fake)")
    parser.addini("corosync", f"{_MODE_HELP}; --corosync takes precedence", default=None)
    for name, (metavar, text) in _SETTINGS.items():
        option = _option(name)
        hint = "a test's marker and its arguments to make_corosync_cluster take precedence"
        group.addoption(option, metavar=metavar, default=None, help=f"{text}; {hint}")
        parser.addini(f"corosync_{name}", f"{text}; {option}, {hint}", default=None)
    for name, text in _TIMES.items():
        option = _option(name)
        hint = "for tests marked corosync_seeds, whose marker takes precedence"
        group.addoption(option, metavar="SECONDS", default=None, help=f"{text}; {hint} (default: 0)")
        parser.addini(f"corosync_{name}", f"{text}; {option}, {hint}", default=None)
    group.addoption(
        "--corosync-seeds",
        metavar="N",
        default=None,
        help="run tests marked corosync_seeds under this many seeds, whatever their marker says",
    )
    group.addoption(
        "--corosync-seed",
        metavar="SEED",
        default=None,
        help="run tests marked corosync_seeds under this seed only, to repeat a failure",
    )
    group.addoption("--corosync-timeout", metavar="SECONDS", default=None, help=_TIMEOUT_HELP)
    parser.addini("corosync_timeout", f"{_TIMEOUT_HELP}; --corosync-timeout takes precedence", default=None)
    group.addoption("--corosync-logs", action="store_true", help=_LOGS_HELP)
    group.addoption("--corosync-history", choices=_HISTORY, default=None, help=f"{_HISTORY_HELP} (default: on)")
    parser.addini("corosync_history", f"{_HISTORY_HELP}; --corosync-history takes precedence", default=None)
    group.addoption("--corosync-timeline", metavar="DIR", default=None, help=f"{_TIMELINE_HELP} (default: no pages)")
    parser.addini("corosync_timeline", f"{_TIMELINE_HELP}; --corosync-timeline takes precedence", default=None)
    group.addoption(
        "--corosync-keep",
        action="store_true",
        help="leave the cluster of a failed test as it was at the failure, and print how to enter its nodes and how to"
        " end it; also leave the clusters that exist when the session ends or pytest is killed (needs --corosync=real;"
        " best with -x or --maxfail, since each failed test leaves daemons)",
    )


def resolve(config: pytest.Config) -> None:
    """Determine the options of the session. An invalid one is a usage error that says where it comes from."""
    for marker, text in MARKERS.items():
        config.addinivalue_line("markers", f"{marker}: {text}")
    config.stash[_MODE] = _lookup_mode(config)
    if keep(config) and mode(config) != "real":
        raise pytest.UsageError("--corosync-keep needs --corosync=real: a fake cluster ends with its test's process")
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for name in _SETTINGS:
        text, source = _lookup(config, name)
        if text is not None:
            values[name], sources[name] = _parse(name, text, source), source
    for name in _TIMES:
        seconds(config, name)
    seeds(config)
    seed(config)
    timeout(config)
    history(config)
    config.stash[_DEFAULTS] = values
    config.stash[_SOURCES] = sources
    config.stash[_TIMELINE] = _lookup_timeline(config)


def mode(config: pytest.Config) -> Mode:
    """Return the kind of the session's clusters."""
    return config.stash[_MODE]


def keep(config: pytest.Config) -> bool:
    """Whether to keep the clusters of failed tests running."""
    return bool(config.getoption("corosync_keep"))


def seed(config: pytest.Config) -> int | None:
    """The only seed for tests with seeds, if there is one."""
    text = config.getoption("corosync_seed")
    return None if text is None else _whole(text, f"--corosync-seed={text}", minimum=0)


def seeds(config: pytest.Config) -> int | None:
    """How many seeds the command line sets for tests with seeds."""
    text = config.getoption("corosync_seeds")
    return None if text is None else _whole(text, f"--corosync-seeds={text}", minimum=1)


def seconds(config: pytest.Config, name: str) -> float:
    """The value of an option that is a number of seconds."""
    text, source = _lookup(config, name)
    if text is None:
        return 0
    with suppress(ValueError):
        if is_time(value := float(text)):
            return value
    raise pytest.UsageError(f"{source}: it must be a number of seconds, 0 or more")


def is_time(value: object) -> bool:
    """Whether a latency or jitter can have this value."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf


def given(config: pytest.Config) -> list[str]:
    """The options on the command line that a test's clusters depend on."""
    names = ["corosync", *(f"corosync_{name}" for name in (*_SETTINGS, *_TIMES))]
    options = {name: config.getoption(name) for name in names}
    return [f"--{name.replace('_', '-')}={value}" for name, value in options.items() if value is not None]


def history(config: pytest.Config) -> bool:
    """Whether the clusters of all tests are recorded."""
    text, source = _lookup(config, "history")
    if text is not None and text not in _HISTORY:
        raise pytest.UsageError(f"{source}: it must be on or off")
    return bool(text != "off")


def logs(config: pytest.Config) -> bool:
    """Whether the report of a failed test has the whole logs."""
    return bool(config.getoption("corosync_logs"))


def timeout(config: pytest.Config) -> float | None:
    """The seconds that a test with a cluster may take; `None` if there is no limit."""
    return seconds(config, "timeout") or None


def timeline(config: pytest.Config) -> Path | None:
    """The folder for the pages of tests; `None`: there are none."""
    return config.stash[_TIMELINE]


def defaults(config: pytest.Config) -> Mapping[str, Any]:
    """The options of clusters that the command line and the ini file set."""
    return config.stash[_DEFAULTS]


def completed(options: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """These options, with the usual ones for what they do not set. Node ids also set the number of nodes."""
    return {**{name: value for name, value in usual.items() if name != "nodes" or "nodeids" not in options}, **options}


def marked(item: pytest.Item, *, single: bool | None = None) -> ClusterOptions:
    """Return the options of the cluster that a test's fixtures give it. An invalid marker fails the test.

    Args:
        item: the test.
        single: whether the cluster is for `corosync`, which has one node by default. `None`: decide by the fixtures
            that the test requests.
    """
    from triocoro.testing import ClusterOptions

    # The marker of a function takes precedence over its class's, and that one over the module's.
    options: dict[str, Any] = {}
    for marker in reversed(list(item.iter_markers("corosync"))):
        if marker.args:
            pytest.fail(f"@pytest.mark.corosync takes keyword arguments only, not {marker.args!r}", pytrace=False)
        options.update(marker.kwargs)
    known = list(inspect.signature(ClusterOptions).parameters)
    if unknown := [name for name in options if name not in known]:
        pytest.fail(
            f"@pytest.mark.corosync does not take {', '.join(unknown)}; it takes {', '.join(known)}", pytrace=False
        )
    if single is None:
        fixtures = getattr(item, "fixturenames", ())
        single = "corosync" in fixtures and "corosync_cluster" not in fixtures
    usual: dict[str, Any] = {**defaults(item.config), **({"nodes": 1} if single else {})}
    try:
        return ClusterOptions(**completed(options, usual))
    except (TypeError, ValueError) as exc:
        others = [source for name, source in item.config.stash[_SOURCES].items() if name not in options]
        beside = f" (beside {', '.join(others)})" if others else ""
        pytest.fail(f"@pytest.mark.corosync: {_message(exc)}{beside}", pytrace=False)


def _option(name: str) -> str:
    return f"--corosync-{name.replace('_', '-')}"


def _in_ini(config: pytest.Config, name: str) -> tuple[object, str]:
    value = config.getini(name)
    overridden: list[str] = config.getoption("override_ini") or []
    if any(each.partition("=")[0] == name for each in overridden):
        return value, f"-o {name}={value}"
    return value, f"{name} = {value!r} in {config.inipath}"


def _lookup_mode(config: pytest.Config) -> Mode:
    chosen: object = config.getoption("corosync")
    source = ""
    if chosen is None:
        chosen, source = _in_ini(config, "corosync")
    if chosen is None:
        chosen = "fake"
    for known in MODES:
        if chosen == known:
            return known
    raise pytest.UsageError(f"{source}: it must be one of {', '.join(MODES)}")


def _lookup(config: pytest.Config, name: str) -> tuple[Any, str]:
    """Return the text of an option, and where it comes from."""
    text: object = config.getoption(f"corosync_{name}")
    if text is not None:
        return text, f"{_option(name)}={text}"
    return _in_ini(config, f"corosync_{name}")


def _lookup_timeline(config: pytest.Config) -> Path | None:
    """The folder for pages: of the command line, where pytest was started; of the ini file, beside that file."""
    chosen: str | None = config.getoption("corosync_timeline")
    if chosen is not None:
        return Path(config.invocation_params.dir, chosen) if chosen else None
    text = cast("str | None", config.getini("corosync_timeline"))
    return None if not text else Path(config.rootpath if config.inipath is None else config.inipath.parent, text)


def _parse(name: str, text: str, source: str) -> object:
    """Parse and check the text of an option."""
    from triocoro.testing import ClusterOptions

    value: Any = text
    if name != "log_level":
        value = _whole(text, source)
    try:
        ClusterOptions(**{name: value})
    except (TypeError, ValueError) as exc:
        raise pytest.UsageError(f"{source}: {_message(exc)}") from None
    return value


def _whole(text: str, source: str, *, minimum: int | None = None) -> int:
    """Parse a whole number."""
    try:
        value = int(text)
    except ValueError:
        raise pytest.UsageError(f"{source}: it must be a whole number") from None
    if minimum is not None and value < minimum:
        raise pytest.UsageError(f"{source}: it must be {minimum} or more")
    return value


def _message(exc: Exception) -> object:
    """The text of an error; those of attrs have further arguments."""
    return exc.args[0] if exc.args else exc
