"""The end of a run, asked for by signals."""

from __future__ import annotations

import signal
import subprocess
import sys

_BUSY = """
import hashlib, os, signal, threading, time
from probekit.run.stop import Stop

stop, asked = Stop(), []
stop.at({signal.SIGTERM})
waiting = threading.Thread(target=lambda: (stop.wait(60), asked.append(time.monotonic())))
waiting.start()
began = time.monotonic()
threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
hashlib.pbkdf2_hmac("sha256", b"", b"", 5_000_000)  # one step of the interpreter, which takes seconds
took = time.monotonic() - began
waiting.join()
print((asked[0] - began) / took < 0.5)  # not when the step is over
"""

_TWICE = """
import os, signal
from probekit.run.stop import Stop

stop = Stop()
stop.at({signal.SIGINT, signal.SIGTERM})
assert not stop.wait(0)
os.kill(os.getpid(), signal.SIGINT)
assert stop.wait(0)
os.kill(os.getpid(), signal.SIGTERM)
os.kill(os.getpid(), signal.SIGINT)
print("not reached")
"""


def _run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=False)


def test_the_end_is_asked_for_while_the_main_thread_is_busy() -> None:
    done = _run(_BUSY)
    assert done.stdout == "True\n", done.stderr


def test_a_second_signal_ends_the_process() -> None:
    done = _run(_TWICE)
    assert (done.returncode, done.stdout) == (-signal.SIGINT, ""), done.stderr
