#!/usr/bin/env bash
# Makes a Python environment of the tests in the user's cache folder, once for each content of its requirements.
# Prints the path of its python.
#   tools/python.sh        tools/python-requirements.txt
#   tools/python.sh spark  tools/python-spark-requirements.txt: Spark, 450 MB, of use only where Java is
set -euo pipefail

requirements="$(dirname "$(readlink -f "$0")")/python-${1:+$1-}requirements.txt"
python="${PYTHON:-python3}"
if ! command -v "$python" > /dev/null; then
    echo "tools/python.sh: $python is missing; install Python 3.10 or newer (Debian, Ubuntu: apt install python3-venv)" >&2
    exit 1
fi

key="$({ cat "$requirements"; "$python" --version; } | sha256sum | cut -c1-16)"
base="${XDG_CACHE_HOME:-$HOME/.cache}/boathouse/python"
folder="$base/$key"
if [[ -e $folder/complete ]]; then
    echo "$folder/bin/python"
    exit 0
fi

mkdir -p "$base"
# One maker at a time; who waited finds the work done. A venv knows its own path, so it cannot be made elsewhere and
# renamed: the file `complete` is what makes it count.
exec 9> "$base/$key.lock"
flock 9
if [[ ! -e $folder/complete ]]; then
    rm -rf "$folder"
    echo "tools/python.sh: making a Python environment of $(basename "$requirements")" >&2
    if ! "$python" -m venv "$folder" >&2; then
        echo "tools/python.sh: $python -m venv failed (Debian, Ubuntu: apt install python3-venv)" >&2
        exit 1
    fi
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$requirements" >&2
    touch "$folder/complete"
fi
echo "$folder/bin/python"
