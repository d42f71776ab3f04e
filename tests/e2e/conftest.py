"""The real cluster for tests: one for the session, brought up by the first test that asks.

This ring runs only where it is named (``pytest tests/e2e``): it needs root and minutes.
"""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.e2e.injectors.users import Users, wait_until_clean
from tests.e2e.product.domains import Domains, domain_values
from tests.e2e.product.release import Product, load_image
from tests.e2e.ring.cluster import RealCluster
from tests.e2e.ring.errors import Refused
from tests.e2e.ring.patience import DEADLINE_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.ring.kubectl import Kubectl
    from tests.e2e.ring.node import Node

_HERE = Path(__file__).parent
_PATIENTLY = f"--timeout={DEADLINE_S:.0f}s"
_numbers = itertools.count(1)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the ring out unless it, or something in it, was named."""
    named = (Path(word.partition("::")[0]) for word in config.args)
    base = config.invocation_params.dir
    chosen = any((base / path).resolve().is_relative_to(_HERE) for path in named)
    return None if chosen else True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test may have to build Kubernetes; a test here waits for conditions, not time."""
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.timeout(3600))
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    """The ring's own tests bring a driver of their own, and those of ComputeDomains more nodes."""
    fixtures = getattr(item, "fixturenames", ())
    return 2 if "with_domains" in fixtures else int("product" in fixtures)


@pytest.fixture(scope="session")
def say(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Tell the person who waits, past pytest's capturing."""
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    terminal = pytestconfig.pluginmanager.getplugin("terminalreporter")

    def to_terminal(line: str) -> None:
        if capture is None or terminal is None:
            return
        with capture.global_and_fixture_disabled():
            terminal.write_line(f"e2e: {line}")

    return to_terminal


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest, say: Callable[[str], None]) -> Iterator[RealCluster]:
    """Two nodes, Ready. A test leaves it as it found it."""
    try:
        with RealCluster(name=f"test-{os.getpid()}", say=say) as running:
            yield running
            if request.session.testsfailed:
                say(f"logs are in {running.save_logs()}")
    except Refused as refused:
        lines = "\n".join(f"e2e: {problem}" for problem in refused.problems)
        pytest.exit(lines, returncode=pytest.ExitCode.USAGE_ERROR)


@pytest.fixture(scope="session")
def product(cluster: RealCluster, say: Callable[[str], None]) -> Iterator[Product]:
    """The driver with simulated GPUs, installed by Helm on every node and Ready.

    A test leaves it installed, with the values, labels and hardware that it found.
    """
    load_image(cluster)
    installed = Product(cluster)
    try:
        installed.install()
        say(f"the chart was installed and Ready after {installed.install_s:.1f} s")
        yield installed
    finally:
        installed.uninstall()


@pytest.fixture(scope="session")
def with_domains(cluster: RealCluster, say: Callable[[str], None]) -> Product:
    """The driver with ComputeDomains and two controllers on four nodes with multi-node NVLink.

    It takes the place of ``product``, and ends with the cluster: tests that use it come last.
    """
    started = time.monotonic()
    cluster.add_nodes(2)
    load_image(cluster)
    installed = Product(cluster, domain_values())
    installed.uninstall()
    installed.install()
    installed.wait_until_ready()
    say(f"ComputeDomains can be made on four nodes after {time.monotonic() - started:.1f} s")
    return installed


@pytest.fixture
def domains(with_domains: Product, namespace: str) -> Iterator[Domains]:
    """To make ComputeDomains with; none of them is left at the end."""
    yield Domains(with_domains, namespace)
    kubectl = with_domains.kubectl
    everything = "--all", f"--namespace={namespace}", _PATIENTLY
    try:
        kubectl("delete", "pods", *everything)
    finally:
        kubectl("delete", "computedomains", *everything)


@pytest.fixture
def node(product: Product) -> Node:
    """A node on which the driver is installed and every GPU is free."""
    node = product.cluster.nodes[1]
    product.wait_until_ready(node)
    wait_until_clean(node)
    return node


@pytest.fixture
def users(kubectl: Kubectl, namespace: str, node: Node) -> Iterator[Users]:
    """Pods with a GPU each, to be made on that node; it is clean again at the end."""
    users = Users(kubectl, namespace, node)
    users.prepare()
    yield users
    kubectl("delete", "pods", "--all", f"--namespace={namespace}")
    wait_until_clean(node)


@pytest.fixture
def kubectl(cluster: RealCluster) -> Kubectl:
    return cluster.kubectl


@pytest.fixture
def namespace(kubectl: Kubectl) -> Iterator[str]:
    """A namespace for one test, with its ServiceAccount; gone with everything in it."""
    name = f"test-{next(_numbers)}"
    kubectl.create_namespace(name)
    yield name
    kubectl("delete", "namespace", name, "--wait=false")
