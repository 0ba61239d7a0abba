#!/usr/bin/env bash
# Installs what some tests use if it is there and skip without: libfaketime (clocks that jump), promtool (alert rules),
# buildah (the image).
set -euo pipefail

declare -A packages=([faketime]=faketime [promtool]=prometheus [buildah]=buildah)
missing=()
for program in "${!packages[@]}"; do
  command -v "$program" > /dev/null || missing+=("${packages[$program]}")
done
if [ "${#missing[@]}" = 0 ]; then
  exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
  echo "Install ${missing[*]} by your system's means (prometheus for promtool); without them some tests are skipped." >&2
  exit 1
fi
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" > /dev/null
