# To be sourced: what builds images here. Sets `engine` and defines what differs between docker, podman and buildah.
# ENGINE=… names one; else the first that answers is taken. buildah needs no daemon, and works in a container as root.

fail() { echo "error: $1" >&2; exit 1; }

answers() {
    case $1 in
    buildah) command -v buildah > /dev/null ;;
    *) command -v "$1" > /dev/null && "$1" info > /dev/null 2>&1 ;;
    esac
}

choose_engine() {
    local each
    for each in ${ENGINE:-docker podman buildah}; do
        if answers "$each"; then
            engine=$each
            # Works wherever the user may chroot: no overlay file system, no namespaces, which a container mostly lacks.
            if [ "$engine" = buildah ]; then
                export STORAGE_DRIVER=${STORAGE_DRIVER:-vfs} BUILDAH_ISOLATION=${BUILDAH_ISOLATION:-chroot}
            fi
            return 0
        fi
    done
    fail "no ${ENGINE:-docker, podman or buildah} that answers. On Debian and Ubuntu: apt-get install --no-install-recommends buildah, \
which needs no daemon; see \"docker info\" or \"podman info\" for an engine that is there but does not answer"
}

# build_image TAG FOLDER ARGUMENT…: builds FOLDER's Dockerfile; all times in it are SOURCE_DATE_EPOCH.
build_image() {
    local tag=$1 folder=$2
    shift 2
    case $engine in
    docker) docker build --tag "$tag" --build-arg "SOURCE_DATE_EPOCH=$SOURCE_DATE_EPOCH" "$@" "$folder" ;;
    *) "$engine" build --tag "$tag" --build-arg "SOURCE_DATE_EPOCH=$SOURCE_DATE_EPOCH" --timestamp "$SOURCE_DATE_EPOCH" \
        --format oci "$@" "$folder" ;;
    esac
}

# save_image TAG FILE: writes an archive that "ctr images import", "kind load image-archive" and "docker load" understand.
save_image() {
    rm -f "$2"
    case $engine in
    buildah) buildah push --quiet "$1" "oci-archive:$2:$1" ;;
    podman) podman save --quiet --format oci-archive --output "$2" "$1" ;;
    docker) docker save --output "$2" "$1" ;;
    esac
}

# has_image TAG
has_image() {
    case $engine in
    buildah) buildah inspect --type image "$1" > /dev/null 2>&1 ;;
    *) "$engine" image inspect "$1" > /dev/null 2>&1 ;;
    esac
}
