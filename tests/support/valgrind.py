"""`python -m support.valgrind ROUNDS`: valgrind's findings in the shim and Corosync's libraries; `make sanitize`.

These are invalid accesses, and leaks. A leak is memory that was not freed at the end, in at least as many blocks as
there were rounds, with the shim or one of the libraries among its allocators. Python itself keeps memory, though not
more with each round.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from support.external_programs import inside
from triocoro.testing import NetnsCluster

_OURS = re.compile(r"/(_shim\.\S*so|lib(?:cpg|votequorum|quorum|cmap|cfg|qb|corosync_common)\.so[.\d]*)\)")
_RECORD = re.compile(
    r"([\d,]+) (?:\([\d,]+ direct, [\d,]+ indirect\) )?bytes in ([\d,]+) blocks are (.*) in loss record"
)
_INVALID = re.compile(r"^(Invalid|Mismatched|Source and destination overlap)", re.MULTILINE)


def findings(report: str, rounds: int) -> Iterator[str]:
    """The errors and the leaks in a report."""
    for record in re.sub(r"^==\d+== ?", "", report, flags=re.MULTILINE).split("\n\n"):
        lost = _RECORD.search(record)
        is_leak = lost and int(lost[2].replace(",", "")) >= rounds
        if _OURS.search(record) and (is_leak or _INVALID.search(record)):
            yield record.strip()


def main(rounds: int) -> int:
    """Run the program under valgrind in a node; returns the exit status."""
    log = Path("build/valgrind.txt").absolute()
    log.parent.mkdir(exist_ok=True)
    checker = ["valgrind", "--leak-check=full", "--show-leak-kinds=all", "--num-callers=30", f"--log-file={log}"]
    environment = {**os.environ, "PYTHONMALLOC": "malloc", "PYTHONPATH": str(Path(__file__).parents[1])}
    with NetnsCluster(nodes=1, token=10_000) as cluster:
        command = [*inside(cluster[1]), *checker, sys.executable, "-m", "support.each_service", str(rounds)]
        status = subprocess.run(command, env=environment, check=False).returncode
    if status:
        print(f"valgrind: the program failed with status {status}; see {log}")
        return 1
    found = list(findings(log.read_text(encoding="utf-8", errors="replace"), rounds))
    print(*found, f"valgrind: {rounds} rounds, {len(found)} findings; see {log}", sep="\n\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
