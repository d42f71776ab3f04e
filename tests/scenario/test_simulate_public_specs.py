"""Manifests that people use today run byte for byte, to the result that their names promise."""

from __future__ import annotations

import pytest

from nvdra_testing.simulation import simulate
from nvdra_testing.specs import GATED_SPECS, PUBLIC_SPECS, QUICKSTART_SPECS, Spec, outcome_of

pytestmark = pytest.mark.skipif(
    not PUBLIC_SPECS.is_dir(), reason="the public specs are not beside this checkout"
)


SPECS = [
    spec for spec in (*QUICKSTART_SPECS, *GATED_SPECS) if spec.file.is_relative_to(PUBLIC_SPECS)
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_a_public_spec_keeps_its_promise(spec: Spec) -> None:
    done = simulate(*(("--feature-gates", spec.gates) if spec.gates else ()), spec.file)
    assert done.status == (0 if spec.runs else 1), done.errors
    spec.verify(outcome_of(done))
