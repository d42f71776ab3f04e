"""Demo and public specs give the same on a real cluster as on the embedded one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.e2e.product.workload import run_spec

from nvdra_testing.specs import DEMO_SPECS, PUBLIC_SPECS, QUICKSTART_SPECS, Spec

if TYPE_CHECKING:
    from tests.e2e.product.release import Product


@pytest.mark.parametrize("spec", DEMO_SPECS, ids=lambda spec: spec.name)
def test_a_demo_keeps_its_promise(product: Product, spec: Spec) -> None:
    run_spec(product, spec)


@pytest.mark.skipif(
    not PUBLIC_SPECS.is_dir(), reason="the public specs are not beside this checkout"
)
@pytest.mark.parametrize("spec", QUICKSTART_SPECS, ids=lambda spec: spec.name)
def test_a_public_spec_keeps_its_promise(product: Product, spec: Spec) -> None:
    run_spec(product, spec)
