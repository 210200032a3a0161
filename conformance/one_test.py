"""What the worker processes of every conformance run do: find the tests of a suite, and run one of them.

The answer is what driver.py, the other end, is to be told.
"""

from __future__ import annotations

import time
import unittest
from collections.abc import Iterator
from typing import Any


def flatten(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from flatten(item)
        else:
            yield item


def run_test(name: str, test: unittest.TestSuite) -> dict[str, Any]:
    """Run one test within a worker, with its class's fixtures, and say how it ended."""
    begun, cpu = time.monotonic(), time.process_time()
    result = unittest.TestResult()
    test.run(result)
    outcome, detail = "passed", ""
    if result.errors or result.failures:
        outcome, detail = "failed", (result.errors + result.failures)[0][1]
    elif result.unexpectedSuccesses:
        outcome, detail = "failed", "unexpected success"
    elif result.skipped:
        outcome, detail = "skipped", result.skipped[0][1]
    return {
        "test": name,
        "outcome": outcome,
        "detail": detail,
        "seconds": time.monotonic() - begun,
        "cpu": time.process_time() - cpu,
    }
