"""What runs on both kinds of clusters, and what on one: it is counted, and each exception gives its reason."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fixtures.inner_runs import load_plugin

import triocoro.testing

_TESTS = Path(__file__).parent.parent
_MARKERS = {"corosync_real_only", "corosync_fake_only"}

_SOURCE = """
    import pytest

    def test_both(corosync_mode): pass

    @pytest.mark.parametrize("number", [1, 2])
    @pytest.mark.corosync_real_only(reason="of a kernel")
    def test_real(number): pass

    @pytest.mark.corosync_fake_only(reason="of a clock")
    @pytest.mark.parametrize("number", [1, 2, 3])
    def test_fake(number): pass

    @pytest.mark.parametrize("number", [1, 2, 3, 4])
    def test_neither(number): pass
"""


def unexplained(text: str) -> Iterator[int]:
    """The lines with one of the markers that give no reason."""
    tree = ast.parse(text)
    explained = {
        id(node.func)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "reason" and isinstance(keyword.value, ast.Constant) and keyword.value.value
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in _MARKERS and id(node) not in explained:
            yield node.lineno


@pytest.mark.parametrize("path", sorted(_TESTS.rglob("test_*.py")), ids=lambda path: path.name)
def test_markers_for_one_kind_of_cluster_give_a_reason(path: Path) -> None:
    lines = list(unexplained(path.read_text(encoding="utf-8")))
    assert not lines, (
        f"{path}, lines {lines}: give a reason, such as corosync_real_only(reason='the fake has no tools')"
    )


@pytest.mark.parametrize(
    "marker, is_explained",
    [
        ("corosync_real_only", False),
        ("corosync_fake_only()", False),
        ("corosync_fake_only(reason='')", False),
        ("corosync_real_only(because='of it')", False),
        ("corosync_real_only(reason='of it')", True),
        ("corosync", True),
    ],
)
@pytest.mark.parametrize(
    "source",
    ["@pytest.mark.{}\ndef test_it(): pass", "pytestmark = pytest.mark.{}", "pytest.param(1, marks=[pytest.mark.{}])"],
)
def test_a_marker_without_a_reason_is_found(source: str, marker: str, is_explained: bool) -> None:  # noqa: FBT001
    assert list(unexplained(source.format(marker))) == ([] if is_explained else [1])


@pytest.fixture
def ours(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A place for a run with our count."""
    monkeypatch.setattr(triocoro.testing, "missing_requirements", list[str])
    load_plugin(pytester, "conformance")
    return pytester


@pytest.mark.parametrize("mode", ["fake", "real"])
@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["here", "xdist"])
def test_tests_are_counted_by_what_they_run_on(ours: pytest.Pytester, mode: str, workers: list[str]) -> None:
    ours.makepyfile(_SOURCE)
    result = ours.runpytest(f"--corosync={mode}", "--strict-markers", *workers)
    result.assert_outcomes(passed=8 if mode == "fake" else 7, skipped=2 if mode == "fake" else 3)
    result.stdout.fnmatch_lines(
        ["conformance: 1 tests on both, 2 on real Corosync only, 3 on the fake only, 4 without a cluster"]
    )


@pytest.mark.parametrize("mode", ["fake", "real"])
def test_tests_without_a_cluster_can_be_skipped(ours: pytest.Pytester, mode: str) -> None:
    ours.makepyfile(_SOURCE)
    result = ours.runpytest(f"--corosync={mode}", "--skip-without-cluster", "-rs")
    result.assert_outcomes(passed=4 if mode == "fake" else 3, skipped=6 if mode == "fake" else 7)
    result.stdout.fnmatch_lines(
        ["conformance: 1 tests on both, 2 on real Corosync only, 3 on the fake only, 4 without a cluster"]
    )
    result.stdout.fnmatch_lines(["SKIPPED [[]4[]] *: without a cluster: make fake runs it"])


def test_a_cluster_needs_a_mode_or_a_marker(ours: pytest.Pytester) -> None:
    ours.makepyfile(
        """
        import pytest
        from triocoro.testing import FakeCluster

        def test_it(): FakeCluster()

        def test_by_mode(corosync_mode): FakeCluster()

        @pytest.mark.corosync_fake_only(reason="of a clock")
        def test_marked(): FakeCluster()
        """
    )
    # In a process of its own: what keeps us from having clusters keeps a run within ours from it, too.
    result = ours.runpytest_subprocess("--corosync=fake")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["_* test_it _*", "a FakeCluster in a test that runs in both modes: *"])
