#!/usr/bin/env bash
# All tests, on the fake and on real daemons, and all checks. Whatever fails, the other parts run, so that one look shows
# all that is wrong.
#   BIN   the virtual environment's programs (.venv/bin)
#   REAL  "required": it is a failure if real clusters cannot run here, as it is with CI=true
set -uo pipefail
cd "$(dirname "$0")/.."
failed=
part() { ${MAKE:-make} --no-print-directory "$1" || failed="$failed $1"; }

part fake
# The real tests wait for their daemons a third of the time. Lint has that time, and prints what it says at its end.
said=$(mktemp)
nice -n 19 ${MAKE:-make} --no-print-directory lint >"$said" 2>&1 &
lint=$!
trap 'kill "$lint" 2>/dev/null; rm -f "$said"' EXIT
if ! missing=$("${BIN:-.venv/bin}/python" -c \
    'from triocoro.testing import missing_requirements; print("\n".join(missing_requirements()))'); then
    missing="what it lacks could not be found out"
    failed="$failed real"
elif [ -z "$missing" ]; then
    part real
elif [ "${CI:-}" = true ] || [ "${REAL:-}" = required ]; then
    failed="$failed real"
fi
wait "$lint" || failed="$failed lint"
cat "$said"
[ -z "$failed" ] || echo "make test: failed:$failed" >&2
if [ -n "$missing" ]; then
    echo "make test: the real suite was NOT RUN: ${missing//$'\n'/; }" >&2
fi
[ -z "$failed" ]
