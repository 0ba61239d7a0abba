# ruff: noqa: ANN401 -- kopf and the Kubernetes library pass JSON and objects of their own, as they do to users
"""What one would write from kopf's documentation in an hour: a daemon for each credential that sleeps until it is due.

It is the baseline that users know, kept as fair as it is short:

- One asynchronous daemon for each object, which kopf starts at its creation and again when the operator restarts. That
  replaces handlers for create and resume, and saves what kopf notes on the object for these.
- The asynchronous client of the official Kubernetes library, with its models. Its older one in threads was tried, too:
  a refresh costs a tenth less and the process 40 MB less, but the first tokens of many cost half as much again.
- One httpx client for all, whose time limit leaves room for a start: the default of five seconds counts the wait for
  a free connection, too.
- The status is written by that client. kopf's `patch` is sent when a daemon ends, which this one never does.
- Events for each line of the log, which are kopf's default, are left to warnings.
- The same lead before expiry as the operator by default, and the same jitter.
- What fails is tried again after a minute, as kopf does by itself.
- A daemon starts from nothing. So after a restart each credential asks for a token, whether it has a good one or not.
- A changed client Secret or spec is met at the next refresh, a damaged target mended then. It verifies nothing, and
  whose a Secret of the target's name is it does not ask. All that is work that it saves.
"""

import argparse
import asyncio
import base64
import logging
import os
import random
import ssl
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import kopf
from kubernetes.aio import client, config

RESOURCE = ("tuinly.com", "v1alpha1", "tuinlycredentials")


def handlers(options: argparse.Namespace) -> kopf.OperatorRegistry:
    """Return the operator, as kopf knows it."""
    registry = kopf.OperatorRegistry()

    @kopf.on.startup(registry=registry)
    async def start(settings: kopf.OperatorSettings, memo: Any, **_: Any) -> None:
        settings.posting.level = logging.WARNING
        load: Any = config.load_kube_config  # untyped
        await load(str(options.kubeconfig))
        memo.core = client.CoreV1Api()
        memo.custom = client.CustomObjectsApi(memo.core.api_client)
        memo.http = httpx.AsyncClient(verify=ssl.create_default_context(cafile=options.ca_bundle), timeout=30.0)

    @kopf.on.cleanup(registry=registry)
    async def stop(memo: Any, **_: Any) -> None:
        await memo.http.aclose()
        await memo.core.api_client.close()

    @kopf.on.login(registry=registry)
    def log_in(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_kubeconfig(**kwargs)

    @kopf.daemon(*RESOURCE, registry=registry)
    async def keep_fresh(body: Any, memo: Any, stopped: Any, logger: Any, **_: Any) -> None:
        while not stopped:
            wait = await refresh(memo.core, memo.custom, memo.http, options.token_url, body)
            logger.info("refreshed")
            await stopped.wait(wait)

    return registry


async def refresh(core: Any, custom: Any, http: httpx.AsyncClient, token_url: str, credential: Any) -> float:
    """Get a token, write it to the target, and report it; return the seconds until the next refresh."""
    meta, spec = credential["metadata"], credential["spec"]
    name, namespace, target = meta["name"], meta["namespace"], f"{meta['name']}-token"
    login = await read_client(core, namespace, spec["clientSecretRef"])
    grant = await exchange(http, spec.get("tokenURL", token_url), login, spec.get("scopes", []))
    issued, lifetime = datetime.now(UTC), float(grant["expires_in"])
    expires, wait = issued + timedelta(seconds=lifetime), refresh_after(lifetime)
    await write_secret(core, namespace, target, grant["access_token"], expires)
    patch = {"status": status_of(meta["generation"], target, issued, expires, issued + timedelta(seconds=wait))}
    group, version, plural = RESOURCE
    await custom.patch_namespaced_custom_object_status(
        group, version, namespace, plural, name, patch, _content_type="application/merge-patch+json"
    )
    return wait


async def read_client(core: Any, namespace: str, ref: Any) -> dict[str, str]:
    """Read the client's id and secret."""
    data = (await core.read_namespaced_secret(ref["name"], namespace)).data
    keys = {"client_id": ref["clientIDKey"], "client_secret": ref["clientSecretKey"]}
    return {field: base64.b64decode(data[key]).decode().strip() for field, key in keys.items()}


async def exchange(http: httpx.AsyncClient, url: str, login: dict[str, str], scopes: list[str]) -> Any:
    """Ask for a token by client credentials."""
    form = {"grant_type": "client_credentials", **login}
    if scopes:
        form["scope"] = " ".join(scopes)
    answer = await http.post(url, data=form)
    answer.raise_for_status()
    return answer.json()


async def write_secret(core: Any, namespace: str, name: str, token: str, expires: datetime) -> None:
    """Replace the target, or create it; kopf knows which object is at hand, and makes it the owner."""
    data = {"access_token": token, "token_type": "Bearer", "expires_at": _time(expires)}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": "Opaque", "stringData": data}
    kopf.adopt(secret)
    try:
        await core.replace_namespaced_secret(name, namespace, secret)
    except client.ApiException as error:
        if error.status != HTTPStatus.NOT_FOUND:
            raise
        await core.create_namespaced_secret(namespace, secret)


def refresh_after(lifetime: float) -> float:
    """Seconds after which to refresh: a third of the life before its end, at least two minutes, and a jitter."""
    lead = min(max(lifetime * 0.33, 120.0), lifetime / 2)
    return (lifetime - lead) * random.uniform(0.9, 1.0)  # noqa: S311 -- jitter


def status_of(generation: int, target: str, issued: datetime, expires: datetime, due: datetime) -> dict[str, Any]:
    """The status of a credential that is well."""
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "Issued",
        "message": f"Secret {target} holds a valid access token",
        "observedGeneration": generation,
        "lastTransitionTime": _time(issued),
    }
    return {
        "observedGeneration": generation,
        "conditions": [ready],
        "secretName": target,
        "tokenExpirationTime": _time(expires),
        "nextRefreshTime": _time(due),
        "lastRefreshTime": _time(issued),
    }


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.naive", description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--token-url", required=True)
    parser.add_argument("--ca-bundle", type=Path, help="roots to trust, for the token URL; without it the usual ones")
    parser.add_argument("--namespace", help="the one to serve; without it all are")
    return parser.parse_args()


def main() -> None:
    """Run until SIGTERM, as `kopf run` does."""
    options = _options()
    os.environ["KUBECONFIG"] = str(options.kubeconfig)  # where kopf looks for it
    kopf.configure()
    namespaces = [options.namespace] if options.namespace else []
    asyncio.run(
        kopf.operator(registry=handlers(options), standalone=True, clusterwide=not namespaces, namespaces=namespaces)
    )


if __name__ == "__main__":
    main()
