"""The services of a real daemon: `default_services` of exec/service.c. The fake has most of them."""

from __future__ import annotations

from typing import Final

DEFAULT_SERVICES: Final = (
    ("cmap", 1),
    ("cfg", 5),
    ("cpg", 7),
    ("quorum", 0),
    ("pload", 2),
    ("votequorum", 4),
    ("mon", 0),
    ("wd", 0),
)
"""The services in the order of their ids, each with its number of message types."""

SERVICE_IDS: Final = {name: number for number, (name, _) in enumerate(DEFAULT_SERVICES)}
"""The id of each service."""
