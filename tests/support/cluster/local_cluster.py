"""A control plane of ours on loopback (etcd, kube-apiserver, kube-controller-manager) that ends with this process."""

import base64
import json
import secrets
import shutil
import socket
import ssl
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from urllib.parse import urlsplit

import trustme

from tests.support.binaries import Binaries, find
from tests.support.cluster.any_cluster import Cluster, ClusterError, write_private
from tests.support.guarded import Guarded

READY_SECONDS = 60.0
"""How long the control plane may take to become ready; on two idle cores it takes 3 s."""


class LocalCluster(Cluster):
    """A cluster whose programs are ours to stop and start.

    No other user of the machine gets in: etcd listens on a socket in a closed folder, the API server wants a token that
    only files of mode 0600 hold.

    Attributes:
        logs: the folder with a log of each program.
        processes: the programs that were started last, by name.
    """

    def __init__(self, directory: Path, binaries: Binaries) -> None:
        """Start a new cluster whose data, logs and keys go to `directory`, and wait until it is ready.

        Raises:
            ClusterError: a program ended, or was not ready in time.
        """
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o700)
        self.logs = directory / "logs"
        self.logs.mkdir()
        self.processes: dict[str, Guarded] = {}
        self._binaries = binaries
        self._port = _hold_free_port()
        self._token = secrets.token_urlsafe(32)
        _write_keys(directory, self._token)
        kubeconfig = directory / "kubeconfig"
        server = f"https://127.0.0.1:{self._port.getsockname()[1]}"
        write_private(kubeconfig, _kubeconfig(server, directory / "authority.crt", self._token))
        super().__init__(kubeconfig, directory)
        try:
            self._start("etcd", self._etcd())
            self.start_apiserver()
            self._start("kube-controller-manager", self._controller_manager())
            # What others wait for in a new namespace: without this account no Pod is admitted.
            self._wait_for("/api/v1/namespaces/default/serviceaccounts/default")
        except BaseException:
            self.stop()
            raise

    @property
    def pids(self) -> dict[str, int]:
        """Its programs' processes, by name."""
        return {name: process.pid for name, process in self.processes.items()}

    def stop(self) -> None:
        """End all programs at once: they have nothing to save, and their data goes with the folder."""
        for process in self.processes.values():
            process.end()
        self._port.close()

    def stop_apiserver(self) -> None:
        """Take the API server away, as its crash would: connections break, new ones are refused."""
        self.processes["kube-apiserver"].end()

    def start_apiserver(self) -> None:
        """Start the API server, on the same port and data as before, and wait until it is ready.

        Raises:
            ClusterError: it ended, or was not ready in time.
        """
        self._start("kube-apiserver", self._apiserver())
        self._wait_for("/readyz")

    def stop_etcd(self) -> None:
        """Take the API server's storage away, as its crash would; the API server stays, and cannot do much."""
        self.processes["etcd"].end()

    def start_etcd(self) -> None:
        """Start etcd, on the same data as before, and wait until the API server is ready.

        Raises:
            ClusterError: it ended, or was not ready in time.
        """
        self._start("etcd", self._etcd())
        self._wait_for("/readyz")

    def back_up(self) -> None:
        """Keep what etcd holds now, for `restore`; the cluster is away meanwhile.

        Raises:
            ClusterError: it did not come back.
        """
        with self._stopped_etcd() as data:
            shutil.rmtree(self.directory / "backup", ignore_errors=True)
            shutil.copytree(data, self.directory / "backup")

    def restore(self) -> None:
        """Go back to what etcd held at the last `back_up`, resource versions included.

        Raises:
            ClusterError: the cluster did not come back.
        """
        with self._stopped_etcd() as data:
            shutil.rmtree(data)
            shutil.copytree(self.directory / "backup", data)

    @contextmanager
    def _stopped_etcd(self) -> Iterator[Path]:
        """Return the folder of etcd's data, while nobody uses it."""
        self.stop_apiserver()
        self.stop_etcd()
        yield self.directory / "etcd"
        self._start("etcd", self._etcd())
        self.start_apiserver()

    def _etcd(self) -> list[str | Path]:
        # Sockets need no port, and unlike one they are closed to other users. Their paths are relative, as a path may
        # have 107 characters at most.
        client, peer = "unix://etcd.sock", "unix://etcd-peer.sock"
        return [
            self._binaries.etcd,
            "--data-dir=etcd",
            "--unsafe-no-fsync",  # nobody needs this data after a power cut
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
        ]

    def _apiserver(self) -> list[str | Path]:
        return [
            self._binaries.apiserver,
            "--etcd-servers=unix://etcd.sock",
            "--etcd-compaction-interval=0",  # tests read an object's history back, and may be slow to do so
            "--bind-address=127.0.0.1",
            f"--secure-port={self._port.getsockname()[1]}",
            "--permit-port-sharing",  # with the socket that holds the port for us
            "--tls-cert-file=apiserver.pem",
            "--tls-private-key-file=apiserver.pem",
            "--token-auth-file=tokens.csv",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-account-key-file=service-accounts.key",
            "--service-account-signing-key-file=service-accounts.key",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--endpoint-reconciler-type=none",  # it complains of a loopback address; there are no Pods to use it
        ]

    def _controller_manager(self) -> list[str | Path]:
        return [
            self._binaries.controller_manager,
            "--kubeconfig=kubeconfig",
            "--service-account-private-key-file=service-accounts.key",
            "--root-ca-file=authority.crt",
            "--leader-elect=false",  # there is no other
            "--secure-port=0",  # nobody asks for its metrics
        ]

    def _start(self, name: str, argv: list[str | Path]) -> None:
        with (self.logs / f"{name}.log").open("ab") as log:
            self.processes[name] = Guarded(argv, output=log, cwd=self.directory)

    def _wait_for(self, path: str) -> None:
        """Wait until the API server answers a GET of `path` with 200, while all programs run."""
        context = ssl.create_default_context(cafile=self.ca_file)
        deadline = time.monotonic() + READY_SECONDS
        while not self._answers(path, context):
            for name, process in self.processes.items():
                if process.poll() is not None:
                    raise ClusterError(f"{name} ended with exit status {process.returncode}:\n{self._last_lines(name)}")
            if time.monotonic() > deadline:
                logs = "\n".join(f"{name}:\n{self._last_lines(name)}" for name in self.processes)
                raise ClusterError(f"{path} was not there after {READY_SECONDS:.0f} s\n{logs}")
            time.sleep(0.05)

    def _answers(self, path: str, context: ssl.SSLContext) -> bool:
        connection = HTTPSConnection(urlsplit(self.server).netloc, timeout=5.0, context=context)
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {self._token}"})
            return connection.getresponse().status == HTTPStatus.OK
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    def _last_lines(self, name: str) -> str:
        return "\n".join((self.logs / f"{name}.log").read_text(errors="replace").splitlines()[-10:])


