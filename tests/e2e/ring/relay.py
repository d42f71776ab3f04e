"""Passes TCP connections on from an inherited listening socket into this network namespace.

Run alone (standard library only): ``relay.py LISTENING_FD HOST PORT``. The socket was made in the
machine's own namespace and keeps it; connections are made in the one this process runs in.
Ends when its standard input does, that is with the harness.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await reader.read(1 << 16):
            writer.write(chunk)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


async def serve(listening: socket.socket, host: str, port: int) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError), contextlib.closing(writer):
            far_reader, far_writer = await asyncio.open_connection(host, port)
            with contextlib.closing(far_writer):
                await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))

    ended = asyncio.Event()

    def watch_owner() -> None:
        if not os.read(0, 1024):
            ended.set()

    asyncio.get_running_loop().add_reader(0, watch_owner)
    async with await asyncio.start_server(connected, sock=listening):
        await ended.wait()


def main() -> None:
    listening = socket.socket(fileno=int(sys.argv[1]))
    listening.setblocking(False)
    asyncio.run(serve(listening, sys.argv[2], int(sys.argv[3])))


if __name__ == "__main__":
    main()
