"""Selectors as people write them, against devices as drivers publish them."""

from __future__ import annotations

import pytest

from nvdra_sim.cluster.scheduler.cel import (
    BadExpression,
    DeviceView,
    EvaluationError,
    compile_selector,
)
from nvdra_testing.dra_objects import a_device

H100 = DeviceView(
    "gpu.nvidia.com",
    a_device(
        "gpu-0",
        attributes={
            "productName": "NVIDIA H100 80GB HBM3",
            "architecture": "Hopper",
            "index": 3,
            "addressable": True,
            "cudaComputeCapability": {"version": "9.0.0"},
            "driverVersion": {"version": "570.158.1"},
            "resource.kubernetes.io/pcieRoot": "pci0000:17",
            "profiles": {"strings": ["1g.10gb", "2g.20gb"]},
        },
        memory="80Gi",
    ),
)


def selects(expression: str, device: DeviceView = H100) -> bool:
    return compile_selector(expression).matches(device)


def failure(expression: str) -> str:
    with pytest.raises(EvaluationError) as caught:
        selects(expression)
    return str(caught.value)


def refusal(expression: str) -> str:
    with pytest.raises(BadExpression) as caught:
        compile_selector(expression)
    return str(caught.value)


GPU = "device.attributes['gpu.nvidia.com']"
DOUBLE = 'device.attributes["gpu.nvidia.com"]'
MEMORY = "device.capacity['gpu.nvidia.com'].memory"


@pytest.mark.parametrize(
    "expression",
    [
        "device.driver == 'gpu.nvidia.com'",
        f"device.driver == 'gpu.nvidia.com' && {GPU}.type == 'gpu'",
        'device.attributes["gpu.nvidia.com"].productName.lowerAscii().matches("^.*h100.*$")',
        f"{GPU}.architecture in ['Hopper', 'Blackwell']",
        f"{GPU}.index < 4 && {GPU}.addressable",
        f"{GPU}.cudaComputeCapability.isGreaterThan(semver('8.9.0'))",
        f"{GPU}.cudaComputeCapability.compareTo(semver('9.0.0')) == 0",
        f"{GPU}.cudaComputeCapability == semver('9.0.0')",
        f"{GPU}.cudaComputeCapability.major() == 9",
        f"{GPU}.driverVersion.isLessThan(semver('v580', true))",
        f"{MEMORY}.compareTo(quantity('40Gi')) >= 0",
        f"{MEMORY}.isGreaterThan(quantity('79999Mi'))",
        f"{MEMORY} == quantity('81920Mi')",
        f"{MEMORY}.sub(quantity('80Gi')).sign() == 0",
        f"{MEMORY}.asInteger() == 85899345920",
        "device.attributes['resource.kubernetes.io'].pcieRoot == 'pci0000:17'",
        f"cel.bind(gpu, {GPU}, gpu.type == 'gpu' && gpu.index == 3)",
        f"{GPU}.?profile.orValue('none') == 'none'",
        f"!has({GPU}.profile)",
        f"'productName' in {GPU}",
        "!device.attributes['dra.example.com'].?model.hasValue()",
        f"'1g.10gb' in {GPU}.profiles",
        f"{GPU}.profiles.exists(p, p.startsWith('2g'))",
        f"{GPU}.productName.split(' ')[1] == 'H100'",
        "device.allowMultipleAllocations == false",
        "isQuantity('40Gi') && !isQuantity('40Gb') && isSemver('1.2.3')",
    ],
)
def test_an_expression_in_the_style_of_drivers_and_users_selects_the_device(
    expression: str,
) -> None:
    assert selects(expression)
    assert not selects(f"!({expression})")


def test_the_mig_selector_of_the_quickstart_takes_only_its_profile() -> None:
    expression = "device.attributes['gpu.nvidia.com'].profile == '1g.5gb'"
    small, large = (
        DeviceView("gpu.nvidia.com", a_device("mig", attributes={"profile": profile}))
        for profile in ("1g.5gb", "2g.10gb")
    )
    assert selects(expression, small)
    assert not selects(expression, large)


def test_an_attribute_that_the_device_lacks_is_an_error_naming_it() -> None:
    assert failure(f"{GPU}.profile == '1g.5gb'") == "no such key: profile"


def test_an_unknown_domain_is_an_empty_map() -> None:
    assert failure("device.attributes['gpu.amd.com'].family == 'x'") == "no such key: family"
    assert not selects("has(device.attributes['gpu.amd.com'].family)")


def test_comparing_different_types_is_an_error_of_the_device() -> None:
    assert failure(f"{GPU}.index.isGreaterThan(semver('1.0.0'))").startswith("no such overload")
    assert "cannot be compared" in failure(f"{MEMORY}.isLessThan(semver('1.0.0'))")


def test_a_broken_quantity_in_an_expression_is_an_error_naming_it() -> None:
    assert "'40Gb' is not a quantity" in failure(f"{MEMORY}.isLessThan(quantity('40Gb'))")


def test_a_value_that_is_not_boolean_is_an_error() -> None:
    assert failure(f"{GPU}.index") == "the result is INT, not a boolean"


def test_an_expression_of_another_type_does_not_compile() -> None:
    assert "must evaluate to bool, not int" in refusal("1 + 1")


def test_a_syntax_error_quotes_the_expression_and_the_place() -> None:
    text = refusal("device.driver ==")
    assert "`device.driver ==` does not compile" in text
    assert "1:17" in text


def test_a_misspelt_field_of_the_device_does_not_compile() -> None:
    assert "undefined field 'attribute'" in refusal("device.attribute['a'].b == 'c'")
    assert "undeclared reference to 'dev" in refusal("dev.driver == 'a'")


def test_the_word_device_within_a_string_is_no_field() -> None:
    assert not selects("device.driver == 'device.nonsense'")


def test_a_malformed_version_in_a_slice_fails_only_that_device() -> None:
    with pytest.raises(EvaluationError, match="driverVersion"):
        DeviceView("d", a_device("x", attributes={"driverVersion": {"version": "570"}}))


def test_compiling_the_same_text_again_gives_the_same_program() -> None:
    assert compile_selector("device.driver == 'a'") is compile_selector("device.driver == 'a'")


def test_a_program_tells_which_attributes_it_mentions() -> None:
    program = compile_selector(
        f"{GPU}.profile == 'a' || {MEMORY}.sign() > 0 || {GPU}.profile == 'b'"
    )
    assert program.mentioned() == ("gpu.nvidia.com/profile", "gpu.nvidia.com/memory")


def test_an_expression_that_takes_too_many_steps_has_no_value() -> None:
    numbers = "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]"
    loops = "".join(f"{numbers}.all({name}, " for name in "abcde")
    assert "budget exceeded" in failure(f"{loops}a + b + c + d + e > 0{')' * 5}")


def test_what_a_selector_mentions_is_read_within_one_pair_of_quotes() -> None:
    program = compile_selector(f'"profile" in {DOUBLE} && {DOUBLE}.profile == "1g.5gb"')
    assert program.mentioned() == ("gpu.nvidia.com/profile",)
