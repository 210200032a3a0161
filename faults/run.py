"""Break things, and see whether anything acknowledged is lost, doubled or torn.

    python -m faults.run [--store memory|lmdb|redis|all] [--only NAME[,NAME]] [--times N] [--seed N] [--list]

Prints for each fault what was tried and what was found. The exit code is 1 if anything is wrong, and 2
if there is no such fault.
"""

from __future__ import annotations

import random
import sys
import time
import traceback
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser, Namespace
from collections.abc import Iterator, Sequence

from faults.registry import STORES, Fault, Report, Skipped, all_faults


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    known = all_faults()
    if options.list:
        for fault in known.values():
            print(f"{fault.name:28s} {', '.join(fault.stores):20s} {fault.times:5d}  {fault.subject}")
        return 0
    names = [name for name in options.only.replace(",", " ").split() if name]
    if unknown := [name for name in names if name not in known]:
        print(f"no such fault: {', '.join(unknown)}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    seed = options.seed if options.seed is not None else random.randrange(10**9)
    print(f"seed {seed}", flush=True)
    wrong = done = 0
    for fault, store in _chosen([known[name] for name in names or known], options.store):
        done += 1
        wrong += _one(fault, store, options.times or fault.times, seed)
    if not done:
        print(f"none of these faults is for {options.store}", file=sys.stderr)
        return 2
    print(f"\n{done} faults, {wrong} wrong" if wrong else f"\n{done} faults, nothing wrong")
    return 1 if wrong else 0


def _options(arguments: Sequence[str] | None) -> Namespace:
    parser = ArgumentParser(prog="faults.run", formatter_class=ArgumentDefaultsHelpFormatter)
    parser.add_argument("--store", choices=[*STORES, "all"], default="all")
    parser.add_argument("--only", default="", help="names of faults")
    parser.add_argument("--times", type=int, help="how often to do each (instead of its own number)")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--list", action="store_true", help="list the faults and do nothing")
    return parser.parse_args(arguments)


def _chosen(faults: Sequence[Fault], store: str) -> Iterator[tuple[Fault, str]]:
    for fault in faults:
        for kind in fault.stores:
            if store in (kind, "all"):
                yield fault, kind


def _one(fault: Fault, store: str, times: int, seed: int) -> bool:
    """Make one fault on one store and tell; returns whether anything was wrong."""
    print(f"\n{fault.name} on {store}, {times} times: {fault.subject}", flush=True)
    began = time.monotonic()
    try:
        report = fault.act(store, times, seed)
    except Skipped as reason:
        print(f"  skipped: {reason}", flush=True)
        return False
    except Exception:
        report = Report(problems=[traceback.format_exc()])
    for line in report.lines():
        print(f"  {line}")
    verdict = f"{len(report.problems)} wrong" if report.problems else "nothing wrong"
    print(f"  {verdict}, {time.monotonic() - began:.1f} s", flush=True)
    return bool(report.problems)


if __name__ == "__main__":
    sys.exit(main())
