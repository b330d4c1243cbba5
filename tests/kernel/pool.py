"""Uses redis-py's pool of ten connections in one of these ways: pool.py WAY PORT.

fresh     a pool for each request
ports     the same, 90 times
crowded   40 threads want a connection of the ten all the time
relaxed   ten threads that use theirs half of the time
idle      each connection is used once, and left alone for longer than the server likes
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable

import redis

SIZE = 10


def fresh(port: int, times: int = 40) -> None:
    for _ in range(times):
        pool = redis.BlockingConnectionPool(max_connections=SIZE, host="127.0.0.1", port=port)
        redis.Redis(connection_pool=pool).get("key")
        pool.disconnect()


def together(port: int, threads: int, work: Callable[[redis.Redis], object]) -> None:
    """All threads at once, with one pool."""
    pool = redis.BlockingConnectionPool(max_connections=SIZE, timeout=60, host="127.0.0.1", port=port)
    client = redis.Redis(connection_pool=pool)
    running = [threading.Thread(target=work, args=(client,)) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()


def crowded(client: redis.Redis) -> None:
    for _ in range(3):
        client.blpop(["nothing"], 0.4)


def relaxed(client: redis.Redis) -> None:
    for wait in (0.5, *[0.05] * 11):  # the first one long enough for all to be there
        client.blpop(["nothing"], wait)
        time.sleep(0.1)


def idle(client: redis.Redis) -> None:
    client.blpop(["nothing"], 0.5)
    time.sleep(4)


def main() -> None:
    way, port = sys.argv[1], int(sys.argv[2])
    if way in ("fresh", "ports"):
        fresh(port, 40 if way == "fresh" else 90)
    else:
        together(port, 40 if way == "crowded" else SIZE, {"crowded": crowded, "relaxed": relaxed, "idle": idle}[way])


main()
