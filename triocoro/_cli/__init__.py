"""The command `triocoro`, which is also `python -m triocoro`. It needs the extra `triocoro[cli]`."""

from __future__ import annotations

import sys
from importlib.util import find_spec


def main() -> int:
    """Run the command that the process was started with, and return its exit status."""
    missing = [package for package in ("click", "rich") if find_spec(package) is None]
    if missing:
        print(
            f"triocoro: the command needs {' and '.join(missing)}, which cannot be found: pip install 'triocoro[cli]'"
            f" (Debian: apt install {' '.join(f'python3-{package}' for package in missing)})",
            file=sys.stderr,
        )
        return 2
    from .commands import run

    return run()
