"""The IMEX daemon of a ComputeDomain: runs `nvidia-imex` beside a node's workloads.

It talks to the node agent through files in one shared directory and never to the API. A copy runs
on every node of every domain, so this room keeps to the cheap part of the standard library: no
asyncio, threads, dataclasses or subprocess, and nothing of the other rooms.
"""
