"""The tests in this folder are about the handles below those that record."""

from __future__ import annotations

import pytest

from triocoro.testing import Cluster


@pytest.fixture(autouse=True)
def _unrecorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cluster, "record", lambda *_: None)
