"""What the plugin asks of a cluster, by name."""

from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus
from typing import Any, Final, TypeVar

from kubectl_tuinly.edges.access import Access, Json, RefusedError
from kubectl_tuinly.outcome import Exit, StopError
from tuinly_operator.base.names import NamespacedName, is_name
from tuinly_operator.base.text import cut
from tuinly_operator.domain.credential import GROUP, PLURAL, REFRESH_REQUESTED, VERSION

_Found = TypeVar("_Found")

_GROUP: Final = f"/apis/{GROUP}/{VERSION}"
_ADMISSION: Final = "/apis/admissionregistration.k8s.io/v1"
_REVIEWS: Final = "/apis/authorization.k8s.io/v1"
PART_OF: Final = "app.kubernetes.io/part-of=tuinly-operator"


class Cluster:
    """The cluster, with the user's own rights. What is refused raises RefusedError."""

    def __init__(self, access: Access) -> None:
        """Nothing is asked yet."""
        self._access = access

    def own_namespace(self) -> str:
        """The namespace that kubectl takes where none is named."""
        return self._access.namespace()

    # Credentials ------------------------------------------------------------------------------------------------------

    def credentials(self, namespace: str | None, selector: str = "") -> list[Json]:
        """The credentials of a namespace, or of all; `selector` by labels."""
        query = {"labelSelector": selector} if selector else {}
        return self._access.list(_in(namespace, _GROUP, PLURAL), **query)

    def credential(self, key: NamespacedName) -> Json:
        """One of them."""
        return self._access.get(_in(key.namespace, _GROUP, PLURAL, key.name))

    def watch_credentials(self, namespace: str | None, selector: str) -> Iterator[Json]:
        """What happens to the credentials, from now on, for some minutes; first, each is told of as it is."""
        query = {"labelSelector": selector} if selector else {}
        return self._access.watch(_in(namespace, _GROUP, PLURAL), **query)

    def is_selected(self, key: NamespacedName, selector: str) -> bool:
        """Whether a credential has such labels, by the API server's judgement."""
        query = {"labelSelector": selector, "fieldSelector": f"metadata.name={key.name}"}
        return bool(self._access.list(_in(key.namespace, _GROUP, PLURAL), **query))

    def ask_refresh(self, key: NamespacedName, value: str) -> Json:
        """Force an exchange by the annotation's new value."""
        return self._change(key, {"metadata": {"annotations": {REFRESH_REQUESTED: value}}})

    def suspend(self, key: NamespacedName, *, suspend: bool) -> Json:
        """Set spec.suspend."""
        return self._change(key, {"spec": {"suspend": suspend}})

    def _change(self, key: NamespacedName, patch: Json) -> Json:
        return self._access.merge(_in(key.namespace, _GROUP, PLURAL, key.name), patch)

    def events(self, key: NamespacedName) -> list[Json]:
        """The Events about a credential of that name, in no order."""
        query = {"fieldSelector": f"regarding.name={key.name},regarding.kind=TuinlyCredential"}
        return self._access.list(_in(key.namespace, "/apis/events.k8s.io/v1", "events"), **query)

    # Secrets and Pods -------------------------------------------------------------------------------------------------

    def secret_metadata(self, key: NamespacedName) -> Json | None:
        """A Secret without what it holds, which the server does not send; None where there is none."""
        return _unless_absent(
            lambda: self._access.get(_in(key.namespace, "/api/v1", "secrets", key.name), metadata_only=True)
        )

    def secret(self, key: NamespacedName) -> Json:
        """A Secret with what it holds: for `token`, and for what metadata cannot tell."""
        return self._access.get(_in(key.namespace, "/api/v1", "secrets", key.name))

    def pods(self, namespace: str) -> list[Json]:
        """The Pods of a namespace."""
        return self._access.list(_in(namespace, "/api/v1", "pods"))

    # The installation -------------------------------------------------------------------------------------------------

    def server_version(self) -> Json:
        """Kubernetes' version."""
        return self._access.get("/version")

    def serves_resource(self) -> bool:
        """Whether the API server knows TuinlyCredentials."""
        return _unless_absent(lambda: self._access.get(_GROUP)) is not None

    def definition(self) -> Json | None:
        """The CRD; None where there is none."""
        path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{PLURAL}.{GROUP}"
        return _unless_absent(lambda: self._access.get(path))

    def deployments(self, namespace: str | None) -> list[Json]:
        """The operators' Deployments, known by their label, in one namespace or in all."""
        return self._access.list(_in(namespace, "/apis/apps/v1", "deployments"), labelSelector=PART_OF)

    def lease(self, key: NamespacedName) -> Json | None:
        """A Lease; None where there is none."""
        return _unless_absent(
            lambda: self._access.get(_in(key.namespace, "/apis/coordination.k8s.io/v1", "leases", key.name))
        )

    def replicas(self, namespace: str, selector: str) -> list[Json]:
        """The operator's Pods."""
        return self._access.list(_in(namespace, "/api/v1", "pods"), labelSelector=selector)

    def log(self, namespace: str, pod: str) -> str:
        """The last lines that a Pod has logged."""
        return self._access.text(_in(namespace, "/api/v1", "pods", pod, "log"), tailLines="2000", limitBytes="10000000")

    def push_policies(self) -> tuple[list[Json], list[Json]]:
        """The policies for Push, and their bindings."""
        policies = self._access.list(f"{_ADMISSION}/validatingadmissionpolicies", labelSelector=PART_OF)
        bindings = self._access.list(f"{_ADMISSION}/validatingadmissionpolicybindings", labelSelector=PART_OF)
        return policies, bindings

    def may(self, user: str, attributes: Json) -> bool:
        """Whether somebody may do something; asked for its namespace alone where the user may not ask more."""
        body = {"apiVersion": "authorization.k8s.io/v1", "spec": {"user": user, "resourceAttributes": attributes}}
        namespace = attributes.get("namespace")
        try:
            review = self._access.post(f"{_REVIEWS}/subjectaccessreviews", {**body, "kind": "SubjectAccessReview"})
        except RefusedError as refused:
            if not refused.denied or not namespace:
                raise
            body = {**body, "kind": "LocalSubjectAccessReview", "metadata": {"namespace": namespace}}
            review = self._access.post(_in(namespace, _REVIEWS, "localsubjectaccessreviews"), body)
        return bool(review["status"]["allowed"])


