"""The Tuinly sandbox: both endpoints, a ledger of what they issued, and an admin API that makes them misbehave.

Tests start one with `SandboxProcess` and steer it through its `admin`; people start it with
``python -m tests.support.sandbox``.
"""

from tests.support.sandbox.clients import DEMO_CLIENT, Client
from tests.support.sandbox.faults import Fault
from tests.support.sandbox.ledger import GraphqlRequest, IssuedToken, TokenRequest
from tests.support.sandbox.process import SandboxProcess
from tests.support.sandbox.remote import SandboxAdmin, SandboxError

__all__ = [
    "DEMO_CLIENT",
    "Client",
    "Fault",
    "GraphqlRequest",
    "IssuedToken",
    "SandboxAdmin",
    "SandboxError",
    "SandboxProcess",
    "TokenRequest",
]
