"""What each demo and public spec promises, once for every cluster that runs it.

A runner puts `Spec.file` onto nodes with the hardware that the spec asks for, waits until its pods
are settled, and gives what it saw to `Spec.verify`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from nvdra_testing.simulation import Simulated

_ROOT: Final = Path(__file__).resolve().parents[3]
DEMOS: Final = _ROOT / "manifests" / "demo"
PUBLIC_SPECS: Final = _ROOT.parent / "shared" / "inputs" / "public-specs"
MIG_LAYOUT: Final = _ROOT / "manifests" / "simulator" / "mig-layout.yaml"
DEFAULT_PROFILE: Final = "h100"
FABRIC_PROFILE: Final = "gb200"

_CHANNEL = re.compile(r"\bchannel\d+\b")
_UUID = re.compile(r"\b(?:GPU|MIG)-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")


@dataclass(frozen=True, slots=True)
class AllocatedDevice:
    """A device of a claim: the request it is for, and the UUID that its slice gives."""

    request: str
    uuid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PodOutcome:
    """A settled pod; devices in the order of its claims and of their allocations.

    `reason` is why it does not run, where the cluster tells.
    """

    phase: str
    node: str = ""
    devices: tuple[AllocatedDevice, ...] = ()
    reason: str = ""
    logs: Mapping[str, str] = field(default_factory=dict)

    @property
    def allocated(self) -> list[str]:
        return [device.uuid for device in self.devices]

    @property
    def by_request(self) -> dict[str, str]:
        return {device.request: device.uuid for device in self.devices}

    def seen(self, container: str) -> list[str]:
        """UUIDs that a container printed, MIG devices without the GPUs they are part of."""
        found: list[str] = _UUID.findall(self.logs[container])
        migs = [uuid for uuid in found if uuid.startswith("MIG-")]
        return migs or found


@dataclass(frozen=True, slots=True)
class DomainOutcome:
    """A ComputeDomain: its status, and the status of each of its nodes."""

    status: str
    nodes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Outcome:
    """All pods and ComputeDomains of one spec, by name."""

    pods: Mapping[str, PodOutcome]
    domains: Mapping[str, DomainOutcome] = field(default_factory=dict)

    def __getitem__(self, pod: str) -> PodOutcome:
        return self.pods[pod]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """A manifest, the cluster it asks for, and the promise that it keeps there.

    `profile`: hardware of all nodes. `is_cut`: some node's GPUs are cut by `MIG_LAYOUT`.
    `one_node`: the promise only holds if all pods are on one node. `runs`: whether its pods get to
    run; else they stay Pending. `gates`: feature gates of the agents, as their flag has them.
    `nodes`: how many have to be there.
    """

    file: Path
    promise: Callable[[Outcome], None]
    profile: str = DEFAULT_PROFILE
    is_cut: bool = False
    one_node: bool = False
    runs: bool = True
    gates: str = ""
    nodes: int = 1

    @property
    def name(self) -> str:
        """For the ids of tests."""
        base = DEMOS if self.file.is_relative_to(DEMOS) else PUBLIC_SPECS
        path = self.file.relative_to(base).with_suffix("")
        return f"{path}-{self.promise.__name__}"

    def verify(self, outcome: Outcome) -> None:
        """Raise AssertionError, with the outcome in a note, if the promise was not kept."""
        phases = {"Running", "Succeeded"} if self.runs else {"Pending"}
        try:
            assert outcome.pods, "no pods"
            assert {pod.phase for pod in outcome.pods.values()} <= phases
            self.promise(outcome)
        except AssertionError as error:
            error.add_note(f"{self.file} gave {outcome}")
            raise


def outcome_of(run: Simulated) -> Outcome:
    """What `nvdra simulate --json` told."""
    return Outcome(
        {
            name: PodOutcome(
                phase=pod["phase"],
                node=pod["node"] or "",
                reason=pod["reason"],
                devices=tuple(
                    AllocatedDevice(each["request"], each["uuid"]) for each in run.devices(name)
                ),
                logs=pod["logs"],
            )
            for name, pod in run.pods.items()
        },
        {
            name: DomainOutcome(
                domain["status"], {node["name"]: node["status"] for node in domain["nodes"]}
            )
            for name, domain in run.domains.items()
        },
    )


def containers_of_one_pod_share_a_gpu(done: Outcome) -> None:
    [pod] = done.pods.values()
    [gpu] = pod.allocated
    assert len(pod.logs) == 2
    for container in pod.logs:
        assert pod.seen(container) == [gpu]


def pods_of_one_template_get_gpus_of_their_own(done: Outcome) -> None:
    _each_pod_sees_what_it_was_given(done)
    _one_gpu_each(done, pods=2)


def pods_that_name_one_claim_share_its_gpu(done: Outcome) -> None:
    _each_pod_sees_what_it_was_given(done)
    assert len(done.pods) == 2
    assert len({uuid for pod in done.pods.values() for uuid in pod.allocated}) == 1
    assert len({pod.node for pod in done.pods.values()}) == 1


def each_container_sees_only_the_gpu_of_its_claim(done: Outcome) -> None:
    [pod] = done.pods.values()
    left, right = (pod.seen(container) for container in sorted(pod.logs))
    assert [*left, *right] == pod.allocated
    assert len(left) == len(right) == 1
    assert left != right


def one_claim_may_ask_for_two_gpus(done: Outcome) -> None:
    _one_container_sees_gpus(done, count=2)


def one_claim_may_ask_for_all_gpus(done: Outcome) -> None:
    _one_container_sees_gpus(done, count=8)


def a_request_picks_the_gpu_of_a_container(done: Outcome) -> None:
    pod = done["pod"]
    assert pod.seen("renderer") == [pod.by_request["render"]]
    assert pod.seen("trainer") == [pod.by_request["train"]]
    assert len(set(pod.allocated)) == 2


def a_gpu_is_chosen_by_its_attributes(done: Outcome) -> None:
    _one_container_sees_gpus(done, count=1)


def a_gpu_of_another_architecture_is_not_taken(done: Outcome) -> None:
    assert done["pod"].phase == "Pending"
    assert not done["pod"].devices


def a_wish_list_takes_the_first_that_is_there(done: Outcome) -> None:
    assert list(done["pod"].by_request) == ["gpu/blackwell"]
    _one_container_sees_gpus(done, count=1)


def a_wish_list_takes_the_next_best(done: Outcome) -> None:
    assert list(done["pod"].by_request) == ["gpu/large"]
    _one_container_sees_gpus(done, count=1)


def two_gpus_are_neighbours(done: Outcome) -> None:
    _one_container_sees_gpus(done, count=2)


def a_deployment_gets_a_gpu_for_each_replica(done: Outcome) -> None:
    _each_pod_sees_what_it_was_given(done)
    _one_gpu_each(done, pods=4)


def an_administrator_sees_gpus_that_are_in_use(done: Outcome) -> None:
    worker, monitor = done["worker"], done["monitor"]
    assert len(set(monitor.seen("main"))) == 8
    assert worker.seen("main") == worker.allocated
    assert set(worker.allocated) < set(monitor.seen("main"))


def slices_of_a_mig_gpu_go_to_the_containers_that_name_them(done: Outcome) -> None:
    pod = done["pod"]
    assert len(set(pod.allocated)) == 3
    for request in ("small", "medium", "large"):
        assert pod.by_request[request].startswith("MIG-")
        assert pod.seen(request) == [pod.by_request[request]]


def containers_take_turns_on_one_gpu(done: Outcome) -> None:
    containers_of_one_pod_share_a_gpu(done)


def sharing_is_refused_while_its_gate_is_off(done: Outcome) -> None:
    [pod] = done.pods.values()
    assert "InvalidConfig" in pod.reason
    assert '"TimeSlicingSettings"' in pod.reason


def time_slices_are_no_obstacle_but_mps_is(done: Outcome) -> None:
    pod = done["pod0"]
    assert "SharingUnsupported" in pod.reason
    assert '"MPS" of request mps-gpu' in pod.reason


def one_container_gets_two_gpus(done: Outcome) -> None:
    pod = done["gpu-pod"]
    assert len(set(pod.allocated)) == 2
    assert "NVIDIA-SMI" in pod.logs["ctr0"]
    assert pod.logs["ctr0"].count("H100") == 2


def pods_of_a_domain_get_a_channel_each(done: Outcome) -> None:
    [domain] = done.domains.values()
    assert domain.status == "Ready"
    assert domain.nodes == {pod.node: "Ready" for pod in done.pods.values()}
    for pod in done.pods.values():
        [log] = pod.logs.values()
        assert _CHANNEL.findall(log) == ["channel0"]


def neighbours_in_a_domain_have_gpus_too(done: Outcome) -> None:
    pods_of_a_domain_get_a_channel_each(done)
    for pod in done.pods.values():
        assert pod.seen("main") == [uuid for uuid in pod.allocated if uuid]
    assert len({pod.node for pod in done.pods.values()}) == 2


def a_pod_of_a_domain_gets_all_channels(done: Outcome) -> None:
    [domain] = done.domains.values()
    assert domain.status == "Ready"
    [pod] = done.pods.values()
    found = _CHANNEL.findall(pod.logs["ctr"])
    assert sorted(found) == sorted(f"channel{number}" for number in range(2048))


def _one_container_sees_gpus(done: Outcome, *, count: int) -> None:
    pod = done["pod"]
    assert len(set(pod.allocated)) == count
    assert sorted(pod.seen("main")) == sorted(pod.allocated)


def _each_pod_sees_what_it_was_given(done: Outcome) -> None:
    for pod in done.pods.values():
        [container] = pod.logs
        assert pod.seen(container) == pod.allocated


def _one_gpu_each(done: Outcome, *, pods: int) -> None:
    assert len(done.pods) == pods
    given = [uuid for pod in done.pods.values() for uuid in pod.allocated]
    assert len(given) == len(set(given)) == pods


def _demos() -> Iterable[Spec]:
    for name, promise in (
        ("all-gpus", one_claim_may_ask_for_all_gpus),
        ("by-attribute", a_gpu_is_chosen_by_its_attributes),
        ("by-request", a_request_picks_the_gpu_of_a_container),
        ("deployment", a_deployment_gets_a_gpu_for_each_replica),
        ("first-available", a_wish_list_takes_the_next_best),
        ("gpu-count", one_claim_may_ask_for_two_gpus),
        ("own-gpus", pods_of_one_template_get_gpus_of_their_own),
        ("same-numa", two_gpus_are_neighbours),
        ("shared-claim", pods_that_name_one_claim_share_its_gpu),
        ("shared-gpu", containers_of_one_pod_share_a_gpu),
        ("two-claims", each_container_sees_only_the_gpu_of_its_claim),
    ):
        yield Spec(file=DEMOS / f"{name}.yaml", promise=promise)
    yield Spec(
        file=DEMOS / "admin-access.yaml",
        promise=an_administrator_sees_gpus_that_are_in_use,
        one_node=True,
    )
    yield Spec(
        file=DEMOS / "mig-slices.yaml",
        promise=slices_of_a_mig_gpu_go_to_the_containers_that_name_them,
        is_cut=True,
    )
    yield Spec(
        file=DEMOS / "by-attribute.yaml",
        promise=a_gpu_of_another_architecture_is_not_taken,
        profile="a100-80gb",
        runs=False,
    )
    yield Spec(
        file=DEMOS / "first-available.yaml",
        promise=a_wish_list_takes_the_first_that_is_there,
        profile="b200",
    )


def _public_specs() -> Iterable[Spec]:
    for flavour in ("v1", "v1beta1"):
        for name, promise in (
            ("gpu-test1", pods_of_one_template_get_gpus_of_their_own),
            ("gpu-test2", containers_of_one_pod_share_a_gpu),
            ("gpu-test3", pods_that_name_one_claim_share_its_gpu),
        ):
            file = PUBLIC_SPECS / "quickstart" / flavour / f"{name}.yaml"
            yield Spec(file=file, promise=promise)
    for name, promise in (
        ("gpu-test7", each_container_sees_only_the_gpu_of_its_claim),
        ("gpu-test8", one_container_gets_two_gpus),
    ):
        yield Spec(file=PUBLIC_SPECS / "quickstart" / f"{name}.yaml", promise=promise)


def _gated_specs() -> Iterable[Spec]:
    demo = DEMOS / "time-slicing.yaml"
    gate = "TimeSlicingSettings=true"
    yield Spec(file=demo, promise=containers_take_turns_on_one_gpu, gates=gate)
    yield Spec(file=demo, promise=sharing_is_refused_while_its_gate_is_off, runs=False)
    for flavour in ("v1", "v1beta1"):
        yield Spec(
            file=PUBLIC_SPECS / "quickstart" / flavour / "gpu-test5.yaml",
            promise=time_slices_are_no_obstacle_but_mps_is,
            runs=False,
            gates=f"{gate},MPSSupport=true",
        )


def _domain_specs() -> Iterable[Spec]:
    yield Spec(
        file=DEMOS / "compute-domain.yaml",
        promise=neighbours_in_a_domain_have_gpus_too,
        profile=FABRIC_PROFILE,
        nodes=2,
    )
    for name, promise in (
        ("channel-injection", pods_of_a_domain_get_a_channel_each),
        ("channel-injection-all", a_pod_of_a_domain_gets_all_channels),
    ):
        file = PUBLIC_SPECS / "imex" / f"{name}.yaml"
        yield Spec(file=file, promise=promise, profile=FABRIC_PROFILE, nodes=2)


DEMO_SPECS: Final = tuple(_demos())
QUICKSTART_SPECS: Final = tuple(_public_specs())
GATED_SPECS: Final = tuple(_gated_specs())
"""What feature gates decide about; clusters whose gates are fixed cannot run them."""
DOMAIN_SPECS: Final = tuple(_domain_specs())
"""For clusters that serve ComputeDomains, on nodes with an NVLink fabric."""
