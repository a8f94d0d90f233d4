"""How long to wait for a cluster, which depends on its configuration."""

from __future__ import annotations

import re
from typing import Final

from .options import ClusterOptions

_USUAL: Final = 7.5
"""Seconds of one change of the membership for which fixed waits are long enough: four such changes take 30."""

_NUMBER: Final = re.compile(r"(token|token_coefficient|consensus) *: *(\d+)")


def membership_time(options: ClusterOptions) -> float:
    """The seconds that one change of the membership may take: to miss a node, to agree without it, to ask a device."""
    lines = map(_NUMBER.fullmatch, map(str.strip, options.extra.get("totem", ())))
    given = {line[1]: int(line[2]) for line in lines if line is not None}
    token = given.get("token", options.token) + max(0, options.nodes - 2) * given.get("token_coefficient", 0)
    consensus = given.get("consensus", options.consensus)
    device = 0 if options.qdevice_votes is None else options.qdevice_sync_timeout
    return (token + consensus + device) / 1000


def stretched(seconds: float, options: ClusterOptions) -> float:
    """The length of a wait that takes `seconds` for the usual options, for these: longer, if changes take longer."""
    return seconds * max(1, membership_time(options) / _USUAL)
