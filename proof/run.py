"""Try to prove one store wrong: random transactions for a while, every race, and writers that meet.

    python -m proof.run --store memory|lmdb|redis [--duration SECONDS] [--tries N] [--clients N] [--seed N]
                        [--parts history races contention] [--keep DIRECTORY]

Prints counts of what was tried and what was found. The exit code is 1 if anything was. Servers are
started for the run on loopback; the history of a failure is kept, and its place is told.
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser, Namespace
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from proof import checker, contention, races, racing, workload
from proof.history import Transaction
from tests.servers import RedisServer

TOLD = 20
PARTS = ("history", "races", "contention")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    seed = options.seed if options.seed is not None else random.randrange(10**9)
    print(f"{options.store}: {options.clients} clients, seed {seed}")
    directory = Path(tempfile.mkdtemp(prefix="rome-proof-"))
    with databases(options.store, directory) as new_url:
        found = 0
        if "history" in options.parts:
            found = _history(new_url(), options.keep or directory / "history", options, seed)
        keep = found > 0
        if "races" in options.parts:
            found += _races(new_url, options, seed)
        if "contention" in options.parts:
            found += _contention(new_url, options)
    if keep:
        print(f"the history is kept in {options.keep or directory / 'history'}")
    if not keep or options.keep:
        shutil.rmtree(directory)
    print(f"{options.store}: {found} found" if found else f"{options.store}: nothing found")
    return 1 if found else 0


def _options(arguments: Sequence[str] | None) -> Namespace:
    parser = ArgumentParser(prog="proof.run", formatter_class=ArgumentDefaultsHelpFormatter)
    parser.add_argument("--store", choices=["memory", "lmdb", "redis"], default="lmdb")
    parser.add_argument("--duration", type=float, default=30.0, help="seconds of random transactions")
    parser.add_argument("--tries", type=int, default=500, help="attempts of each client in each race")
    parser.add_argument(
        "--updates", type=int, default=100, help="transactions of each client in each contention"
    )
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--keep", type=Path, help="where to keep the history, even if nothing is found")
    return parser.parse_args(arguments)


@contextmanager
def databases(store: str, directory: Path) -> Iterator[Callable[[], str]]:
    """A function that gives the URL of a new, empty database of this kind at each call."""
    numbers = count()
    if store == "redis":
        with RedisServer(appendonly=True) as server:
            yield lambda: server.url(f"proof{next(numbers)}")
    elif store == "lmdb":
        yield lambda: f"rome+lmdb://{directory / f'proof{next(numbers)}'}"
    else:
        yield lambda: f"rome+memory://{directory.name}-{next(numbers)}"


def _history(url: str, directory: Path, options: Namespace, seed: int) -> int:
    directory.mkdir(exist_ok=True)
    history = workload.run(url, directory, seconds=options.duration, seed=seed, clients=options.clients)
    verdict = checker.check(history)
    print(f"\nhistory of {options.duration:g} seconds")
    for line in report(history, verdict):
        print(f"  {line}")
    return len(verdict.anomalies)


def report(history: Sequence[Transaction], verdict: checker.Verdict) -> list[str]:
    """What was tried and what was found, a line to each."""
    lines = [f"{number:8d}  {name}" for name, number in sorted(verdict.counts.items())]
    errors = Counter(transaction.error.partition(":")[0] for transaction in history if transaction.error)
    lines += [f"{number:8d}  failed: {name}" for name, number in errors.most_common()]
    return lines + [f"{anomaly.kind}: {anomaly.text}" for anomaly in verdict.anomalies[:TOLD]]


def _races(new_url: Callable[[], str], options: Namespace, seed: int) -> int:
    print("\nraces")
    wrong = 0
    for name, race in races.RACES.items():
        outcome = racing.run(new_url(), race(), tries=options.tries, seed=seed, clients=options.clients)
        print(f"  {told(name, outcome)}")
        wrong += len(outcome.wrong)
    return wrong


def _contention(new_url: Callable[[], str], options: Namespace) -> int:
    print(f"\ncontention of {options.clients} clients", flush=True)
    outcomes = {
        name: contention.run(new_url(), body, transactions=options.updates, clients=options.clients)
        for name, body in contention.SCENARIOS.items()
    }
    for name, images in ((contention.EACH_ITS_OWN, options.clients), (contention.ONE_FOR_ALL, 1)):
        outcomes[name] = contention.glance(
            new_url(), images=images, updates=options.updates, clients=options.clients
        )
    for line in contention.table(outcomes):
        print(f"  {line}")
    wrong = [f"{name}: {text}" for name, outcome in outcomes.items() for text in outcome.wrong]
    wrong += contention.judged(outcomes)
    for text in wrong:
        print(f"  wrong: {text}")
    return len(wrong)


def told(name: str, outcome: racing.Outcome) -> str:
    """A race in one line: counts, then what is wrong."""
    counts = ", ".join(f"{number} {what}" for what, number in sorted(outcome.counts.items()))
    return f"{name}: {counts}; {len(outcome.wrong)} wrong" + "".join(f"\n    {w}" for w in outcome.wrong)


if __name__ == "__main__":
    sys.exit(main())
