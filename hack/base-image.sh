#!/usr/bin/env bash
# Makes base images from Debian's (or Ubuntu's) packages, where no registry has any: one to build with, which has pip and a
# shell, and one to run on, which has Python and nothing else.
#
#   hack/base-image.sh [--missing | --check]    --missing makes them only if this script has not made them here before,
#                                               --check makes none, and says what the machine lacks for it
#
# Prints what to give to make image. The packages are unpacked, not installed: no maintainer script runs, so the same packages
# give the same bytes. What those scripts would have done and Python needs (a bundle of CA certificates, links) is done here.
set -euo pipefail
cd "$(dirname "$0")/.."
. hack/engine.sh

tag=$(cksum < hack/base-image.sh | cut -d ' ' -f 1)
BUILD=localhost/tuinly-base-build:$tag
RUNTIME=localhost/tuinly-base-runtime:$tag
PYTHON=(base-files libpython3-stdlib netbase python3-minimal)
# Pulled in for maintainer scripts, which do not run, or by metapackages: they count as installed already.
UNNEEDED=(awk debconf dpkg install-info mailcap openssl perl perl-base perl:any tar)

command -v apt-get > /dev/null && command -v dpkg-deb > /dev/null ||
    fail "base images are made from Debian's packages, and there is no apt-get here: take images with Python from a registry"
[ "$(id -u)" = 0 ] || fail "only root can unpack packages as they are: run make base-image as root, or take images with Python from a registry"
choose_engine
if [ "${1:-}" = --check ]; then exit; fi
result="BUILD_IMAGE=$BUILD RUNTIME_IMAGE=$RUNTIME"
if [ "${1:-}" = --missing ] && has_image "$BUILD" && has_image "$RUNTIME"; then
    echo "$result"
    exit
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# packages TO FROM…: downloads the packages FROM and what they depend on into the folder TO.
packages() {
    local to=$1
    shift
    mkdir -p "$to/partial"
    for name in "${UNNEEDED[@]}"; do
        printf 'Package: %s\nStatus: install ok installed\nArchitecture: all\nMulti-Arch: foreign\nVersion: 9999\n\n' "$name"
    done > "$work/status"
    apt-get -o Dir::State::status="$work/status" -o Dir::Cache::archives="$to" -o APT::Install-Recommends=false \
        -o APT::Sandbox::User=root -o Debug::NoLocking=true \
        --download-only --yes install "$@" > "$work/log" 2>&1 ||
        { cat "$work/log" >&2; fail "the packages cannot be had: try apt-get update first"; }
}

# unpack FROM ROOT: unpacks all packages of a folder, without what only people read, and makes what their scripts would.
unpack() {
    local from=$1 root=$2 deb name
    mkdir -p "$root"/{etc/ssl/certs,usr/{bin,sbin,lib,lib64},var/lib/dpkg/status.d}
    ln -s usr/bin usr/sbin usr/lib usr/lib64 "$root/"
    for deb in "$from"/*.deb; do
        name=$(dpkg-deb --field "$deb" Package)
        dpkg-deb --fsys-tarfile "$deb" | tar --extract --directory "$root" --keep-directory-symlink --preserve-permissions \
            --exclude './usr/share/doc/*/[!c]*' --exclude './usr/share/man/*' --exclude './usr/share/info/*' \
            --exclude './usr/share/locale/*' --exclude './usr/share/lintian/*'
        # Where scanners of images without a package manager look for what is in them.
        dpkg-deb --field "$deb" > "$root/var/lib/dpkg/status.d/$name"
    done
    (cd "$root/usr/share/ca-certificates" && find . -name '*.crt' | LC_ALL=C sort | xargs cat) > "$root/etc/ssl/certs/ca-certificates.crt"
    mkdir -p "$root/usr/lib/ssl"
    ln -sf /etc/ssl/certs/ca-certificates.crt "$root/usr/lib/ssl/cert.pem"
    ln -sf python3 "$root/usr/bin/python"
    rmdir "$root/var/run" && ln -s /run "$root/var/run"
    echo 'hosts: files dns' > "$root/etc/nsswitch.conf"
    echo 'root:x:0:0:root:/root:/sbin/nologin' > "$root/etc/passwd"
    echo 'root:x:0:' > "$root/etc/group"
}

# image TAG FOLDER: makes an image of the root file system FOLDER/rootfs.tar.
image() {
    printf 'FROM scratch\nADD rootfs.tar /\nENV PATH=/usr/bin\n' > "$2/Dockerfile"
    build_image "$1" "$2" > "$work/log" 2>&1 || { cat "$work/log" >&2; fail "$engine cannot build $1"; }
}

export SOURCE_DATE_EPOCH=0
for kind in build runtime; do
    mkdir -p "$work/$kind/image"
    case $kind in
    build) packages "$work/$kind/debs" "${PYTHON[@]}" ca-certificates coreutils dash findutils python3-pip python3-venv ;;
    runtime) packages "$work/$kind/debs" "${PYTHON[@]}" ca-certificates ;;
    esac
    unpack "$work/$kind/debs" "$work/$kind/root"
    tar --create --file "$work/$kind/image/rootfs.tar" --directory "$work/$kind/root" --sort=name --numeric-owner \
        --owner=0 --group=0 --mtime=@0 .
done
image "$BUILD" "$work/build/image"
image "$RUNTIME" "$work/runtime/image"
echo "$result"
