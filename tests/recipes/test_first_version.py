"""A bug of the first version, which docs/recipes/proof.md tells: with it the story of its picture fails."""

from __future__ import annotations

import pytest
from support.timeline_pages import primary_of_the_first_version, record_a_rolling_restart

from triocoro.recipes._member import Member
from triocoro.testing import History, seeded_run

pytestmark = pytest.mark.corosync_fake_only(reason="only runs on the fake can be repeated")


def finished(history: History) -> set[str]:
    """The programs that have restarted, and have been primary."""
    return {it.client for it in history.operations() if it.ended is not None and it.client.startswith("second")}


def test_programs_restart_one_after_the_other() -> None:
    history = seeded_run(record_a_rolling_restart, seed=1)
    assert finished(history) == {"second program 1", "second program 2"}


def test_in_the_first_version_the_second_restart_is_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Member, "primary", primary_of_the_first_version)
    history = seeded_run(record_a_rolling_restart, seed=1)
    assert finished(history) == {"second program 1"}
    assert "missing are the members with the state that vote for nodes 1 and 2" in history.to_json_lines()
