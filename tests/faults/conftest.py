"""The fixtures of tests/api, with a cluster of their own: here its API server is killed and its CRD deleted."""

from tests.api.conftest import (
    auditor,
    cluster,
    installed,
    local_cluster,
    make_operator,
    namespace,
    operator_login,
    other_token_urls,
    pytest_runtest_makereport,
    sandbox,
    start_operator,
    tenant,
)

__all__ = [
    "auditor",
    "cluster",
    "installed",
    "local_cluster",
    "make_operator",
    "namespace",
    "operator_login",
    "other_token_urls",
    "pytest_runtest_makereport",
    "sandbox",
    "start_operator",
    "tenant",
]
