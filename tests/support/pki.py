"""The test certificate authority: made anew by each run, trusted by nobody who was not handed its PEM file."""

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import trustme

CA_FILE_NAME = "ca.pem"


@dataclass(frozen=True)
class Authority:
    """A certificate authority whose key lives in this process's memory only.

    Attributes:
        ca_file: The PEM file with its root certificate, for whoever should trust it.
    """

    ca_file: Path
    _ca: "trustme.CA" = field(repr=False)

    @classmethod
    def create(cls, directory: Path) -> "Authority":
        """Make an authority and write its root certificate to ``ca.pem`` in a directory, which is made where needed."""
        import trustme  # noqa: PLC0415 -- in the operator's image there is none, nor a need for it

        directory.mkdir(parents=True, exist_ok=True)
        ca = trustme.CA()
        ca_file = directory / CA_FILE_NAME
        ca.cert_pem.write_to_path(str(ca_file))
        return cls(ca_file=ca_file, _ca=ca)

    def server_context(self, *names: str) -> ssl.SSLContext:
        """Return a TLS server's context with a fresh certificate for these host names and IP addresses."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._ca.issue_cert(*names).configure_cert(context)
        return context
