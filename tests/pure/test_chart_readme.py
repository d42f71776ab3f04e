"""The table in the chart's README names every value of ComputeDomains, with its default."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import yaml

from nvdra_testing.documents import ROOT, code, rows_under
from nvdra_testing.helm import CHART

if TYPE_CHECKING:
    from collections.abc import Iterator

README: Final = f"../{(CHART / 'README.md').relative_to(ROOT)}"
VALUES: Final[dict[str, Any]] = yaml.safe_load((CHART / "values.yaml").read_text())
PREFIXES: Final = (
    "resources.computeDomains.",
    "logVerbosityCDDaemon",
    "kubeletPlugin.metrics.computeDomainHttpEndpoint",
    "kubeletPlugin.containers.computeDomains.",
    "controller.",
)
# What they hold is the user's to choose as a whole.
WHOLE: Final = {"affinity", "securityContext"}


def leaves(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict) and value and name not in WHOLE:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def documented() -> dict[str, Any]:
    return {path: value for path, value in leaves(VALUES) if path.startswith(PREFIXES)}


def test_every_value_of_compute_domains_is_in_the_table() -> None:
    rows = [code(row["value"])[0] for row in rows_under(README, "ComputeDomains")]
    assert sorted(rows) == sorted(documented())


def test_the_defaults_in_the_table_are_those_of_the_chart() -> None:
    values = documented()
    for row in rows_under(README, "ComputeDomains"):
        value = values[code(row["value"])[0]]
        if isinstance(value, dict | list):
            assert bool(row["default"]) == bool(value), row["value"]
        else:
            word = str(value).lower() if isinstance(value, bool) else str(value)
            assert code(row["default"]) == ([word] if word else []), row["value"]
