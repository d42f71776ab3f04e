"""The table of feature gates and the flag that sets them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvdra_api.gates import COMBINATIONS, GATES, LOGGING_GATES, FeatureGates, GateError, Stage

NAMES = [gate.name for gate in (*GATES, *LOGGING_GATES)]


def test_names_and_defaults_are_those_of_existing_installations() -> None:
    assert str(FeatureGates()) == (
        "TimeSlicingSettings=false,MPSSupport=false,IMEXDaemonsWithDNSNames=true,"
        "PassthroughSupport=false,DynamicMIG=false,NVMLDeviceHealthCheck=false,"
        "ComputeDomainCliques=true,CrashOnNVLinkFabricErrors=true,DeviceMetadata=false,"
        "DRAListTypeAttributes=false,FabricManagerPartitioning=false,"
        "HostManagedIMEXDaemon=false,ConsumableShares=false,ContextualLogging=true,"
        "LoggingAlphaOptions=false,LoggingBetaOptions=true"
    )


@pytest.mark.parametrize("text", ["", ",", " , "])
def test_no_text_means_the_defaults(text: str) -> None:
    assert FeatureGates.parse(text) == FeatureGates()


def test_a_trailing_comma_and_blanks_are_tolerated() -> None:
    gates = FeatureGates.parse(" DynamicMIG = true , MPSSupport=T,")
    assert gates["DynamicMIG"]
    assert gates.enabled("MPSSupport")
    assert not gates["PassthroughSupport"]


def test_an_umbrella_sets_its_stage_and_explicit_names_win() -> None:
    gates = FeatureGates.parse("DynamicMIG=false,AllAlpha=true,AllBeta=false")
    alpha = {gate.name: gates[gate.name] for gate in GATES if gate.stage is Stage.ALPHA}
    assert [name for name, on in alpha.items() if not on] == ["DynamicMIG"]
    assert not gates["ComputeDomainCliques"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("DynamicMig=true", 'unknown feature gate "DynamicMig": did you mean DynamicMIG?'),
        ("MPS=true", 'unknown feature gate "MPS": did you mean MPSSupport?'),
        ("Foo=true", 'unknown feature gate "Foo": known: TimeSlicingSettings, MPSSupport, '),
        ("=true", 'unknown feature gate ""'),
        ("DynamicMIG", "DynamicMIG has no value: write DynamicMIG=true or DynamicMIG=false"),
        ("DynamicMIG=yes", "DynamicMIG=yes: the value has to be true or false"),
        ("DynamicMIG=", "DynamicMIG=: the value has to be true or false"),
    ],
)
def test_a_bad_entry_is_named(text: str, problem: str) -> None:
    with pytest.raises(GateError) as failure:
        FeatureGates.parse(text)
    assert failure.value.problems[0].startswith(problem)


def test_every_bad_entry_is_named_at_once() -> None:
    with pytest.raises(GateError) as failure:
        FeatureGates.parse("Foo=true,DynamicMIG=maybe,MPSSupport=true")
    assert len(failure.value.problems) == 2


def test_asking_for_an_unknown_gate_is_a_programming_error() -> None:
    with pytest.raises(KeyError):
        FeatureGates()["Foo"]


@pytest.mark.parametrize("combination", COMBINATIONS, ids=lambda it: "+".join(it.on + it.off))
def test_every_listed_combination_is_treated_as_decided(combination: object) -> None:
    listed = next(it for it in COMBINATIONS if it is combination)
    settings = dict.fromkeys(listed.on, True) | dict.fromkeys(listed.off, False)
    if listed.works:
        assert all(FeatureGates(settings)[name] is on for name, on in settings.items())
    else:
        with pytest.raises(GateError):
            FeatureGates(settings)


def test_the_table_names_only_gates_that_exist() -> None:
    named = {name for it in COMBINATIONS for name in it.on + it.off}
    named |= {name for gate in GATES for name in gate.needs + gate.excludes}
    assert named <= set(NAMES)
    assert len(NAMES) == len(set(NAMES))


def test_a_cluster_that_lacks_a_gate_is_warned_about() -> None:
    gates = FeatureGates.parse("DynamicMIG=true,DRAListTypeAttributes=true")
    assert gates.cluster_warnings((1, 33)) == (
        "DynamicMIG needs Kubernetes 1.34 or newer, this cluster is 1.33",
        "DRAListTypeAttributes needs Kubernetes 1.36 or newer, this cluster is 1.33",
    )
    assert gates.cluster_warnings((1, 37)) == (
        (
            "DRAListTypeAttributes needs the Kubernetes feature gate DRAListTypeAttributes, "
            "which is not on by default in 1.37"
        ),
    )
    assert FeatureGates().cluster_warnings((1, 32)) == ()


@given(st.dictionaries(st.sampled_from(NAMES), st.booleans()))
def test_the_text_form_is_read_back_the_same(settings: dict[str, bool]) -> None:
    gates = FeatureGates(settings)
    assert FeatureGates.parse(str(gates) + ",") == gates
    assert hash(FeatureGates.parse(str(gates))) == hash(gates)


def test_a_gate_that_is_on_and_does_nothing_yet_is_named() -> None:
    gates = FeatureGates.parse("DynamicMIG=true,DRAListTypeAttributes=true,MPSSupport=false")
    assert gates.without_effect() == ("DynamicMIG",)


def test_what_is_on_by_itself_is_not_held_against_anybody() -> None:
    assert FeatureGates().without_effect() == ()
