#!/usr/bin/env bash
# Run the suite again and again on a machine that is busy, to find tests that pass only most of the time.
# The load is a process for each core that does nothing but compute, at the same priority as the tests.
#   tools/flake.sh [pytest's arguments]
#   N       how many rounds, at least 1 (10)
#   MODES   what each round consists of ("fake real")
#   BIN     the virtual environment's programs (.venv/bin)
# Each run has a seed of its own, for the order of sets (PYTHONHASHSEED) and for Hypothesis. What a failing run printed
# is kept in build/flake/.
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${N:-10}
modes=${MODES:-fake real}
python=${BIN:-.venv/bin}/python
limit=60m # for one run, so that a test that hangs is not the last one
reports=build/flake/$(date +%Y%m%d-%H%M%S)
if ! [[ $rounds =~ ^[1-9][0-9]*$ ]]; then
    echo "flake: N=$rounds is not a number of rounds: give 1 or more" >&2
    exit 2
fi
mkdir -p "$reports"

busy=()
for ((core = 0; core < $(nproc); core++)); do
    # It looks for us now and then, so as to end with us, whatever ends us.
    (while kill -0 $$ 2>/dev/null; do for ((i = 0; i < 100000; i++)); do :; done; done) &
    busy+=($!)
done
tests=
# timeout(1) passes on what it is sent, and we wait for pytest, which has clusters to end.
end() {
    trap '' INT TERM HUP
    [ -z "$tests" ] || { kill -INT "$tests" && wait "$tests"; } 2>/dev/null || true
    kill "${busy[@]}" 2>/dev/null || true
}
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

runs=0
failures=0
start=$SECONDS
echo "flake: $rounds rounds (each: $modes), on $(nproc) cores with ${#busy[@]} busy processes"
for ((round = 1; round <= rounds; round++)); do
    for mode in $modes; do
        seed=$((RANDOM * 32768 + RANDOM))
        report=$reports/round$round-$mode.txt
        began=$SECONDS
        status=0
        # In the background, so that our traps need not wait for it; but then bash has it ignore interrupts. Those of
        # the terminal are for us: a second one would end the tests before they have tidied up.
        PYTHONHASHSEED=$seed setsid env --default-signal=INT,QUIT \
            timeout --foreground --signal=INT --kill-after=60 "$limit" \
            "$python" -m pytest --corosync="$mode" --hypothesis-seed="$seed" -p no:cacheprovider "$@" \
            >"$report" 2>&1 </dev/null &
        tests=$!
        wait "$tests" || status=$?
        tests=
        took=$((SECONDS - began))
        runs=$((runs + 1))
        if [ "$status" = 0 ]; then
            echo "round $round $mode: passed in $took s, seed $seed: $(tail -n 1 "$report" | sed 's/^=* *//; s/ *=*$//')"
            rm "$report"
        else
            failures=$((failures + 1))
            echo "round $round $mode: FAILED in $took s (exit status $status), seed $seed: $report"
            grep -E '^(FAILED|ERROR) ' "$report" | sed 's/^/    /' || true
        fi
    done
done
rmdir "$reports" 2>/dev/null || true

took=$((SECONDS - start))
if [ "$failures" != 0 ]; then
    echo "flake: $failures of $runs runs failed, in $took s: see $reports/" >&2
    exit 1
fi
echo "flake: $runs runs, none failed, in $took s"
