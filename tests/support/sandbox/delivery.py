"""How an answer leaves the server: as it should, or as a fault has it."""

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Mapping
from email.utils import formatdate
from http import HTTPStatus

from aiohttp import web

from tests.support.sandbox.answers import JSON_TYPE, Answer, Twist, twisted
from tests.support.sandbox.faults import Fault

RESET_AT_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: close() sends RST in place of FIN


def faulty(good: Answer, fault: Fault, form: Mapping[str, str]) -> Answer | None:
    """Return what a fault makes of an answer; None where nothing is to be sent at all.

    Answers of the catalogue take the place of good answers only: a refusal stays a refusal.
    """
    if fault.kind in {"hang", "reset"}:
        return None
    if fault.answer is not None:
        twist = Twist(good, form, fault.seconds, fault.headers)
        return twisted(fault.answer, fault.endpoint, twist) if good.status == HTTPStatus.OK else good
    body = (fault.body or "").encode()
    match fault.kind:
        case "throttle":
            return Answer(fault.sent_status, body, {**_retry_after(fault), **fault.headers})
        case "fail":
            return Answer(fault.sent_status, body, fault.headers)
        case "answer":
            return Answer(fault.sent_status, body, {"Content-Type": JSON_TYPE, **fault.headers})
    return good


def _retry_after(fault: Fault) -> dict[str, str]:
    if fault.retry_after is None:
        return {}
    if fault.retry_after_as == "date":
        return {"Retry-After": formatdate(time.time() + fault.retry_after, usegmt=True)}
    return {"Retry-After": f"{fault.retry_after:g}"}


async def send(request: web.Request, answer: Answer | None, fault: Fault | None) -> web.StreamResponse:
    """Send an answer, with the waiting that a fault asks for; without an answer, reset the connection."""
    if fault is not None and fault.kind in {"hang", "slow"}:
        await asyncio.sleep(fault.wait)
    if answer is None:
        return _reset(request)
    if answer.raw is not None and request.transport is not None:
        request.transport.write(answer.raw)
        request.transport.close()
        return web.Response()  # never sent: the transport is closing
    pause = fault.wait if fault is not None and fault.kind == "drip" else None
    if pause is None and answer.cut is None and not answer.chunked:
        return web.Response(status=answer.status, headers=answer.headers, body=answer.body)
    return await _stream(request, answer, pause)


async def _stream(request: web.Request, answer: Answer, pause: float | None) -> web.StreamResponse:
    """Send a body bit by bit."""
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    if not answer.chunked:
        response.content_length = len(answer.body)
    await response.prepare(request)
    step = len(answer.body) if pause is None else 1
    body = answer.body if answer.cut is None else answer.body[: answer.cut]
    for start in range(0, len(body), step):
        await response.write(body[start : start + step])
        if pause is not None:
            await asyncio.sleep(pause)
    if answer.cut is not None:
        return _reset(request, response)
    await response.write_eof()
    return response


def _reset(request: web.Request, response: web.StreamResponse | None = None) -> web.StreamResponse:
    """Reset the connection (RST, as a crashing server does). What is returned cannot be sent any more."""
    if request.transport is not None:
        raw = request.transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
        request.transport.abort()
    return response if response is not None else web.Response()
