"""`nvdra-imex-daemon check`: asks the daemon of this pod whether it is ready."""

from __future__ import annotations

import os
import socket
from typing import Final

_TIMEOUT_S: Final = 5.0


def check(address: str, port: int) -> int:
    """Print what it says; 0 when it is ready, 1 when it is not or does not answer."""
    try:
        with socket.create_connection((address or "127.0.0.1", port), _TIMEOUT_S) as connection:
            connection.sendall(b"GET /ready HTTP/1.1\r\nHost: daemon\r\n\r\n")
            answer = b""
            while data := connection.recv(4096):
                answer += data
    except OSError as error:
        os.write(2, f"the daemon at {address}:{port} does not answer: {error}\n".encode())
        return 1
    head, _, body = answer.partition(b"\r\n\r\n")
    os.write(1, body)
    return 0 if head.split(b" ")[1:2] == [b"200"] else 1
