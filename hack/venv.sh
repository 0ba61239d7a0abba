#!/bin/sh
# Makes a virtual environment from requirements/dev.lock, hashes checked, with this checkout's package in it. PYTHON names
# the Python to use, ENVIRONMENT the folder: python3 and .venv if they are not given.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
env=${ENVIRONMENT:-.venv}

fail() { echo "error: $1" >&2; exit 1; }

command -v "$python" > /dev/null || fail "no $python on PATH: install Python 3.11 or later, or name one with make PYTHON=…"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$("$python" --version) is too old: install Python 3.11 or later, or name one with make PYTHON=…"
# Debian and Ubuntu ship these two apart from Python itself.
"$python" -c 'import ensurepip, venv' 2> /dev/null ||
    fail "$python cannot make virtual environments: install its venv module (Debian, Ubuntu: apt-get install python3-venv)"

echo "Making $env from requirements/dev.lock: about half a minute" >&2
"$python" -m venv --clear "$env"
"$env/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements/dev.lock
# Nothing may come in beside the lock: neither dependencies nor a build backend.
"$env/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
touch "$env/made"  # last: an interrupted run is no environment
