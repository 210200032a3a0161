"""A signal's handler throws while a command is put together: an exception, and not the end of the process."""

from __future__ import annotations

import subprocess
import sys

STORM = """
import signal
from redis.connection import Connection
from rome.stores.redis_connection import _plain

class Thrown(Exception):
    pass

def handle(number, frame):
    raise Thrown

signal.signal(signal.SIGALRM, handle)
connection, thrown = Connection(), 0
command = ("EVALSHA", b"digest", 5, *[12345678901] * 2000)
for _ in range(200):
    try:
        signal.setitimer(signal.ITIMER_REAL, 1e-5, 1e-5)
        for _ in range(20):
            connection.pack_command(*_plain(command))
    except Thrown:
        thrown += 1
    finally:
        while True:
            try:
                signal.setitimer(signal.ITIMER_REAL, 0)
                break
            except Thrown:
                pass
print(thrown)
"""


def test_commands_survive_a_storm_of_signals() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STORM], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100
