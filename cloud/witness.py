"""What the services' logs and ROME's counters say of conflicts, errors and answers.

Three witnesses that know nothing of each other:

    access logs   the HTTP status of every answer of every API: no 5xx
    service logs  each DBDeadlock: those that the service retried (oslo.db logs them at DEBUG, which
                  the configuration asks for) and those that it did not
    counters      ROME's own: commits, conflicts, how many were absorbed by extending the snapshot or
                  by replaying, and how many reached a service (`raised`)

Numbers are those since the witness was called.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cloud.build import DATABASES, Cloud
from rome.stores import parse
from rome.tools.status import status

_RETRY: Final = r"(DB error|Retry wrapper got retriable exception): .*"
"""What oslo.db and Neutron write before they run something again."""
RETRIED: Final = re.compile(_RETRY + "serialization failure")
LATE: Final = re.compile(_RETRY + "(UNIQUE|FOREIGN KEY) constraint failed")
LEAKED: Final = re.compile(r"oslo_db\.exception\.DBDeadlock: ")
ANSWER: Final = re.compile(r"^\[[^]]*\] (?P<status>\d{3}) ")


@dataclass
class Testimony:
    answers: Counter[str] = field(default_factory=Counter)
    """By the first figure of the HTTP status."""
    failures: list[str] = field(default_factory=list)
    """The lines of the access logs with a 5xx."""
    retried: int = 0
    """DBDeadlocks that a service answered by running its transaction again."""
    late: int = 0
    """The same, where COMMIT found a constraint broken."""
    leaked: int = 0
    """DBDeadlocks that ended a request or a task."""
    counters: Counter[str] = field(default_factory=Counter)


class Witness:
    """Notes where the logs and counters stand when it is made."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._logs = cloud.layout.folder / "logs"
        self._sizes = {path: path.stat().st_size for path in self._logs.glob("*.log")}
        self._counters = self._count()

    def testimony(self) -> Testimony:
        heard = Testimony()
        for path in sorted(self._logs.glob("*.log")):
            lines = self._new_lines(path)
            if path.stem.endswith("-access"):
                self._hear_answers(lines, path.stem, heard)
            else:
                heard.retried += sum(bool(RETRIED.search(line)) for line in lines)
                heard.late += sum(bool(LATE.search(line)) for line in lines)
                heard.leaked += sum(bool(LEAKED.search(line)) for line in lines)
        heard.counters = self._count()
        heard.counters.subtract(self._counters)
        return heard

    def _new_lines(self, path: Path) -> list[str]:
        with path.open("rb") as log:
            log.seek(self._sizes.get(path, 0))
            return log.read().decode(errors="replace").splitlines()

    def _hear_answers(self, lines: list[str], name: str, heard: Testimony) -> None:
        for line in lines:
            answer = ANSWER.match(line)
            if answer:
                heard.answers[f"{answer['status'][0]}xx"] += 1
                if answer["status"].startswith("5"):
                    heard.failures.append(f"{name}: {line}")

    def _count(self) -> Counter[str]:
        """The sums over all databases. A second's worth may not have been told yet."""
        total: Counter[str] = Counter()
        for name in DATABASES:
            total.update(status(parse(self._cloud.layout.database(name))).counters)
        return total
