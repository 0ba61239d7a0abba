"""Runs the exec plugin of a kubeconfig: a program that prints a login (ExecCredential, client.authentication.k8s.io).

The Kubernetes client for Python can run one too, but it cannot end a plugin that hangs, and hides why one failed.
"""

import asyncio
import json
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

_MOST: Final = 1024 * 1024  # bytes of an answer; a program that prints more is killed
_REAP_SECONDS: Final = 1.0  # for a program to end once it is killed


class PluginError(Exception):
    """The plugin gave no login. Its text is the end of a sentence, and quotes nothing that the plugin printed."""


async def ask_plugin(plugin: Mapping[str, Any]) -> Mapping[str, Any]:
    """Run a plugin, as the `exec` of a kubeconfig's user describes it, and return the status that it prints.

    The plugin has no terminal. If this is cancelled, the plugin is killed with its children.

    Raises:
        PluginError: it cannot be run, it fails, or it prints something else.
    """
    command, version = plugin["command"], plugin["apiVersion"]
    info = {"apiVersion": version, "kind": "ExecCredential", "spec": {"interactive": False}}
    env = {each["name"]: each["value"] for each in plugin.get("env") or ()}
    env = {**os.environ, **env, "KUBERNETES_EXEC_INFO": json.dumps(info)}  # noqa: TID251 -- handed to a program
    try:
        answer, code = await _run([command, *(plugin.get("args") or ())], env)
    except OSError as error:
        raise PluginError(f"names the exec plugin {command}, which cannot be run: {error.strerror}") from None
    if code:
        raise PluginError(f"names the exec plugin {command}, which failed with exit status {code}")
    with suppress(ValueError, TypeError, KeyError, AttributeError):
        printed = json.loads(answer)
        status: Mapping[str, Any] = printed["status"]
        if printed["apiVersion"] == version and (status.get("token") or status.get("clientCertificateData")):
            return status
    raise PluginError(f"names the exec plugin {command}, which printed no login of {version}")


async def _run(argv: list[str], env: Mapping[str, str]) -> tuple[bytes, int | None]:
    """Run a program in a session of its own, and return what it printed, and its exit status. Raises OSError."""
    transport, output = await asyncio.get_running_loop().subprocess_exec(
        _Output,
        *argv,
        env=env,
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,  # it may quote secrets
        start_new_session=True,
    )
    try:
        await asyncio.shield(output.ended)
        return bytes(output.printed), transport.get_returncode()
    finally:
        if not output.ended.done():
            output.kill()
            await asyncio.wait({output.ended}, timeout=_REAP_SECONDS)
        transport.close()


class _Output(asyncio.SubprocessProtocol):
    """What a program prints, until it has ended and nothing else holds its output."""

    def __init__(self) -> None:
        self.printed = bytearray()
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def pipe_data_received(self, fd: int, data: bytes) -> None:  # noqa: ARG002 -- asyncio's
        self.printed += data
        if len(self.printed) > _MOST:
            self.kill()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- asyncio's
        self.ended.set_result(None)

    def kill(self) -> None:
        """Kill the program and its children."""
        with suppress(ProcessLookupError):
            os.killpg(self._transport.get_pid(), signal.SIGKILL)