def _in(namespace: str | None, group: str, *words: str) -> str:
    """The path of a collection, of an object, or of what is below it.

    Raises:
        RefusedError: what comes from others, such as the name of a Lease in a Deployment's flags, is no name, and
            might lead to another path.
    """
    if not all(map(is_name, (*([namespace] if namespace else []), *words))):
        raise RefusedError(HTTPStatus.NOT_FOUND, f"there is nothing of the name {cut('/'.join(words), 100)!r}")
    return "/".join((group, *(("namespaces", namespace) if namespace else ()), *words))


def _unless_absent(read: Callable[[], _Found]) -> _Found | None:
    try:
        return read()
    except RefusedError as refused:
        if refused.absent:
            return None
        raise


def selected(cluster: Cluster, names: Sequence[str], namespace: str | None, selector: str) -> list[Json]:
    """The credentials that the user names, or selects; a namespace of None means all of them.

    Raises StopError where one is not there, and RefusedError where it may not be seen.
    """
    try:
        if not names:
            return cluster.credentials(namespace, selector)
        return [_named(cluster, NamespacedName(namespace or "", name)) for name in dict.fromkeys(names)]
    except RefusedError as refused:
        if refused.absent:
            problem = "this cluster does not know TuinlyCredentials: a cluster admin applies crds/ of the operator"
            raise StopError(Exit.UNCHECKED, problem) from None
        if selector and refused.status == HTTPStatus.BAD_REQUEST:
            raise StopError(Exit.WRONG_USE, f"-l: {refused}") from None
        raise


def _named(cluster: Cluster, key: NamespacedName) -> Json:
    try:
        return cluster.credential(key)
    except RefusedError as refused:
        if not refused.absent or not cluster.serves_resource():
            raise
    try:
        there = sorted(each["metadata"]["name"] for each in cluster.credentials(key.namespace))
    except RefusedError:
        there = []
    hint = f"; there are: {', '.join(there)}" if there else "; there is none in this namespace: is it another (-n)?"
    raise StopError(Exit.NOT_READY, f"no TuinlyCredential {key.name} in the namespace {key.namespace}{hint}")


def stopped(refused: RefusedError) -> StopError:
    """The end of a command that cannot do without what was refused."""
    hint = "; ask for the role view (to look) or edit (to change) in this namespace" if refused.denied else ""
    return StopError(Exit.UNCHECKED, f"the API server refuses: {refused}{hint}")


def key_of(raw: Any) -> NamespacedName:  # noqa: ANN401 -- an object of the API
    """Namespace and name of an object."""
    return NamespacedName(raw["metadata"]["namespace"], raw["metadata"]["name"])
