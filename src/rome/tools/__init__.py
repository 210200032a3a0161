"""What an operator asks of a database, as functions; `rome.cli` puts them on the command line.

    opened     a store by its URL, for looking at: a database that is not there is not made
    status     is it reachable and readable, how durable is it, what does it hold
    check      do rows, indexes, keys, counts and the catalog agree
    repair     make again what follows from the rows: index entries, counts, sequences

They work below SQL, on the store's own keys, so that they can say what is wrong where SQL would
stumble over it. Programs may call them: they take an open store, and return what they found.
"""

from rome.tools.check import Report, check
from rome.tools.findings import Finding, Findings
from rome.tools.opening import opened
from rome.tools.reader import Progress
from rome.tools.repair import RepairRefused, repair
from rome.tools.status import Status, TableStatus, status

__all__ = [
    "Finding",
    "Findings",
    "Progress",
    "RepairRefused",
    "Report",
    "Status",
    "TableStatus",
    "check",
    "opened",
    "repair",
    "status",
]
