#!/usr/bin/env bash
# All checks, then all tests, on the fake and on real daemons. Whatever fails, the other parts run, so that one look shows
# all that is wrong.
#   BIN   the virtual environment's programs (.venv/bin)
#   REAL  "required": it is a failure if real clusters cannot run here, as it is with CI=true
set -uo pipefail
cd "$(dirname "$0")/.."
failed=
for part in lint fake; do
    ${MAKE:-make} --no-print-directory "$part" || failed="$failed $part"
done
if ! missing=$("${BIN:-.venv/bin}/python" -c \
    'from triocoro.testing import missing_requirements; print("\n".join(missing_requirements()))'); then
    missing="what it lacks could not be found out"
    failed="$failed real"
elif [ -z "$missing" ]; then
    ${MAKE:-make} --no-print-directory real || failed="$failed real"
elif [ "${CI:-}" = true ] || [ "${REAL:-}" = required ]; then
    failed="$failed real"
fi
[ -z "$failed" ] || echo "make test: failed:$failed" >&2
if [ -n "$missing" ]; then
    echo "make test: the real suite was NOT RUN: ${missing//$'\n'/; }" >&2
fi
[ -z "$failed" ]
