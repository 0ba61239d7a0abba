"""The node's configuration files and command lines: plain texts of a few facts.

Addresses are those of its own network namespace, so they are free whatever the machine has.
"""

import json
import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.support.node.programs import CNI, Programs

Json = dict[str, Any]

ADDRESS: Final = "172.31.255.1"
"""The node's, on which the API server and DNS listen, too."""
API_SERVER: Final = f"https://{ADDRESS}:6443"
SERVICES: Final = "10.96.0.0/16"
SERVICE: Final = "10.96.0.1"
"""The Service "kubernetes", as Pods find it."""
PODS: Final = "10.244.0.0/24"
NAME: Final = "node1"
CONTAINERD: Final = "/run/containerd/containerd.sock"
PAUSE_IMAGE: Final = "localhost/tuinly-node-pause:1"


def containerd() -> str:
    """Return containerd's configuration: nothing of it outside /run and /var/lib, which are the node's own."""
    return f"""\
version = 3
root = '/var/lib/containerd'
state = '/run/containerd'
[grpc]
  address = '{CONTAINERD}'
[plugins.'io.containerd.internal.v1.opt']
  path = '/var/lib/containerd/opt'
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = '{PAUSE_IMAGE}'
[plugins.'io.containerd.cri.v1.runtime']
  # A container without CAP_SYS_RESOURCE may not lower the score, and a node inside one need not.
  restrict_oom_score_adj = true
  disable_apparmor = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ['{CNI}']
  conf_dir = 'cni'
[plugins.'io.containerd.nri.v1.nri']
  disable = true
"""


def network() -> Json:
    """Return the Pods' network: a pair of interfaces each, routed by the node, so that kube-proxy sees all packets."""
    ranges = [[{"subnet": PODS}]]
    ipam = {"type": "host-local", "dataDir": "/run/cni", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}]}
    return {"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "ptp", "ipam": ipam}]}


def kubelet(cgroup: str) -> Json:
    """Return the kubelet's configuration: its defaults, but for what a node in namespaces cannot have."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroup}",
        "clusterDNS": [ADDRESS],
        "clusterDomain": "cluster.local",
        "resolvConf": "",
        "containerRuntimeEndpoint": f"unix://{CONTAINERD}",
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        "maxPods": 250,
        "maxOpenFiles": resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        "oomScoreAdj": 0,
        "failSwapOn": False,
        # Who is in the network namespace is the node's owner anyway.
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
    }


def kube_proxy() -> Json:
    """Return kube-proxy's configuration."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": "kube-proxy.kubeconfig"},
        "hostnameOverride": NAME,
        "clusterCIDR": PODS,
        "conntrack": {"maxPerCore": 0, "min": 0},
        "bindAddress": ADDRESS,
        "metricsBindAddress": "127.0.0.1:10249",
        "healthzBindAddress": "127.0.0.1:10256",
    }


def coredns() -> str:
    """Return CoreDNS's configuration: the names of Services, and no others."""
    return """\
.:53 {
  errors
  kubernetes cluster.local in-addr.arpa {
    kubeconfig coredns.kubeconfig
  }
}
"""


def kubeconfig(authority: Path, token: str) -> Json:
    """Return a login by token."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "node", "cluster": {"server": API_SERVER, "certificate-authority": str(authority)}}],
        "users": [{"name": "node", "user": {"token": token}}],
        "contexts": [{"name": "node", "context": {"cluster": "node", "user": "node"}}],
        "current-context": "node",
    }


ACCOUNTS: Final[Mapping[str, tuple[str, str]]] = {
    "admin": ("admin", "system:masters"),
    "kube-controller-manager": ("system:kube-controller-manager", "system:masters"),
    "kube-scheduler": ("system:kube-scheduler", ""),
    "kube-proxy": ("system:kube-proxy", ""),
    "kubelet": (f"system:node:{NAME}", "system:nodes"),
    "coredns": ("coredns", "system:masters"),
    "policies": ("policies", "system:masters"),
}
"""Who logs in to the API server: user name and group, which have their rights by the API server's own bindings."""


def commands(programs: Programs) -> dict[str, list[str]]:
    """Return the command line of each of the node's programs; file names are relative to its folder."""
    etcd = "http://127.0.0.1:2379"
    return {
        "etcd": [
            programs["etcd"],
            "--data-dir=/var/lib/etcd",
            "--unsafe-no-fsync",  # nobody needs this data after a power cut
            f"--listen-client-urls={etcd}",
            f"--advertise-client-urls={etcd}",
            "--listen-peer-urls=http://127.0.0.1:2380",
        ],
        "kube-apiserver": [
            programs["kube-apiserver"],
            f"--etcd-servers={etcd}",
            "--bind-address=0.0.0.0",
            "--secure-port=6443",
            f"--advertise-address={ADDRESS}",
            "--tls-cert-file=apiserver.pem",
            "--tls-private-key-file=apiserver.pem",
            f"--service-cluster-ip-range={SERVICES}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--token-auth-file=tokens.csv",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-account-key-file=service-accounts.key",
            "--service-account-signing-key-file=service-accounts.key",
            "--kubelet-preferred-address-types=InternalIP",
            "--allow-privileged=true",
        ],
        "kube-controller-manager": [
            programs["kube-controller-manager"],
            "--kubeconfig=kube-controller-manager.kubeconfig",
            "--service-account-private-key-file=service-accounts.key",
            "--root-ca-file=authority.crt",
            "--leader-elect=false",  # there is no other
            "--flex-volume-plugin-dir=/var/lib/kubelet/volume-plugins",
            "--secure-port=0",
        ],
        "kube-scheduler": [
            programs["kube-scheduler"],
            "--kubeconfig=kube-scheduler.kubeconfig",
            "--leader-elect=false",
            "--secure-port=0",
        ],
        "containerd": [programs["containerd"], "--config=containerd.toml"],
        "kubelet": [
            programs["kubelet"],
            "--kubeconfig=kubelet.kubeconfig",
            "--config=kubelet.json",
            f"--hostname-override={NAME}",
            f"--node-ip={ADDRESS}",
        ],
        "kube-proxy": [programs["kube-proxy"], "--config=kube-proxy.json"],
        "coredns": [programs["coredns"], "-conf", "Corefile"],
        "policies": [programs["policies"], "policies.kubeconfig", NAME, SERVICES],
    }


def write_all(folder: Path, cgroup: str) -> None:
    """Write the files that hold no secret to `folder`."""
    (folder / "cni").mkdir()
    (folder / "cni" / "pods.conflist").write_text(json.dumps(network()))
    (folder / "containerd.toml").write_text(containerd())
    (folder / "kubelet.json").write_text(json.dumps(kubelet(cgroup)))
    (folder / "kube-proxy.json").write_text(json.dumps(kube_proxy()))
    (folder / "Corefile").write_text(coredns())
