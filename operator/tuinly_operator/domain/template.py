"""What a target looks like: its data, labels and annotations, by the default keys or by the credential's template."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from tuinly_operator.domain.errors import Failure, Reason

MAX_RENDERED: Final = 512 * 1024  # bytes; half of what a Secret may hold, since base64 and managedFields come on top
DEFAULT_DATA: Final[Mapping[str, str]] = {
    "access_token": "${access_token}",
    "token_type": "${token_type}",
    "expires_at": "${expires_at}",
}
VARIABLES: Final = frozenset({"access_token", "token_type", "expires_at", "expires_in", "scope", "client_id"})

_PLACEHOLDER: Final = re.compile(r"\$\{([a-z_]+)\}")
# One pass without backtracking: a template may hold 130,000 dollar signs.
_VALID: Final = re.compile(rf"(?:[^$]++|\$\$|\$\{{(?:{'|'.join(sorted(VARIABLES))})\}})*+")
_RESERVED: Final = ("kubernetes.io", "k8s.io", "tuinly.com")
_KEY: Final = re.compile(r"[-._a-zA-Z0-9]{1,253}")


@dataclass(frozen=True, slots=True)
class Layout:
    """How the target should look apart from the token: its data with placeholders, users' labels and annotations."""

    data: Mapping[str, str]
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    digest: str


@dataclass(frozen=True, slots=True)
class TemplateMetadata:
    """Labels and annotations that users want on the target."""

    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)  # without slots, so that its layout is computed once
class Template:
    """What the target holds instead of the default keys."""

    metadata: TemplateMetadata = TemplateMetadata()
    data: Mapping[str, str] | None = None

    @cached_property
    def layout(self) -> Layout | Failure:
        """What `layout_of` gives or raises."""
        try:
            return layout_of(self)
        except Failure as failure:
            return failure.to_keep()


def layout_of(template: Template | None) -> Layout:
    """How a credential asks its target to look.

    Raises:
        Failure: `InvalidSpec`; the API server refuses such a template too, by the CRD's rules.
    """
    data = DEFAULT_DATA if template is None or template.data is None else template.data
    labels = template.metadata.labels if template else {}
    annotations = template.metadata.annotations if template else {}
    for key, text in data.items():
        if not _KEY.fullmatch(key) or key == "." or key.startswith(".."):
            raise _invalid("data", "keys are letters, digits, '-', '_' and '.', neither '.' nor beginning with '..'")
        if not _VALID.fullmatch(text):
            known = ", ".join(f"${{{name}}}" for name in sorted(VARIABLES))
            raise _invalid("data", f"after a dollar sign stands another one, or one of {known}")
    for name in (*labels, *annotations):
        if _reserved(name):
            raise _invalid("metadata", "keys under kubernetes.io, k8s.io and tuinly.com are reserved")
    text = json.dumps([dict(data), dict(labels), dict(annotations)], sort_keys=True)
    return Layout(data, labels, annotations, hashlib.sha256(text.encode()).hexdigest()[:32])


def render(layout: Layout, values: Mapping[str, str]) -> dict[str, bytes]:
    """Fill in the data's placeholders; `values` has one for each of `VARIABLES`.

    Raises:
        Failure: `TargetRejected` where the whole would be larger than `MAX_RENDERED`.
    """
    rendered, size = {}, 0
    for key, text in layout.data.items():
        rendered[key] = "$".join(_fill(part, values) for part in text.split("$$")).encode()  # $$ is a dollar sign
        size += len(key) + len(rendered[key])
        if size > MAX_RENDERED:
            raise Failure(Reason.TARGET_REJECTED, "spec.target.template renders to more than 512 KiB; shorten it")
    return rendered


def _fill(text: str, values: Mapping[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda m: values[m[1]], text) if "$" in text else text


def _reserved(name: str) -> bool:
    """Whether a label or annotation key is not for users: the kubelet, controllers or this operator act on it."""
    domain, _, rest = name.rpartition("/")
    if domain == "app.kubernetes.io":
        return rest == "managed-by"
    return any(domain == reserved or domain.endswith(f".{reserved}") for reserved in _RESERVED)


def _invalid(part: str, rule: str) -> Failure:
    return Failure(Reason.INVALID_SPEC, f"spec.target.template.{part}: {rule}")


DEFAULT_LAYOUT: Final = layout_of(None)
