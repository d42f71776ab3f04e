"""What the chart renders, held against the schemas and the admission of a real API server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from tests.e2e.ring.errors import CommandFailed

from nvdra_testing.chart_values import MATRIX
from nvdra_testing.helm import rendered

if TYPE_CHECKING:
    from tests.e2e.ring.kubectl import Kubectl, Manifest

_OPENSHIFT = ("--api-versions", "security.openshift.io/v1")


def _would_be_stored(kubectl: Kubectl, manifests: list[Manifest]) -> set[str]:
    """Kinds and names of what the API server would store; it refuses unknown and wrong fields."""
    # Whatever of that name is installed now, nothing of it is changed by a dry run.
    answer = kubectl(
        "apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict",
        "--output=name", "--filename=-",
        stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests}),
    )  # fmt: skip
    return set(answer.split())


@pytest.mark.parametrize("values", MATRIX.values(), ids=MATRIX)
def test_a_real_api_server_takes_everything_that_is_rendered(
    kubectl: Kubectl, namespace: str, values: dict[str, Any]
) -> None:
    manifests = rendered(values, *_OPENSHIFT, namespace=namespace)

    stored = _would_be_stored(kubectl, manifests)

    assert len(stored) == len(manifests)


def test_a_field_that_no_schema_has_is_refused(kubectl: Kubectl, namespace: str) -> None:
    manifests = rendered(namespace=namespace)
    [daemonset] = (each for each in manifests if each["kind"] == "DaemonSet")
    daemonset["spec"]["template"]["spec"]["initContainer"] = []

    with pytest.raises(CommandFailed, match="initContainer"):
        _would_be_stored(kubectl, manifests)
