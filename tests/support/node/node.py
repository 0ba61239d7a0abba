"""A node for tests and trials: started, entered, its programs ended, and removed without a trace."""

import hashlib
import json
import os
import secrets
import subprocess
import sys
import time
from pathlib import Path

import trustme

from tests.support.cluster.any_cluster import write_private
from tests.support.guarded import Guarded
from tests.support.node import files
from tests.support.node.any_node import AnyNode, NodeError
from tests.support.node.init import PIDS
from tests.support.node.pause import write_pause_image
from tests.support.node.programs import Programs, cgroup_roots, policies_can_be_enforced
from tests.support.process_identity import identity

ROOT = Path(__file__).parents[3]
END_SECONDS = 30.0


class Node(AnyNode):
    """A running node, as a context manager. However its starter ends, it does not outlive it.

    The thread that makes it moves into the node's network.

    Attributes:
        logs: the folder with a log of each of its programs.
        processes: what keeps it running, by name.
    """

    def __init__(self, folder: Path, programs: Programs) -> None:
        """Start a node whose keys and logs go to `folder`, which has none yet, and wait until it takes Pods.

        Raises:
            NodeError: it is not ready in time.
        """
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        self.name = files.NAME
        self.enforces_policies = policies_can_be_enforced()
        self._folder = folder
        self._programs = programs
        self.logs = folder / "logs"
        self.logs.mkdir()
        remove_cgroups(folder)  # of one that was killed together with all that could remove them
        self._write_files()
        with (self.logs / "init.log").open("wb") as log:
            unshare = Guarded(
                [
                    *("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc"),
                    *("--propagation", "private", sys.executable, "-m", "tests.support.node.init", str(folder)),
                ],
                output=log,
                cwd=ROOT,
                env={**os.environ, "PATH": programs.search_path, "HOME": "/var/lib"},
            )
        self.processes = {"unshare": unshare}
        try:
            self.await_(lambda: bool(self._children()), "its first process")
            [self.pid] = self._children()
            self.await_((folder / PIDS).exists, "its programs")
            self.enter_network()
            self.await_(lambda: self._ctr("version"), "containerd")
            self.load(self._pause_image())
            super().__init__(folder / "admin.kubeconfig", folder)
            self.await_(lambda: self.kubectl("get", "--raw=/readyz", check=False) == "ok", "the API server")
            self.await_(self.takes_pods, "a node that takes Pods")
        except BaseException:
            self.stop()
            raise

    @property
    def pids(self) -> dict[str, int]:
        """Its processes that are of use to others: its first one, which is in all of its namespaces."""
        return {"unshare": self.processes["unshare"].pid, "init": self.pid}

    def stop(self) -> None:
        """End all of it at once, and remove its cgroups."""
        alive = {pid: identity(pid) for pid in self._children()}
        self.processes["unshare"].end()
        deadline = time.monotonic() + END_SECONDS
        while any(identity(pid) == was is not None for pid, was in alive.items()) and time.monotonic() < deadline:
            time.sleep(0.05)
        remove_cgroups(self._folder)

    def load(self, archive: Path) -> None:
        """Give the node an image from an archive, by the name in it, which should begin with a registry.

        Raises:
            NodeError: containerd does not take it.
        """
        if not self._ctr("images", "import", str(archive)):
            raise NodeError(f"containerd does not take {archive}:\n{self._last_lines('containerd')}")

    def program_pid(self, program: str) -> int | None:
        """Return the number that a program has inside; None while it is about to be started again."""
        pid: int | None = json.loads((self._folder / PIDS).read_text()).get(program)
        return pid

    # ------------------------------------------------------------------------------------------------------------------

    def _write_files(self) -> None:
        cgroup = cgroup_of(self._folder)
        files.write_all(self._folder, cgroup)
        commands = files.commands(self._programs)
        if not self.enforces_policies:
            del commands["policies"]
        plan = {"cgroup": cgroup, "commands": commands}
        (self._folder / "plan.json").write_text(json.dumps(plan))
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self._folder / "authority.crt")
        certificate = authority.issue_cert(files.ADDRESS, files.SERVICE, "kubernetes.default.svc")
        write_private(self._folder / "apiserver.pem", certificate.private_key_and_cert_chain_pem.bytes().decode())
        write_private(self._folder / "service-accounts.key", trustme.CA().private_key_pem.bytes().decode())
        lines = []
        for name, (user, group) in files.ACCOUNTS.items():
            token = secrets.token_urlsafe(32)
            lines.append(f'{token},{user},{name},"{group}"\n')
            config = files.kubeconfig(self._folder / "authority.crt", token)
            write_private(self._folder / f"{name}.kubeconfig", json.dumps(config))
        write_private(self._folder / "tokens.csv", "".join(lines))

    def _pause_image(self) -> Path:
        archive = self._folder / "pause.tar"
        write_pause_image(self._programs.paths["pause"], archive)
        return archive

    def _children(self) -> list[int]:
        """Return the first process's number, as it is outside, in a list that is empty when there is none."""
        parent = self.processes["unshare"].pid
        try:
            children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        except OSError:
            return []
        # Before it becomes unshare, the process has a guardian as its child.
        guardian = [pid for pid in map(int, children) if _same_namespace(pid, parent)]
        return [pid for pid in map(int, children) if pid not in guardian]

    def _ctr(self, *argv: str) -> bool:
        socket = f"/proc/{self.pid}/root{files.CONTAINERD}"
        command = [self._programs["ctr"], "--address", socket, "--namespace", "k8s.io", *argv]
        with (self.logs / "ctr.log").open("ab") as log:
            return subprocess.run(command, stdout=log, stderr=log, check=False).returncode == 0  # noqa: S603 -- ours

    def has_ended(self) -> bool:
        """Whether its first process has."""
        return self.processes["unshare"].poll() is not None

    def tell(self) -> str:
        """Return the last lines of each program's log."""
        return "\n".join(f"{path.stem}: {self._last_lines(path.stem)}" for path in sorted(self.logs.glob("*.log")))

    def _last_lines(self, name: str, count: int = 5) -> str:
        path = self.logs / f"{name}.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-count:]) if path.exists() else ""


def cgroup_of(folder: Path) -> str:
    """Return the name of the cgroups of the node in `folder`: always the same, so that leftovers can be found."""
    return f"tuinly-{hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:12]}"


def remove_cgroups(folder: Path) -> None:
    """Remove the cgroups of the node in `folder`, which runs no more, where there are any."""
    for root in cgroup_roots():
        for path, _, _ in os.walk(root / cgroup_of(folder), topdown=False):
            Path(path).rmdir()


def _same_namespace(pid: int, other: int) -> bool:
    try:
        return Path(f"/proc/{pid}/ns/pid").readlink() == Path(f"/proc/{other}/ns/pid").readlink()
    except OSError:
        return True
