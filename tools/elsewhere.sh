#!/usr/bin/env bash
# Run a command in a clone of HEAD on a bare Debian of another suite, with its Python, Corosync and tools. Run it as root.
#   tools/elsewhere.sh SUITE [COMMAND]    COMMAND is a line for sh; without it, the two commands of the README
# SUITE is one that debootstrap knows, such as bookworm, trixie or sid. Its root, with git, make and python3, is kept in
# build/elsewhere; `rm -r build/elsewhere/SUITE` has the next run fetch it anew. Each run works on a copy, which is
# removed at the end, with everything that the command started.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/environment.sh
if [ $# -lt 1 ] || [ $# -gt 2 ] || [ -z "$1" ]; then
    echo "usage: tools/elsewhere.sh SUITE [COMMAND], or make elsewhere SUITE=trixie" >&2
    exit 2
fi
suite=$1
command=${2:-make demo && make test}
if [ "$(id -u)" != 0 ]; then
    echo "elsewhere: only root can make a root file system" >&2
    exit 1
fi
if ! command -v debootstrap >/dev/null; then
    echo "elsewhere: installing debootstrap"
    { apt-get install -qq -y --no-install-recommends debootstrap || {
        apt-get update -qq && apt-get install -qq -y --no-install-recommends debootstrap
    }; } >/dev/null
fi

folder=$PWD/build/elsewhere
pristine=$folder/$suite
mkdir -p "$folder"
root=
child=
clean() {
    trap '' INT TERM HUP
    # With unshare(1) ends everything in its namespace of pids, and with that the mounts below the root.
    [ -z "$child" ] || { kill -KILL "$child" && wait "$child"; } 2>/dev/null || true
    [ -z "$root" ] || rm -rf --one-file-system "$root"
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

if [ ! -d "$pristine" ]; then
    echo "elsewhere: fetching $suite"
    root=$(mktemp --directory "$folder/making-XXXXXX")
    if ! debootstrap --variant=minbase --include=git,make,python3 "$suite" "$root" >"$folder/$suite.log" 2>&1; then
        tail -n 20 "$folder/$suite.log" >&2
        echo "elsewhere: debootstrap failed; all it said is in $folder/$suite.log" >&2
        exit 1
    fi
    chmod 755 "$root"
    mv "$root" "$pristine"
fi
root=$(mktemp --directory "$folder/$suite-XXXXXX")
cp --archive --reflink=auto "$pristine/." "$root"
git clone --quiet --no-local . "$root/root/triocoro"
# What a command needs to reach the network as we do. Packages rewrite the usual file of certificates.
for file in /etc/resolv.conf /etc/hosts; do
    [ ! -f "$file" ] || install --mode=644 "$file" "$root$file"
done
certificates=${PIP_CERT:-${SSL_CERT_FILE:-}}
if [ -f "$certificates" ]; then
    install --mode=644 "$certificates" "$root/usr/local/share/certificates.pem"
    for variable in PIP_CERT SSL_CERT_FILE REQUESTS_CA_BUNDLE; do
        environment+=("$variable=/usr/local/share/certificates.pem")
    done
fi

# A plain chroot is not enough: a process that enters a node's mount namespace gets that namespace's root.
enter='
set -eu
mount --bind "$root" "$root"
cd "$root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount --rbind /dev dev
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mount -t tmpfs -o mode=755 tmpfs run
mkdir run/lock
pivot_root . mnt
umount --lazy /mnt
cd /root/triocoro
exec "$@"
'
environment+=(PIP_FIND_LINKS=) # a folder of this machine
environment+=(REAL=required) # that is what it is for
environment+=(HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin)
status=0
# In the background, so that our traps need not wait for it; but then bash has it ignore interrupts.
root=$root unshare --mount --propagation private --pid --fork --kill-child \
    bash -c "$enter" enter env -i --default-signal=INT,QUIT "${environment[@]}" sh -c "$command" &
child=$!
wait "$child" || status=$?
child=
exit "$status"
