"""A server that does as its clients say: closer.py ADDRESS BACKLOG prints its port, then serves one after the other.

The first byte of a connection says who is going to close it: c the client, s the server, r the server by a reset, e the
server after an answer, o nobody.
"""

from __future__ import annotations

import socket
import struct
import sys

RESET = struct.pack("ii", 1, 0)


def serve(connection: socket.socket, kept: list[socket.socket]) -> None:
    try:
        order = connection.recv(1)
        if order == b"o":
            kept.append(connection)
            return
        if order == b"c":
            connection.recv(1)
        elif order == b"e":
            connection.send(b"answer")
            connection.recv(1)
        elif order == b"r":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    except ConnectionResetError:
        pass
    connection.close()


def main() -> None:
    listener = socket.create_server((sys.argv[1], 0), backlog=int(sys.argv[2]))
    print(listener.getsockname()[1], flush=True)
    kept: list[socket.socket] = []
    while True:
        serve(listener.accept()[0], kept)


main()
