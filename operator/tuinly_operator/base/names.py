"""Names of objects of the API."""

from typing import NamedTuple


class NamespacedName(NamedTuple):
    """Namespace and name: how credentials and Secrets are told apart."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"
