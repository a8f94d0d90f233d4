"""The reference has everything that is public, and what it says of it is complete."""

from __future__ import annotations

import re
from pathlib import Path

import triocoro
import triocoro.lowlevel
import triocoro.recipes
import triocoro.testing
import triocoro.testing.models

_FOLDER = Path(__file__).parents[2] / "docs/reference"
_MODULES = (triocoro, triocoro.lowlevel, triocoro.recipes, triocoro.testing, triocoro.testing.models)


def documented() -> list[str]:
    """The full names that the pages of the reference have."""
    found: list[str] = []
    for page in sorted(_FOLDER.glob("*.md")):
        module = ""
        for directive, name in re.findall(r"^\.\. (currentmodule|auto\w+):: (\S+)", page.read_text(), re.MULTILINE):
            if directive == "currentmodule":
                module = name
            else:
                found.append(f"{module}.{name}")
    return found


def test_each_public_name_is_documented_once() -> None:
    public = [f"{module.__name__}.{name}" for module in _MODULES for name in module.__all__]
    assert set(public) - set(documented()) == set(), "add them to a page in docs/reference"
    assert sorted(documented()) == sorted(public)


def test_each_error_has_a_remedy() -> None:
    errors = [value for value in vars(triocoro).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert len(errors) > 30
    without = [cls.__name__ for cls in errors if not re.search(r"Remedy: .*?\.", cls.__doc__ or "", re.DOTALL)]
    assert without == ["CorosyncError"]
