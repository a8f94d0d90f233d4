#!/usr/bin/env bash
# Build Debian's package from contrib/debian, and test it as Debian does. It installs packages and writes into the
# project's folder and the one above it: run it where nothing else lives, as `make debian` does.
set -euo pipefail
cd "$(dirname "$0")/.."
export DEBIAN_FRONTEND=noninteractive DEB_BUILD_OPTIONS="parallel=$(nproc)"
cp -r contrib/debian debian
apt-get update -qq
apt-get install -qq -y --no-install-recommends build-essential autopkgtest lintian >/dev/null
apt-get build-dep -qq -y --no-install-recommends ./ >/dev/null
version=$(dpkg-parsechangelog --show-field Version)
git archive --prefix="triocoro-${version%-*}/" --output="../triocoro_${version%-*}.orig.tar.gz" HEAD
dpkg-buildpackage --no-sign
# In this machine itself (null): what makes it one, the root file system of `make debian`, is thrown away.
autopkgtest --test-name=fake "../python3-triocoro_${version}_$(dpkg --print-architecture).deb" ./ -- null
# Of the warnings, one is that the changelog closes no request for the package.
lintian --fail-on=error --suppress-tags=bad-distribution-in-changes-file \
    "../triocoro_${version}_$(dpkg --print-architecture).changes"
