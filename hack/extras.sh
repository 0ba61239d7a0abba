#!/usr/bin/env bash
# Installs what some tests use if it is there and skip without: libfaketime (clocks that jump) and promtool (alert rules).
set -euo pipefail

if command -v faketime > /dev/null && command -v promtool > /dev/null; then
  exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
  echo "Install faketime and prometheus (for promtool) by your system's means; without them some tests are skipped." >&2
  exit 1
fi
apt-get update -qq
apt-get install -y -qq --no-install-recommends faketime prometheus > /dev/null
