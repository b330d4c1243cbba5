"""Both ends of real connections, added up by the server's port."""

import socket
import threading

from probekit.testing import Harnesses, assert_plugin_contract


def test_contract() -> None:
    assert_plugin_contract("aggregator", "ports", {"probe": "latency"})


def test_connections_of_one_port_are_one_row(probe_harness: Harnesses) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        threading.Thread(target=_serve, args=(server, 2), daemon=True).start()
        harness = probe_harness("latency", aggregators={"ports": {"most": 1000}})
        with harness.live() as live, _exchange(port):  # one that stays open, and one that is closed
            _exchange(port).close()
            figures = live.finish().figures
    table = next(table for table in figures.tables if table.name == "ports.ports")
    values = [column.values.tolist() for column in table.columns[:3]]
    rows = {(number, side): events for number, side, events in zip(*values, strict=True)}
    assert (rows[port, "client"], rows[port, "server"]) == (6, 6)
    assert figures.summary["ports.ports"] >= 2
    assert figures.tables[0].name == "connections"


def _exchange(port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port))
    for _ in range(3):
        client.sendall(b"?")
        client.recv(1)
    return client


def _serve(server: socket.socket, connections: int) -> None:
    for _ in range(connections):
        peer, _ = server.accept()
        threading.Thread(target=_answer, args=(peer,), daemon=True).start()


def _answer(peer: socket.socket) -> None:
    with peer:
        while peer.recv(1):
            peer.sendall(b"!")
