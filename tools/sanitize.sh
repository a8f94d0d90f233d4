#!/usr/bin/env bash
# Build the shim with the sanitizers for addresses and undefined behaviour, and run the raw tests with it; then look for
# leaks with valgrind. `make sanitize` calls it; arguments go to pytest, in place of
# the folder of the raw tests. What it builds is in build/sanitize.
#   BIN          the folder of the virtual environment's programs (.venv/bin)
#   ROUNDS       how often the program under valgrind opens and closes each service (20)
#   ONLY         "asan" or "valgrind": only this part
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$(realpath "${BIN:-.venv/bin}")
root=$PWD
build=$root/build/sanitize
libasan=$(realpath "$(gcc -print-file-name=libasan.so)")
# The sanitizer's library has to come first. LD_PRELOAD would reach the daemons as well, which lock all of their memory.
loader=$(ldd "$bin/python" | grep -o '/[^ ]*/ld-[^ ]*' | head -n 1)

if [ "${ONLY:-valgrind}" = valgrind ] && ! command -v valgrind >/dev/null; then
    echo "sanitize: installing valgrind"
    install=(apt-get install -qq -y --no-install-recommends -o Dpkg::Use-Pty=0 valgrind)
    "${install[@]}" >/dev/null || { apt-get update -qq && "${install[@]}" >/dev/null; }
fi

rm -rf "$build"
mkdir -p "$build"
git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$build"
cat >"$build/python" <<EOF
#!/bin/sh
exec $loader --preload $libasan --argv0 $bin/python $(realpath "$bin/python") "\$@"
EOF
chmod +x "$build/python"
# Tests that start another Python get one with the sanitizers, too.
echo "import sys; sys.executable = '$build/python'" >"$build/sitecustomize.py"
cd "$build"

if [ "${ONLY:-asan}" = asan ]; then
    CFLAGS="-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g -O1" \
        "$bin/python" setup.py -q build_ext --inplace
    # Python itself leaks at its end: valgrind looks for leaks.
    export ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1
    PYTHONPATH=$build PYTHONMALLOC=malloc "$build/python" -m pytest -p no:cacheprovider --corosync=real \
        --deselect tests/raw/test_shim.py::test_extension_needs_nothing_but_libc "${@:-tests/raw}"
fi
if [ "${ONLY:-valgrind}" = valgrind ]; then
    cd "$root"
    PYTHONPATH=tests "$bin/python" -m support.valgrind "${ROUNDS:-20}"
fi
