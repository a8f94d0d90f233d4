#!/usr/bin/env bash
# Install what the checks and the demonstration need: system packages (with apt, as root), and a virtual environment.
# Only missing packages are installed. If they cannot be installed, the script names them, lists them in $VENV/.missing,
# and continues: the fake needs nothing but Python. `make setup` calls it, again after its inputs have changed, and as long
# as packages are missing.
#   PYTHON       the interpreter for the virtual environment (python3)
#   VENV         the folder of that environment (.venv)
#   CONSTRAINTS  the file that pins the packages in it (tools/constraints.txt)
#   EXTRAS       of pyproject.toml, what it is for (test,lint)
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
venv=${VENV:-.venv}
constraints=${CONSTRAINTS:-tools/constraints.txt}
extras=${EXTRAS:-test,lint}
# An ordinary user's PATH lacks the folders where corosync, ip and nft live.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

have() { command -v "$1" >/dev/null 2>&1; }
python_has() { "$python" -c "$1" >/dev/null 2>&1; }

if ! have "$python"; then
    echo "setup: there is no $python here: install Python 3.10 or later (Debian: python3), or set PYTHON" >&2
    exit 1
fi
if ! version=$("$python" --version); then
    echo "setup: $python does not run here: set PYTHON to the path of a Python 3.10 or later" >&2
    exit 1
fi
if ! python_has 'import sys; assert sys.version_info >= (3, 10)'; then
    echo "setup: $version is too old: 3.10 or later is needed (set PYTHON to name another)" >&2
    exit 1
fi

# Each line: a check, and the Debian package to install if it fails. The packages of Debian's default interpreter are
# called python3-*, those of others have the version in their names.
flavour=python3
if [ "$(readlink -f "$(command -v "$python")")" != "$(readlink -f /usr/bin/python3)" ]; then
    flavour=$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
fi
missing=()
need() { missing+=("$1"); }
have gcc || need gcc
python_has 'import os, sysconfig as s; os.stat(s.get_path("include") + "/Python.h")' || need "$flavour-dev"
[ -e /usr/include/stdio.h ] || need libc6-dev
have corosync || need corosync
have ip || need iproute2
have nft || need nftables
{ have unshare && have nsenter; } || need util-linux
{ [ -x "$venv/bin/python" ] || python_has 'import ensurepip, venv'; } || need "$flavour-venv"
for library in cpg votequorum quorum cmap cfg; do
    [ -e "/usr/include/corosync/$library.h" ] || need "lib$library-dev"
done

still=
policy=/usr/sbin/policy-rc.d
restore_policy() {
    rm -f "$policy"
    if [ -e "$policy.before-triocoro" ]; then mv "$policy.before-triocoro" "$policy"; fi
}

install_packages() {
    export DEBIAN_FRONTEND=noninteractive
    # dpkg must not start the services that it installs: we do not touch the host's own corosync.
    if [ -e "$policy" ]; then mv "$policy" "$policy.before-triocoro"; fi
    trap restore_policy EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    # A machine that has just booted may be installing updates: wait for them.
    local install=(
        apt-get install -qq -y --no-install-recommends -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 "${missing[@]}"
    )
    # Fetch the lists of packages only if they are missing or outdated.
    if ! apt-cache show "${missing[@]}" >/dev/null 2>&1 || ! "${install[@]}" >/dev/null; then
        apt-get update -qq
        "${install[@]}" >/dev/null
    fi
    restore_policy
    trap - EXIT
}

disable_service() {
    # The package has enabled corosync for the next boot, which was not the point of installing it.
    if have systemctl; then
        systemctl disable --quiet corosync 2>/dev/null || true
    elif have update-rc.d; then
        update-rc.d corosync disable 2>/dev/null || true
    fi
}

if [ ${#missing[@]} -gt 0 ]; then
    if have apt-get && [ "$(id -u)" = 0 ]; then
        echo "setup: installing ${missing[*]}"
        install_packages
        case " ${missing[*]} " in *" corosync "*) disable_service ;; esac
    else
        still=${missing[*]}
        if [ "$still" = "$(cat "$venv/.missing" 2>/dev/null)" ] &&
            [ -z "$(find pyproject.toml setup.py "$constraints" triocoro/_corosync -type f -newer "$venv/.missing" \
                ! -path '*/__pycache__/*' ! -name '_shim*')" ]; then
            exit # the last time has done all that can be done
        fi
        have apt-get && why="you are not root" || why="there is no apt-get"
        {
            echo "setup: these are missing, and cannot be installed from here, since $why: ${missing[*]}"
            echo "setup: by hand: apt-get install --no-install-recommends ${missing[*]}"
            echo "setup: (names are Debian's; elsewhere, install the packages that bring the same)"
        } >&2
        case " ${missing[*]} " in *"-venv "*) exit 1 ;; esac
    fi
fi

if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    echo "setup: creating $venv"
    "$python" -m venv --clear "$venv"
    echo '*' >"$venv/.gitignore"
fi
echo "setup: installing triocoro and what its checks need into $venv"
# In the environment, since pip must pass it on to the build; newer versions of pip have a variable of its own for that.
PIP_CONSTRAINT=$PWD/$constraints PIP_BUILD_CONSTRAINT=$PWD/$constraints \
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable ".[trio,cli,$extras]"
if [ -n "$still" ]; then echo "$still" >"$venv/.missing"; else rm -f "$venv/.missing"; fi
