"""Passes packets between two tun devices, each so many seconds after it came: delay.py END END SECONDS.

It prints a line when it begins.
"""

from __future__ import annotations

import os
import select
import sys
import time
from collections import deque


def main() -> None:
    ends = {int(sys.argv[1]): int(sys.argv[2]), int(sys.argv[2]): int(sys.argv[1])}
    delay = float(sys.argv[3])
    poll = select.poll()
    for end in ends:
        poll.register(end, select.POLLIN)
    print("ready", flush=True)
    under_way: deque[tuple[float, int, bytes]] = deque()
    while True:
        wait = max(0.0, under_way[0][0] - time.monotonic()) * 1000 if under_way else None
        for end, _ in poll.poll(wait):
            try:
                under_way.append((time.monotonic() + delay, ends[end], os.read(end, 65536)))
            except BlockingIOError:
                continue
        while under_way and under_way[0][0] <= time.monotonic():
            _, end, packet = under_way.popleft()
            os.write(end, packet)


main()
