#!/usr/bin/env bash
# Builds the operator's image from the Dockerfile, with whichever of docker, podman and buildah is there: make image.
#
# The same commit, builder and base give the same bytes. Variables, all optional:
#
#   IMAGE          its name; default: tuinly-operator:VERSION
#   ARCHIVE        a file for an archive of it besides (OCI's format; Docker's where docker builds), for a node or a registry's tool
#   BUILD_IMAGE, RUNTIME_IMAGE   bases from elsewhere than the public registry: see the Dockerfile, and make base-image
#   PLATFORM       such as linux/arm64; default: this machine's
#   CA_BUNDLE      certificates (PEM) to trust while packages are fetched; default: $PIP_CERT. Not kept in the image
#   PIP_CONF       a pip.conf that names a package index; default: $PIP_CONFIG_FILE. Not kept in the image
#   ENGINE         docker, podman or buildah; default: the first that answers
#
# Arguments are the engine's, such as --no-cache.
set -euo pipefail
cd "$(dirname "$0")/.."
. hack/engine.sh

version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
image=${IMAGE:-tuinly-operator:$version}

# A foreign platform's programs run while the image is built: the kernel must know an interpreter for them.
check_platform() {
    local ours wanted
    case $(uname -m) in x86_64) ours=amd64 ;; aarch64 | arm64) ours=arm64 ;; *) ours=$(uname -m) ;; esac
    wanted=${PLATFORM#*/}
    case ${wanted%%/*} in
    "$ours") return ;;
    amd64) wanted=x86_64 ;;
    arm64) wanted=aarch64 ;;
    esac
    # Elsewhere than on Linux, the engine has a machine of its own, into which this script cannot look.
    [ "$(uname -s)" != Linux ] || grep -qsx enabled "/proc/sys/fs/binfmt_misc/qemu-${wanted%%/*}" ||
        fail "this machine cannot run programs for $PLATFORM, as its kernel has no binfmt entry qemu-${wanted%%/*}. \
On Debian and Ubuntu: apt-get install qemu-user-static binfmt-support"
}

arguments=("$@")
if [ -n "${PLATFORM:-}" ]; then
    check_platform
    arguments+=(--platform "$PLATFORM")
fi
# The usual base by its own name, so that the image's label tells it.
usual=$(sed -n 's/^FROM \(.*\) AS usual-base$/\1/p' Dockerfile)
arguments+=(--build-arg "BUILD_IMAGE=${BUILD_IMAGE:-$usual}" --build-arg "RUNTIME_IMAGE=${RUNTIME_IMAGE:-$usual}")
CA_BUNDLE=${CA_BUNDLE:-${PIP_CERT:-}}
PIP_CONF=${PIP_CONF:-${PIP_CONFIG_FILE:-}}
if [ -n "$CA_BUNDLE" ]; then arguments+=(--secret "id=ca-bundle,src=$CA_BUNDLE"); fi
if [ -n "$PIP_CONF" ]; then arguments+=(--secret "id=pip.conf,src=$PIP_CONF"); fi

# Without git, as in an archive of the source, the revision is unknown and the time is 1970.
revision=$(git rev-parse HEAD 2> /dev/null || echo unknown)
if [ -n "$(git status --porcelain 2> /dev/null)" ]; then revision=$revision-modified; fi
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2> /dev/null || echo 0)}
created=$(date --utc --date "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)

choose_engine
echo "Building $image with $engine" >&2
build_image "$image" . "${arguments[@]}" --build-arg "VERSION=$version" --build-arg "REVISION=$revision" --build-arg "CREATED=$created"
if [ -n "${ARCHIVE:-}" ]; then save_image "$image" "$ARCHIVE"; fi
