"""Names of objects of the API."""

import re
from typing import Final, NamedTuple

_LABEL: Final = "[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"  # RFC 1123
_NAME: Final = re.compile(rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})*")  # Kubernetes, "DNS Subdomain Names"


def is_name(text: str) -> bool:
    """Whether an object may be called so. Of a name that becomes part of a URL's path, ../ would lead elsewhere."""
    return _NAME.fullmatch(text) is not None


class NamespacedName(NamedTuple):
    """Namespace and name: how credentials and Secrets are told apart."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"
