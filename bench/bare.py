"""The bare loop: the least program that sends the requests of a steady refresh. CPU is quoted as a multiple of it.

For each credential one token request over the operator's own HTTP client, one PATCH of the target Secret and one of the
status, of the size and with the headers that the operator's have. It decides nothing, watches nothing, checks nothing
but that no request failed, and never tries again.
"""

import argparse
import asyncio
import base64
import json
import math
import ssl
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain, repeat
from pathlib import Path
from typing import Final

import aiohttp
import httpx

from bench.api import CLIENT, CREDENTIALS, METADATA, METADATA_LIST, SECRETS, Json
from tuinly_operator.edges.oauth import make_client, tls_context

_MANAGER: Final = "tuinly-operator"
_DIGEST: Final = "0123456789abcdef" * 2  # as long as the operator's, which here would cost logic


@dataclass(frozen=True)
class Loop:
    """What a turn of the loop needs.

    `credentials` and `targets` are the metadata of those that exist, by name; a target's as last read or written, since
    its uid and version are preconditions of the next write.
    """

    token_url: str
    client_secret: str = field(repr=False)
    namespace: str
    credentials: Mapping[str, Json]
    targets: dict[str, Json]
    endpoint: httpx.AsyncClient
    api: aiohttp.ClientSession

    async def turn(self, number: int) -> None:
        """Do what one refresh does."""
        name = f"storefront-{number:06}"
        grant = await self._exchange(name)
        issued = time.time()
        await self._apply(name, grant, issued)
        await self._report(name, grant, issued)

    async def _exchange(self, name: str) -> Json:
        client = CLIENT.format(self.namespace, name)
        form = {"grant_type": "client_credentials", "client_id": client, "client_secret": self.client_secret}
        answer = await self.endpoint.post(self.token_url, data=form)
        answer.raise_for_status()
        grant: Json = json.loads(answer.content)
        return grant

    async def _apply(self, name: str, grant: Json, issued: float) -> None:
        target = f"{name}-token"
        body = manifest(self.credentials[name], grant, issued, self.targets.get(target))
        path = f"{SECRETS.format(self.namespace)}/{target}?fieldManager={_MANAGER}&force=true"
        answer = await self._patch(path, body, "application/apply-patch+yaml")
        self.targets[target] = json.loads(answer)["metadata"]

    async def _report(self, name: str, grant: Json, issued: float) -> None:
        uid = self.credentials[name]["uid"]
        patch = {"metadata": {"uid": uid}, "status": status(name, self.token_url, grant, issued)}
        path = f"{CREDENTIALS.format(self.namespace)}/{name}/status?fieldManager={_MANAGER}"
        json.loads(await self._patch(path, patch, "application/merge-patch+json"))

    async def _patch(self, path: str, body: Json, content: str) -> bytes:
        headers = {"Accept": METADATA, "Content-Type": content}
        async with self.api.patch(path, data=json.dumps(body), headers=headers) as answer:
            answer.raise_for_status()
            return await answer.read()


async def run(options: argparse.Namespace, client_secret: str) -> Json:
    """Run the loop after turns that warm up as many connections as it has workers; return what it took."""
    namespace = options.namespace
    endpoint = make_client(tls_context(options.ca_bundle), options.concurrency)
    async with endpoint, _session(options.kubeconfig, options.concurrency) as api:
        credentials = {meta["name"]: meta for meta in await _metadata(api, CREDENTIALS.format(namespace))}
        targets = {meta["name"]: meta for meta in await _metadata(api, SECRETS.format(namespace))}
        loop = Loop(options.token_url, client_secret, namespace, credentials, targets, endpoint, api)
        await asyncio.gather(*map(loop.turn, range(min(options.concurrency, options.credentials))))
        numbers = enumerate(chain.from_iterable(repeat(range(options.credentials), options.rounds)))
        wall, cpu = time.perf_counter(), time.process_time()
        async with asyncio.TaskGroup() as workers:
            for _ in range(options.concurrency):
                workers.create_task(_work(loop, numbers, time.monotonic(), options.rate))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    took = {"wall_seconds": round(wall, 4), "cpu_seconds": round(cpu, 4)}
    return {"credentials": options.credentials, "rounds": options.rounds, **took}


