#!/usr/bin/env bash
# Install what the checks and the demonstration need: system packages (with apt, as root), and a virtual environment.
# Only what is missing is installed. Where packages cannot be installed, it says which, lists them in $VENV/.missing, and
# goes on with what is there: the fake needs nothing but Python. Called by `make setup`, which calls it again when its
# inputs change, or something was missing.
#   PYTHON  the interpreter for the virtual environment (python3)
#   VENV    where that environment goes (.venv)
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
venv=${VENV:-.venv}
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

# Each line: does this machine have it? If not: the package of Debian that brings it. Where the interpreter is Debian's
# default one its packages are called python3-*, else after the version.
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
    # dpkg must not start the services that it installs: the host's own corosync is none of our business.
    if [ -e "$policy" ]; then mv "$policy" "$policy.before-triocoro"; fi
    trap restore_policy EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    # A machine that has just been started may be busy with updates of its own: wait for them.
    local install=(
        apt-get install -qq -y --no-install-recommends -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 "${missing[@]}"
    )
    # The lists of packages may be missing or old; fetch them only then.
    if ! apt-cache show "${missing[@]}" >/dev/null 2>&1 || ! "${install[@]}" >/dev/null; then
        apt-get update -qq
        "${install[@]}" >/dev/null
    fi
    restore_policy
    trap - EXIT
}

disable_service() {
    # Installing it has enabled it for the next boot. Nobody asked for that.
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
            [ -z "$(find pyproject.toml setup.py triocoro/_corosync -type f -newer "$venv/.missing" \
                ! -path '*/__pycache__/*' ! -name '_shim*')" ]; then
            exit # all that can be done was done the last time
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
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable '.[pytest,dev]'
if [ -n "$still" ]; then echo "$still" >"$venv/.missing"; else rm -f "$venv/.missing"; fi
