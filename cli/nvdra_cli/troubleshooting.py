"""`docs/troubleshooting.md` from the catalogue of reasons.

`python -m nvdra_cli.troubleshooting docs/troubleshooting.md` writes the page; with `--check` it
only tells, by exit status 1, that the page is not what would be written.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from nvdra_api.reasons import CATALOGUE, Actor, Kind, Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

_INTRODUCTION: Final = """\
# Troubleshooting

A pod that asks for a GPU and does not start says why, with a *reason* in brackets. This page
says what each reason means and what to do. It is made from the catalogue in the code
(`crds/nvdra_api/reasons/`).

## The pod stays in ContainerCreating

```sh
kubectl describe pod MY-POD
kubectl describe resourceclaim -n MY-NAMESPACE
```

The events at the end of the first name the reason, e.g. `DeviceInUse`:

```text
Events:
  Type     Reason                         From            Message
  ----     ------                         ----            -------
  Warning  DeviceInUse                    gpu.nvidia.com  error preparing devices for claim ...
  Warning  FailedPrepareDynamicResources  kubelet         Failed to prepare dynamic resources: ...
```

The first is the driver's, the second the kubelet's; both say what was tried on which object, and
what to do. The claim has the same event. Its `status.devices` has the condition `Ready`, which
is `False` with the reason while the devices cannot be prepared, and `True` once that has passed;
a claim that never failed has no such entry. When a claim that failed was prepared after all, the
pod gets the event `ClaimRecovered`. The kubelet asks again by itself every minute or two:
nothing has to be restarted once the cause is gone.

No event of the driver at all? Then the pod was not scheduled (`FailedScheduling`: no node has
such a device free), or the driver does not run on the node: the kubelet says `DRA driver
gpu.nvidia.com is not registered`. `kubectl get resourceslices` shows which devices are offered
where.

The columns *kind*: `permanent` is answered at once, the same call cannot succeed; `retried` may
pass and is tried for up to 30 s within one call of the kubelet, then again with the next; `node`
has to be put right by somebody, and is answered after 5 s, to be seen. The same reasons are the
label `reason` of the metric `nvidia_dra_claim_failures_total` and the key `reason` in the
agent's log, where each line about a claim has `claim=` with its UID.
"""

_CLAIM_KINDS: Final = (Kind.PERMANENT, Kind.RETRIED, Kind.NODE)

_ACTORS: Final = (
    (Actor.USER, "Change the pod or its claim", ""),
    (Actor.NOBODY, "Wait", "These pass by themselves."),
    (Actor.NODE, "Put the node right", "For whoever runs the node."),
    (Actor.CLUSTER, "Put the cluster right", "For whoever runs the cluster."),
    (Actor.PROJECT, "Report a defect", ""),
)

_OTHERS: Final = (
    (
        Kind.NOTICE,
        "Events that report",
        "They stand on claims, pods and nodes beside the reasons above.",
    ),
    (
        Kind.SLICES,
        "Devices are not offered",
        "These are not about a claim: they stand in the log of the agent, which goes on.",
    ),
    (
        Kind.START,
        "The agent does not start",
        "They stand in the log of the agent, which ends with exit status 1.",
    ),
)


def page() -> str:
    """The whole page."""
    claims = [
        _section(title, words, [r for r in CATALOGUE if r.actor == actor], with_kind=True)
        for actor, title, words in _ACTORS
    ]
    others = [
        _section(title, words, [r for r in CATALOGUE if r.kind == kind], with_kind=False)
        for kind, title, words in _OTHERS
    ]
    return "\n".join([_INTRODUCTION, *filter(None, claims), *filter(None, others)])


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m nvdra_cli.troubleshooting")
    parser.add_argument("page", type=Path, help="the file to write")
    parser.add_argument("--check", action="store_true", help="write nothing, only compare")
    arguments = parser.parse_args(argv)
    if not arguments.check:
        arguments.page.write_text(page(), encoding="utf-8")
    elif not arguments.page.exists() or arguments.page.read_text(encoding="utf-8") != page():
        sys.exit(f"{arguments.page} differs: write it anew with {parser.prog} {arguments.page}")


def _section(title: str, words: str, reasons: list[Reason], *, with_kind: bool) -> str:
    if with_kind:
        reasons = [reason for reason in reasons if reason.kind in _CLAIM_KINDS]
    if not reasons:
        return ""
    columns = ["reason", *(["kind"] if with_kind else []), "what it means", "what to do"]
    rows = [
        [f"`{r.name}`", *([str(r.kind)] if with_kind else []), r.meaning, r.next_step]
        for r in reasons
    ]
    rule = "|---" * len(columns) + "|"
    table = [_row(columns), rule, *map(_row, rows)]
    head = [f"## {title}", "", *([words, ""] if words else [])]
    return "\n".join([*head, *table, ""])


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
