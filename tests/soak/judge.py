"""Checks the histories of one window: `python -m soak.judge FOLDER`, in a process of its own for the sake of memory.

The folder has the options of the cluster and a file for each client. The violations are printed as JSON.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from triocoro.testing import ClusterOptions, History, check

_OPTIONS = "options.json"


def prepare(folder: Path, settings: dict[str, Any]) -> None:
    """Make an empty folder for the histories of a window on a cluster with these options."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / _OPTIONS).write_text(json.dumps(settings), encoding="ascii")


def main(folder: Path) -> None:
    """Check, and print a line."""
    settings: dict[str, Any] = json.loads((folder / _OPTIONS).read_text(encoding="ascii"))
    history = History.merge(History.load(path) for path in sorted(folder.glob("*.jsonl")))
    violations = check(history, options=ClusterOptions(**settings))
    print(json.dumps({"entries": len(history), "violations": [str(violation) for violation in violations]}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
