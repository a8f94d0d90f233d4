"""Tests with seeds on real clusters."""

from __future__ import annotations

import pytest
from support.fixtures.inner_runs import Run

SOURCE = """
    import pytest, trio
    import triocoro

    @pytest.mark.corosync_seeds(500)
    async def test_it(corosync):
        async with triocoro.open_group("x") as group:
            await group.send_and_wait(b"hello")
        print("run:", corosync.pid)
        assert {holds}
"""


@pytest.mark.corosync_real_only(reason="the fake's runs have tests of their own")
def test_it_runs_a_few_times_in_real_time(run: Run) -> None:
    result = run(SOURCE.format(holds=True), "-s", "-o", "trio_mode=true")
    result.assert_outcomes(passed=1)
    assert result.stdout.str().count("run: ") == 3

    result = run(SOURCE.format(holds=False), "-o", "trio_mode=true", "--corosync-seeds=2")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["seed 0; to repeat this run; real clusters take real time, so it may not fail again:", "*--corosync-seed=0 *"]
    )
