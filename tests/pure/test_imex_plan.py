"""What the daemon writes for nvidia-imex, and when it wants it to run."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvdra_api import names
from nvdra_nodeagent.imex import inputs, rendering
from nvdra_nodeagent.imex.hosts import BEGIN, END, with_slots
from nvdra_nodeagent.imex.plan import Halt, Identity, Run, Stay, desire, doubt
from nvdra_testing.imex import BOOT, CLIQUE, DOMAIN, NAME, some_peers, some_settings

TWO = {0: "10.0.0.1", 2: "10.0.0.3"}
OWN = Identity(DOMAIN, CLIQUE, "claim-a", BOOT, "10.0.0.1")


def wanted(addresses: dict[int, str], *, own: int | None = 0, **settings: Any) -> Any:
    peers = some_peers(addresses, own=own)
    return desire(some_settings(**settings), peers, identity=OWN, nodes_path="/imexd/nodes.cfg")


def run(addresses: dict[int, str], *, own: int | None = 0, **settings: Any) -> Run:
    found = wanted(addresses, own=own, **settings)
    assert isinstance(found, Run)
    return found


def test_names_and_ports_are_those_of_the_contract() -> None:
    assert rendering.hostname(7, suffix="") == names.IMEX_DAEMON_HOSTNAME.format(index=7)
    assert inputs.DEFAULT_SERVER_PORT == names.IMEX_PEER_PORT
    assert inputs.DEFAULT_COMMAND_PORT == names.IMEX_COMMAND_PORT


def test_the_suffix_of_the_domain_is_in_its_names() -> None:
    assert rendering.hostname(7, suffix="8585d496") == "compute-domain-daemon-8585d496-0007"


def test_every_slot_has_a_name_and_unused_ones_lead_nowhere() -> None:
    assert run(TWO).slots == (
        ("10.0.0.1", NAME % 0),
        ("127.0.0.2", NAME % 1),
        ("10.0.0.3", NAME % 2),
        ("127.0.0.2", NAME % 3),
    )


def test_the_nodes_file_has_all_names_whoever_is_there() -> None:
    assert run(TWO).launch.nodes == run({0: "10.0.0.1"}).launch.nodes
    assert run(TWO).launch.nodes.splitlines() == [NAME % slot for slot in range(4)]


def test_in_ip_mode_the_nodes_file_has_the_addresses_by_index() -> None:
    found = run({0: "10.0.0.1", 2: "10.0.0.9", 1: "10.0.0.8"}, mode="ip")
    assert found.launch.nodes == "10.0.0.1\n10.0.0.8\n10.0.0.9\n"
    assert found.slots == ()


def test_in_ip_mode_positions_close_the_gaps_between_indices() -> None:
    assert run(TWO, mode="ip").positions == ((0, 0), (1, 2))
    assert run(TWO).positions == ((0, 0), (2, 2))


def test_the_configuration_says_what_is_particular_to_this_pod() -> None:
    lines = set(run(TWO, grace_time_s=60, log_level=2).launch.config.splitlines())
    assert lines >= {
        "LOG_LEVEL=2",
        "IMEX_NODE_DISCONNECTED_GRACE_TIME=60",
        "IMEX_CMD_BIND_INTERFACE_IP=10.0.0.1",
        "IMEX_CMD_PORT=50005",
        "SERVER_PORT=50000",
        "IMEX_NODE_CONFIG_FILE=/imexd/nodes.cfg",
        "IMEX_WAIT_FOR_QUORUM=RECOVERY",
        "DAEMONIZE=0",
    }


def test_a_new_peer_changes_names_but_not_what_is_read_at_start() -> None:
    before, after = run(TWO), run({**TWO, 1: "10.0.0.2"})
    assert before.launch == after.launch
    assert before.slots != after.slots


def test_another_own_index_takes_another_start() -> None:
    moved = desire(
        some_settings(),
        some_peers({2: "10.0.0.1"}, own=2)._replace(
            entries=(inputs.Peer(2, "10.0.0.1", "node-0"),)
        ),
        identity=OWN,
        nodes_path="/imexd/nodes.cfg",
    )
    assert isinstance(moved, Run)
    assert moved.launch != run(TWO).launch


def test_no_fabric_means_nothing_to_wait_for() -> None:
    found = wanted(TWO, clique="")
    assert isinstance(found, Halt)
    assert found.idle


@pytest.mark.parametrize(
    ("addresses", "own", "settings", "reason"),
    [
        ({1: "10.0.0.2"}, None, {}, "WaitingForOwnEntry"),
        ({1: "10.0.0.2"}, 0, {}, "WaitingForOwnEntry"),
        ({0: "10.0.0.77"}, 0, {}, "WaitingForOwnEntry"),  # of the pod that was here before
        ({0: "10.0.0.1"}, 0, {"node": "node-7"}, "WaitingForOwnEntry"),
        (TWO, 0, {"mode": "ip", "num_nodes": 3}, "WaitingForNodes"),
    ],
)
def test_it_waits_for_its_own_entry_and_in_ip_mode_for_all(
    addresses: dict[int, str], own: int | None, settings: dict[str, Any], reason: str
) -> None:
    found = wanted(addresses, own=own, **settings)
    assert isinstance(found, Stay)
    assert found.reason == reason


def test_in_ip_mode_the_whole_domain_counts_not_the_clique_alone() -> None:
    peers = some_peers(TWO)._replace(total=3)
    settings = some_settings(mode="ip", num_nodes=3)
    assert isinstance(desire(settings, peers, identity=OWN, nodes_path="n"), Run)


def test_without_a_list_of_peers_it_waits() -> None:
    assert desire(some_settings(), None, identity=OWN, nodes_path="n") == Stay(
        "NoPeers", "the node agent has not written peers.json yet"
    )


@pytest.mark.parametrize(
    "changes",
    [{"claim_uid": "claim-b"}, {"boot_id": "earlier"}, {"domain": "other"}, {"clique": "other.1"}],
)
def test_settings_of_another_claim_boot_domain_or_clique_are_not_used(
    changes: dict[str, str],
) -> None:
    found = doubt(some_settings(**changes), OWN, accepted=False)
    assert found is not None
    assert found.reason == "StaleSettings"


def test_settings_that_replace_good_ones_supersede_this_daemon() -> None:
    found = doubt(some_settings(claim_uid="claim-b"), OWN, accepted=True)
    assert found is not None
    assert found.reason == "Superseded"


def test_settings_of_this_container_are_beyond_doubt() -> None:
    assert doubt(some_settings(), OWN, accepted=True) is None
    assert doubt(some_settings(), Identity(), accepted=False) is None


FOREIGN = "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n10.1.1.1\tpod.example pod\n"
SLOTS = (("10.0.0.1", NAME % 0), ("127.0.0.2", NAME % 1))


def test_the_block_comes_after_the_lines_of_others() -> None:
    block = f"{BEGIN}\n10.0.0.1\t{NAME % 0}\n127.0.0.2\t{NAME % 1}\n{END}\n"
    assert with_slots(FOREIGN, SLOTS) == FOREIGN + block


def test_writing_it_again_changes_nothing() -> None:
    once = with_slots(FOREIGN, SLOTS)
    assert with_slots(once, SLOTS) == once


def test_a_block_that_lost_its_end_is_replaced() -> None:
    torn = with_slots(FOREIGN, SLOTS).replace(f"{END}\n", "") + "10.2.2.2\tlate\n"
    assert with_slots(torn, SLOTS) == with_slots(FOREIGN + "10.2.2.2\tlate\n", SLOTS)


def test_a_name_outside_of_the_block_cannot_win_over_it() -> None:
    assert with_slots(f"10.6.6.6\t{NAME % 0}\n{FOREIGN}", SLOTS) == with_slots(FOREIGN, SLOTS)


def test_a_last_line_without_an_end_is_not_lengthened() -> None:
    assert with_slots("10.1.1.1\tpod", SLOTS).startswith(f"10.1.1.1\tpod\n{BEGIN}\n")


foreign_lines = st.lists(
    st.text(st.characters(codec="latin-1", exclude_characters="\n"), min_size=1, max_size=20)
)


@given(foreign_lines)
def test_lines_of_others_stay_as_they_are(lines: list[str]) -> None:
    found = with_slots("".join(f"{line}\n" for line in lines), SLOTS)
    assert found.partition(BEGIN)[0] == "".join(f"{line}\n" for line in lines)
