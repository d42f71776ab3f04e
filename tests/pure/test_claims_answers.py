"""How the kubelet is told of failures."""

from __future__ import annotations

import pytest

from nvdra_nodeagent.claims.answers import worded
from nvdra_nodeagent.errors import AgentError, NodeFault, NotYet, Permanent, Retryable
from nvdra_testing.claims import a_ref


class NoDisk(NodeFault):
    def __init__(self) -> None:
        super().__init__("DiskFull", "no space", hint="free some")


@pytest.mark.parametrize("kind", [Permanent, NotYet, NodeFault, Retryable, AgentError])
def test_an_error_stays_what_it_is_and_names_the_claim(kind: type[AgentError]) -> None:
    told = worded(kind("Wrong", "bad", hint="mend it"), operation="prepare", ref=a_ref())
    assert type(told) is kind
    assert str(told) == f"error preparing devices for claim {a_ref()}: bad; mend it [Wrong]"


def test_an_error_of_a_class_of_its_own_can_be_told_too() -> None:
    told = worded(NoDisk(), operation="unprepare", ref=a_ref())
    assert isinstance(told, NodeFault)
    assert (told.reason, told.hint) == ("DiskFull", "free some")
