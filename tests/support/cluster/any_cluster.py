"""Any cluster, as the owner of a kubeconfig sees it: kubectl, and logins as ServiceAccounts."""

import base64
import json
import os
import subprocess
import sysconfig
from pathlib import Path
from typing import Any


class ClusterError(Exception):
    """The cluster does not start or does not fit; the message quotes the last log lines where there are any."""


class KubectlError(Exception):
    """A kubectl command that failed.

    Attributes:
        stderr: what it said.
    """

    def __init__(self, command: str, returncode: int, stderr: str) -> None:
        """Describe `command` ("kubectl get …"), its exit status and what it said."""
        super().__init__(f"{command}: exit status {returncode}: {stderr.strip()}")
        self.stderr = stderr


class Cluster:
    """A cluster that is there.

    Attributes:
        kubeconfig: the admin's kubeconfig.
        directory: a folder for this object's files, closed to other users.
        server: the API server's URL.
        ca_file: the certificates to trust there (PEM).
    """

    def __init__(self, kubeconfig: Path, directory: Path) -> None:
        """Use the current context of `kubeconfig`.

        Raises:
            ClusterError: it cannot be read, or names no server or no certificate authority.
        """
        self.kubeconfig = kubeconfig
        self.directory = directory
        self.ca_file = directory / "ca.crt"
        try:
            cluster = self._view_kubeconfig()["clusters"][0]["cluster"]
            self.server: str = cluster["server"]
            self.ca_file.write_bytes(base64.b64decode(cluster["certificate-authority-data"]))
        except KubectlError as error:
            raise ClusterError(f"{kubeconfig} is no use as a kubeconfig: {error.stderr.strip()}") from None
        except (KeyError, TypeError, IndexError):
            raise ClusterError(f"{kubeconfig}: its current context has no server with certificate authority") from None

    def kubectl(
        self,
        *args: str,
        input: str | None = None,  # noqa: A002 - the name that subprocess.run gives it
        check: bool = True,
        kubeconfig: Path | None = None,
        timeout: float = 60.0,
    ) -> str:
        """Run kubectl and return its standard output.

        Args:
            args: the command; never a secret, as every user can read the arguments of a process.
            input: standard input, for `-f -`.
            check: whether a failure is an error.
            kubeconfig: another login than the admin's.
            timeout: seconds after which the command is ended.

        Raises:
            KubectlError: the command failed, and `check` is set.
            subprocess.TimeoutExpired: it took too long.
        """
        answer = subprocess.run(  # noqa: S603 - our own kubectl, from its wheel
            [Path(sysconfig.get_path("scripts")) / "kubectl", *args],
            input=input,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=timeout,
            env={
                **os.environ,
                "KUBECONFIG": str(kubeconfig or self.kubeconfig),
                # The default cache is keyed by host and port: it would serve what an earlier cluster there had.
                "KUBECACHEDIR": str(self.directory / "kubectl-cache"),
            },
        )
        if check and answer.returncode != 0:
            raise KubectlError(" ".join(("kubectl", *args)), answer.returncode, answer.stderr)
        return answer.stdout

    def kubeconfig_for(self, namespace: str, service_account: str) -> Path:
        """Return a new kubeconfig (mode 0600) with a day's token of a ServiceAccount, which must exist."""
        token = self.kubectl("create", "token", service_account, "--namespace", namespace, "--duration", "24h").strip()
        config = self._view_kubeconfig()
        config["users"] = [{"name": service_account, "user": {"token": token}}]
        config["contexts"][0]["context"] |= {"user": service_account, "namespace": namespace}
        path = self.directory / f"{namespace}.{service_account}.kubeconfig"
        write_private(path, json.dumps(config))
        return path

    def _view_kubeconfig(self) -> dict[str, Any]:
        """Return the admin's kubeconfig: its current context only, with files in place of their names."""
        view = self.kubectl("config", "view", "--raw", "--minify", "--flatten", "--output", "json")
        config: dict[str, Any] = json.loads(view)
        return config


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may ever read, also while it is written."""
    path.unlink(missing_ok=True)  # else an old file's mode would stay
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
