#!/bin/sh
# Makes requirements/*.lock anew from pyproject.toml and requirements/*.in. Versions that still fit are kept; `hack/lock.sh --upgrade`
# takes the newest. uv comes from a lock too, into an environment that is thrown away.
set -eu
cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"${PYTHON:-python3}" -m venv "$scratch/venv"
"$scratch/venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements/uv.lock

lock() {
    output=$1
    shift
    # An index may be a private mirror: its address is nobody else's business, and the hashes say what is meant.
    "$scratch/venv/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
        --custom-compile-command "make lock" --output-file "requirements/$output" "$@"
    echo "requirements/$output" >&2
}

lock operator.lock "$@" pyproject.toml
lock dev.lock "$@" --extra test --extra check pyproject.toml requirements/build.in
lock build.lock "$@" requirements/build.in
lock go.lock "$@" requirements/go.in
lock uv.lock "$@" requirements/uv.in
lock release.lock "$@" requirements/release.in
lock mutants.lock "$@" requirements/mutants.in
lock docs.lock "$@" requirements/docs.in
