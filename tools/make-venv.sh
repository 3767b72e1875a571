#!/bin/sh
# make-venv.sh DIR REQUIREMENTS: a virtual environment with exactly the pinned packages, by plain pip.
set -eu
directory=$1 requirements=$2
python=${PYTHON:-python3}

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "volmig needs Python 3.11 or newer; '$python' is $("$python" --version 2>&1 || echo missing)." >&2
    echo "Point PYTHON at one: make install PYTHON=/usr/bin/python3.11" >&2
    exit 1
fi
if [ ! -x "$directory/bin/python" ]; then
    # An interrupted run must leave no half environment that looks whole.
    rm -rf "$directory"
    trap 'rm -rf "$directory"; exit 130' INT TERM
    if ! "$python" -m venv "$directory"; then
        rm -rf "$directory"
        echo "The virtual environment could not be made. On Debian: apt-get install python3-venv" >&2
        exit 1
    fi
fi
echo "Installing $requirements into $directory ..."
"$directory/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r "$requirements"
