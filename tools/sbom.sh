#!/usr/bin/env bash
# List the components that installing a wheel brings, the wheel included, as CycloneDX JSON.
#   tools/sbom.sh WHEEL FILE
set -euo pipefail
if [ $# != 2 ]; then
    echo "usage: tools/sbom.sh WHEEL FILE" >&2
    exit 2
fi
project=$(dirname "$(dirname "$(realpath "$0")")")
folder=$(mktemp --directory)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/tools"
"$folder/tools/bin/python" -m pip install --quiet --constraint="$project/tools/constraints.txt" cyclonedx-bom
python3 -m venv --without-pip "$folder/installed"
"$folder/tools/bin/python" -m pip --python "$folder/installed/bin/python" install --quiet "$1"
"$folder/tools/bin/cyclonedx-py" environment --output-reproducible --output-file "$2" "$folder/installed/bin/python"
