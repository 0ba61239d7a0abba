"""A model of the Kubernetes API server, as far as the operator relies on it: pure, and held against the real one."""

from tests.simulation.apiserver.messages import Answer, Refusal, Request
from tests.simulation.apiserver.registry import Admission, Review
from tests.simulation.apiserver.server import Server
from tests.simulation.apiserver.storage import Key, Storage
from tests.simulation.apiserver.watches import Watch

__all__ = ["Admission", "Answer", "Key", "Refusal", "Request", "Review", "Server", "Storage", "Watch"]
