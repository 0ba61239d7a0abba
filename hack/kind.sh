#!/bin/sh
# Makes or deletes a kind cluster for the tests and for trials with real Pods: kind.sh up|down
set -eu
cd "$(dirname "$0")/.."
name=tuinly
kubeconfig=.kind/kubeconfig

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
    echo "Use it like this:"
    echo "  export KUBECONFIG=$PWD/$kubeconfig"
    echo "  make test KUBECONFIG_UNDER_TEST=$PWD/$kubeconfig"
    ;;
down)
    kind delete cluster --name "$name" --kubeconfig "$kubeconfig"
    ;;
*)
    fail "usage: kind.sh up|down"
    ;;
esac