@contextmanager
def running_cluster() -> Iterator[LocalCluster]:
    """Run a new cluster in a temporary folder, for as long as the context lasts.

    Raises:
        BinariesError: its programs are not there.
        ClusterError: it does not start.
    """
    with tempfile.TemporaryDirectory(prefix="tuinly-cluster-") as folder:
        cluster = LocalCluster(Path(folder), find())
        try:
            yield cluster
        finally:
            cluster.stop()


def _hold_free_port() -> socket.socket:
    """Take a free port of 127.0.0.1 in such a way that only a program of the same user that shares it can listen there.

    So nobody takes it before the API server starts, nor while it is stopped.
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    holder.bind(("127.0.0.1", 0))
    return holder


def _write_keys(directory: Path, token: str) -> None:
    """Write what the programs authenticate with: a certificate of a new authority, a signing key, the admin's token."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(directory / "authority.crt")
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    write_private(directory / "apiserver.pem", certificate.private_key_and_cert_chain_pem.bytes().decode())
    # Any key of its own will do; trustme makes one of the P-256 curve, which ServiceAccount tokens may be signed with.
    write_private(directory / "service-accounts.key", trustme.CA().private_key_pem.bytes().decode())
    write_private(directory / "tokens.csv", f'{token},admin,admin,"system:masters"\n')


def _kubeconfig(server: str, authority: Path, token: str) -> str:
    """Return a kubeconfig (JSON is YAML too) that needs no other file, so that it can be copied."""
    certificates = base64.b64encode(authority.read_bytes()).decode()
    name = "tuinly"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": server, "certificate-authority-data": certificates}}],
        "users": [{"name": name, "user": {"token": token}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }
    return json.dumps(config)
