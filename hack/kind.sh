#!/bin/sh
# Makes or deletes a kind cluster in which the operator runs, built from this checkout: kind.sh up|down
set -eu
cd "$(dirname "$0")/.."
name=tuinly
kubeconfig=.kind/kubeconfig
version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
image=tuinly-operator:$version
[ ! -x .venv/bin/kubectl ] || PATH=$PATH:$PWD/.venv/bin  # where there is no other

fail() { echo "error: $1" >&2; exit 1; }

command -v docker > /dev/null || fail "kind needs Docker, and there is no docker on PATH; make cluster-up needs neither, but runs no Pods"
docker info > /dev/null 2>&1 || fail "kind needs Docker, and docker cannot reach its engine: start it, or see docker info"
command -v kind > /dev/null || fail "no kind on PATH: install it as its quick start says (kind.sigs.k8s.io)"

case ${1:-} in
up)
    mkdir -p .kind
    chmod 700 .kind
    if kind get clusters 2> /dev/null | grep -qx "$name"; then
        kind export kubeconfig --name "$name" --kubeconfig "$kubeconfig"
    else
        kind create cluster --name "$name" --config hack/kind.yaml --kubeconfig "$kubeconfig" --wait 120s
    fi
    ENGINE=docker IMAGE=$image hack/image.sh
    kind load docker-image "$image" --name "$name"
    export KUBECONFIG=$PWD/$kubeconfig
    kubectl apply -f crds/
    sed "s|registry.invalid/tuinly-operator:$version|$image|" deploy/install.yaml | kubectl apply -f -
    kubectl -n tuinly-system rollout restart deployment/tuinly-operator  # an image of the same name may be a new one
    kubectl -n tuinly-system rollout status deployment/tuinly-operator --timeout=120s
    echo "The operator runs. Use it like this:"
    echo "  export KUBECONFIG=$PWD/$kubeconfig"
    echo "The tests start operators of their own, so end this one before them:"
    echo "  kubectl -n tuinly-system delete deployment tuinly-operator"
    echo "  make test KUBECONFIG_UNDER_TEST=$PWD/$kubeconfig"
    ;;
down)
    kind delete cluster --name "$name" --kubeconfig "$kubeconfig"
    ;;
*)
    fail "usage: kind.sh up|down"
    ;;
esac
