#!/usr/bin/env bash
# Installs what some tests use if it is there and skip without: libfaketime (clocks that jump), promtool (alert rules),
# buildah (the image), Chromium (the docs' site), and what a node needs (runc, and what gives Pods a network).
set -euo pipefail

missing=()
need() { [ -e "$1" ] || command -v "$1" > /dev/null || missing+=("$2"); }
need faketime faketime
need promtool prometheus
need buildah buildah
need chromium chromium
need chromedriver chromium-driver
need runc runc
need nft nftables
need iptables iptables
need ipset ipset
need /usr/lib/cni/ptp containernetworking-plugins

if [ "${#missing[@]}" = 0 ]; then
  exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
  echo "Install by your system's means: ${missing[*]}. Without them some tests are skipped." >&2
  exit 1
fi
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" > /dev/null