async def _work(loop: Loop, numbers: Iterator[tuple[int, int]], begun: float, rate: float) -> None:
    for place, number in numbers:
        await asyncio.sleep(max(0.0, begun + place / rate - time.monotonic()))
        await loop.turn(number)


def _session(kubeconfig: Path, concurrency: int) -> aiohttp.ClientSession:
    """Log in by a kubeconfig in JSON that has everything in itself, and a token."""
    config = json.loads(kubeconfig.read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cadata=authority), limit=concurrency)
    headers = {"Authorization": f"Bearer {user['token']}", "User-Agent": _MANAGER}
    return aiohttp.ClientSession(cluster["server"], headers=headers, connector=connector)


async def _metadata(api: aiohttp.ClientSession, path: str) -> list[Json]:
    async with api.get(path, headers={"Accept": METADATA_LIST}) as answer:
        answer.raise_for_status()
        return [item["metadata"] for item in json.loads(await answer.read())["items"]]


def manifest(credential: Json, grant: Json, issued: float, present: Json | None) -> Json:
    """The target as the operator applies it; the digests and versions in its annotations are made up.

    `credential` and `present` are metadata.
    """
    name, uid = credential["name"], credential["uid"]
    expires = _time(issued + grant["expires_in"])
    data = {"access_token": grant["access_token"], "token_type": "Bearer", "expires_at": expires}
    owner = {"apiVersion": "tuinly.com/v1alpha1", "kind": "TuinlyCredential", "name": name, "uid": uid}
    notes = {
        "state-version": "1",
        "issued-at": _time(issued),
        "expires-at": expires,
        "next-refresh": expires,
        "credential-uid": uid,
        "granted-scopes": grant.get("scope", ""),
        "exchange-inputs": _DIGEST,
        "template": _DIGEST,
        "client-secret-version": f"{uid}/1000",
        "handled-refresh": "",
    }
    metadata = {
        "name": f"{name}-token",
        "namespace": credential["namespace"],
        "resourceVersion": present["resourceVersion"] if present else "1",
        "labels": {"app.kubernetes.io/managed-by": _MANAGER, "tuinly.com/credential": name},
        "annotations": {f"tuinly.com/{note}": text for note, text in notes.items()},
        "ownerReferences": [{**owner, "controller": True}],
        **({"uid": present["uid"]} if present else {}),
    }
    encoded = {key: base64.b64encode(text.encode()).decode() for key, text in data.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": encoded}


def status(name: str, token_url: str, grant: Json, issued: float) -> Json:
    """The status as the operator writes it of a credential that is well."""
    now, expires = _time(issued), _time(issued + grant["expires_in"])
    messages = {
        "Ready": f"Secret {name}-token holds a valid access token",
        "Refreshed": "the last token request worked",
    }
    same = {"status": "True", "reason": "Issued", "observedGeneration": 1, "lastTransitionTime": now}
    return {
        "observedGeneration": 1,
        "conditions": [{"type": kind, "message": message, **same} for kind, message in messages.items()],
        "secretName": f"{name}-token",
        "tokenURL": token_url,
        "tokenExpirationTime": expires,
        "nextRefreshTime": expires,
        "lastRefreshTime": now,
        "lastGrant": "ClientCredentials",
        "scopes": grant["scope"].split() if "scope" in grant else None,
        "failedAttempts": 0,
        "lastFailureTime": None,
        "lastHandledRefresh": None,
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.bare", description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, required=True, help="in JSON, with server, authority and token")
    parser.add_argument("--token-url", required=True)
    parser.add_argument("--ca-bundle", type=Path, help="roots to trust besides the usual ones, for the token URL")
    parser.add_argument("--namespace", required=True, help="of the credentials, storefront-000000 and so on")
    parser.add_argument("--credentials", type=int, required=True, metavar="N", help="how many of them")
    parser.add_argument("--concurrency", type=int, default=20, help="how many at a time")
    parser.add_argument("--rounds", type=int, default=1, help="how often each")
    parser.add_argument("--rate", type=float, default=math.inf, help="turns per second at most (default: as they come)")
    return parser.parse_args()


def main() -> None:
    """Read the client secret of all credentials from standard input, run the loop, and print what it took."""
    options = _options()
    client_secret = sys.stdin.readline().rstrip("\n")
    print(json.dumps(asyncio.run(run(options, client_secret))))  # noqa: T201 -- the answer


if __name__ == "__main__":
    main()
