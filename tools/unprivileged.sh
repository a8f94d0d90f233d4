#!/usr/bin/env bash
# Run the tests against real daemons as an ordinary user, who has no capabilities: `make real` in a clone of HEAD.
# Run it as root: it makes the user, and removes it, with all its files, at the end.
#   tools/unprivileged.sh [ARGUMENT OF PYTEST]...
#   PYTHON  an interpreter that everybody can run (/usr/bin/python3)
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/environment.sh
python=${PYTHON:-/usr/bin/python3}
if [ "$(id -u)" != 0 ]; then
    echo "unprivileged: only root can make a user; an ordinary one just runs make real" >&2
    exit 1
fi

user=triocoro-$$
home=
# Zombies do not count.
of_user() { ps -o stat=,pid=,args= -u "$user" 2>/dev/null | grep -v '^Z' || true; }
clean() {
    status=$?
    trap '' INT TERM HUP
    left=$(of_user)
    if [ -n "$left" ]; then
        echo "unprivileged: these processes were left:" >&2
        echo "$left" >&2
        [ "$status" != 0 ] || status=1
        while [ -n "$(of_user)" ]; do
            of_user | awk '{ print $2 }' | xargs kill -KILL 2>/dev/null || true
            sleep 0.1
        done
    fi
    if id "$user" >/dev/null 2>&1; then
        userdel --force "$user" || status=1  # it would look for processes, too
    fi
    [ -z "$home" ] || rm -rf "$home"
    exit "$status"
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
home=$(mktemp --directory --tmpdir triocoro-home-XXXXXX)
useradd --system --user-group --no-create-home --home-dir "$home" --shell /bin/sh "$user"

git clone --quiet --no-local . "$home/triocoro"
mkdir "$home/tmp"
chown -R "$user:" "$home"

environment+=(HOME="$home" USER="$user" TMPDIR="$home/tmp" PATH=/usr/local/bin:/usr/bin:/bin)
# Nobody installs with this pip a second time.
environment+=(PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1 EXTRAS=test)

# make hands ARGS to a shell.
arguments=${*@Q}
arguments=${arguments//\$/\$\$}
as_user=(setpriv --reuid="$user" --regid="$user" --init-groups --inh-caps=-all --bounding-set=-all --no-new-privs)
# In the background, so that our traps need not wait for it; but then bash has it ignore interrupts.
"${as_user[@]}" env -i --default-signal=INT,QUIT --chdir="$home/triocoro" "${environment[@]}" \
    make --no-print-directory PYTHON="$python" ARGS="$arguments" real &
wait $!
