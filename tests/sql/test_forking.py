"""What SQLite needs of a process that forks: random numbers of its own, and no lock left held."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.engine import Engine

from rome.dbapi import Connection

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

PATIENCE = 30.0


def answer_of_child(task: Callable[[], str]) -> str | None:
    """What a task gives in a forked child; None if the child hangs."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(theirs, task().encode())
        finally:
            os._exit(0)
    os.close(theirs)
    answers: list[bytes] = []
    reader = threading.Thread(target=lambda: answers.append(os.read(ours, 1000)), daemon=True)
    reader.start()
    reader.join(PATIENCE)
    if reader.is_alive():
        os.kill(pid, 9)
    os.waitpid(pid, 0)
    reader.join()
    os.close(ours)
    return answers[0].decode() or None


def test_children_draw_random_numbers_of_their_own(connect: Callable[..., Connection]) -> None:
    connection = connect()

    def draw() -> str:
        return str(connection.execute("SELECT hex(randomblob(16))").fetchone())

    drawn = {draw(), *(answer_of_child(draw) for _ in range(4)), draw()}
    assert None not in drawn
    assert len(drawn) == 6


def test_a_child_does_not_hang_where_threads_were_inside_of_sqlite(engine: Engine) -> None:
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            with engine.connect() as connection:
                connection.exec_driver_sql(
                    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)"
                    " SELECT max(hex(randomblob(100))) FROM n"
                ).all()

    def ask() -> str:
        with engine.connect() as connection:
            return str(connection.exec_driver_sql("SELECT 42").scalar_one())

    ask()
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        answers = [answer_of_child(ask) for _ in range(20)]
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert answers == ["42"] * 20


def test_forking_does_not_wait_for_long_for_who_waits_itself(connect: Callable[..., Connection]) -> None:
    connection = connect()
    inside, go_on = threading.Event(), threading.Event()

    def wait() -> int:
        inside.set()
        go_on.wait(PATIENCE)
        return 1

    connection.create_function("wait", 0, wait)
    found: list[Any] = []
    waiting = threading.Thread(target=lambda: found.append(connection.execute("SELECT wait()").fetchone()))
    waiting.start()
    inside.wait(PATIENCE)
    began = time.monotonic()
    assert answer_of_child(lambda: "here") == "here"
    assert time.monotonic() - began < PATIENCE / 2
    go_on.set()
    waiting.join()
    assert found == [(1,)]
