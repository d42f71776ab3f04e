"""Manifests that people use today run byte for byte, to the result that their names promise."""

from __future__ import annotations

import pytest

from nvdra_testing.simulation import simulate
from nvdra_testing.specs import PUBLIC_SPECS, QUICKSTART_SPECS, Spec, outcome_of

pytestmark = pytest.mark.skipif(
    not PUBLIC_SPECS.is_dir(), reason="the public specs are not beside this checkout"
)


@pytest.mark.parametrize("spec", QUICKSTART_SPECS, ids=lambda spec: spec.name)
def test_a_public_spec_keeps_its_promise(spec: Spec) -> None:
    done = simulate(spec.file)
    assert done.status == 0, done.errors
    spec.verify(outcome_of(done))
