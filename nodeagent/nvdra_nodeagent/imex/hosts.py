"""The daemon's block in the pod's `/etc/hosts`; all other lines there are somebody else's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from nvdra_nodeagent.imex.rendering import HOSTNAME_PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BEGIN: Final = "# Begin of the nodes of this ComputeDomain"
END: Final = "# End of the nodes of this ComputeDomain"


def with_slots(text: str, slots: Sequence[tuple[str, str]]) -> str:
    """`text` with `slots` (address, name) as its last block, in their order.

    Own earlier lines are replaced wherever they are: blocks whose end got lost, and names outside
    of a block, which would win over it.
    """
    foreign = list(_foreign(text.split("\n")))
    while foreign and not foreign[-1]:
        foreign.pop()
    block = [BEGIN, *(f"{address}\t{name}" for address, name in slots), END, ""]
    return "\n".join((*foreign, *block))


def _foreign(lines: Sequence[str]) -> Iterator[str]:
    for line in lines:
        bare = line.strip()
        names = bare.partition("#")[0].split()[1:]
        if bare not in (BEGIN, END) and not any(each.startswith(HOSTNAME_PREFIX) for each in names):
            yield line
