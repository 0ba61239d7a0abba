#!/bin/sh
# Writes go.mod and go.sum anew for a version of Kubernetes, with the etcd that it was released with: ./update.sh 1.37.2
set -eu
cd "$(dirname "$0")"
kubernetes=${1:?usage: update.sh VERSION, such as 1.37.2}
staging=v0.${kubernetes#1.}
export GOTOOLCHAIN=local GOFLAGS=-mod=mod

upstream=$(go mod download -json "k8s.io/kubernetes@v$kubernetes" | sed -n 's/.*"GoMod": "\(.*\)".*/\1/p')
etcd=$(sed -n 's|.*go.etcd.io/etcd/client/v3 \(v[^ ]*\).*|\1|p' "$upstream" | head -n 1)

rm -f go.sum
{
    sed '/^module/q' go.mod
    echo
    sed -n '/^go [0-9]/p; /^godebug /p' "$upstream"
    echo
    echo "// The zip of k8s.io/kubernetes lacks the staging folders that its own go.mod points to: take the published modules."
    echo "replace ("
    sed -n "s|^	\(k8s.io/[^ ]*\) => ./staging.*|	\1 => \1 $staging|p" "$upstream"
    echo ")"
    echo
    echo "require k8s.io/kubernetes v$kubernetes"
} > go.mod.new
mv go.mod.new go.mod
go get -tool "go.etcd.io/etcd/server/v3@$etcd" k8s.io/kubernetes/cmd/kube-apiserver k8s.io/kubernetes/cmd/kube-controller-manager \
    k8s.io/kubernetes/cmd/kube-scheduler k8s.io/kubernetes/cmd/kubelet k8s.io/kubernetes/cmd/kube-proxy
go mod tidy
