"""Where the devices of a slice, or one of them, can be used: exactly one way of saying it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nvdra_sim.cluster.apiserver.checks.findings import Findings, part

if TYPE_CHECKING:
    from nvdra_kube.api import Body


def check_placement(owner: Body, places: tuple[str, ...], path: str, findings: Findings) -> None:
    """Exactly one way of saying where; false and empty are not the same as unset."""
    given = [place for place in places if place in owner]
    for place in given:
        if owner[place] is False:
            findings.invalid(f"{path}.{place}", False, "must be either unset or set to true")
        elif owner[place] == "":
            why = "must be either unset or set to a non-empty string"
            findings.invalid(f"{path}.{place}", "", why)
    if len(given) != 1:
        listed = ", ".join(f"`{place}`" for place in places)
        if given:
            why = f"exactly one of {listed} is required, but multiple fields are set"
            findings.invalid(path, "{" + ", ".join(given) + "}", why)
        else:
            findings.required(path, f"exactly one of {listed} is required")
    if "nodeSelector" in owner:
        terms = part(owner, "nodeSelector").get("nodeSelectorTerms") or []
        if len(terms) != 1:
            why = "must have exactly one node selector term"
            findings.invalid(f"{path}.nodeSelector.nodeSelectorTerms", len(terms), why)
