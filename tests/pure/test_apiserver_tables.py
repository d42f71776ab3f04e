"""Tables: the columns that definitions of custom resources ask for, as kubectl gets them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from nvdra_kube.errors import ApiError
from nvdra_sim.cluster.apiserver import ClusterStore, LocalApi
from nvdra_sim.cluster.apiserver.custom_resources import custom_resource
from nvdra_sim.cluster.apiserver.https.tables import table_of
from nvdra_sim.cluster.apiserver.printer_columns import PrinterColumn
from nvdra_testing.compute_domains import DEFINITIONS, a_domain

Body = dict[str, Any]

DEFINITION = Path(__file__).parents[2] / "crds" / "resource.nvidia.com_computedomains.yaml"
CREATED, NOW = "2026-01-01T00:00:00Z", "2026-01-01T00:05:00Z"
ITEM: Body = {
    "spec": {"count": 3, "tags": {"a": "x", "b": "y"}},
    "nodes": [{"name": "n1"}, {"name": "n2"}],
    "conditions": [{"type": "Other", "reason": "No"}, {"type": "Ready", "reason": "Yes"}],
}


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (".spec.count", "3"),
        (".nodes[*].name", "n1"),
        (".nodes[1].name", "n2"),
        (".nodes[7].name", None),
        (".spec.tags[*]", "x"),
        (".spec['count']", "3"),
        ('.conditions[?(@.type=="Ready")].reason', "Yes"),
        (".conditions[?(@.type == 'Ready')].reason", "Yes"),
        ('.conditions[?(@.type=="Gone")].reason', None),
        (".nothing.here", None),
    ],
)
def test_a_column_shows_what_its_path_leads_to(path: str, text: str | None) -> None:
    assert PrinterColumn("C", "string", path).text(ITEM) == text


def cells_of(status: Body) -> dict[str, str | None]:
    kind = custom_resource(yaml.safe_load(DEFINITION.read_text())).kind
    domain = {**a_domain("job", allocationMode="All"), "status": status}
    domain["metadata"]["creationTimestamp"] = CREATED
    table = table_of(kind, domain, now=NOW)
    names = [column["name"] for column in table["columnDefinitions"]]
    return dict(zip(names, table["rows"][0]["cells"], strict=True))


def test_the_table_of_a_domain_says_how_it_is_and_why() -> None:
    ready = {"type": "Ready", "reason": "NodesReady", "message": "all 1 nodes are ready"}
    cells = cells_of({"status": "Ready", "conditions": [ready], "nodes": [{"name": "node-1"}]})
    assert (cells["Name"], cells["Status"], cells["Reason"]) == ("job", "Ready", "NodesReady")
    assert (cells["Message"], cells["Age"]) == ("all 1 nodes are ready", "5m")


def test_a_domain_without_a_status_has_empty_cells() -> None:
    cells = cells_of({})
    assert (cells["Status"], cells["Reason"], cells["Channels"]) == (None, None, "All")


async def test_a_definition_with_a_path_that_is_not_understood_is_refused() -> None:
    definition = yaml.safe_load(DEFINITION.read_text())
    definition["spec"]["versions"][0]["additionalPrinterColumns"][0]["jsonPath"] = ".a[?(@.b>1)]"
    with pytest.raises(ApiError, match=r"additionalPrinterColumns\[0\]\.jsonPath"):
        await LocalApi(ClusterStore()).create(DEFINITIONS, definition)
