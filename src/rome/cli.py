"""The command line: `rome status` and `rome check`.

What is found out is the work of `rome.tools`; this module reads the arguments, shows the answer,
to people or as JSON, and says it in short by the exit code:

    rome status    0  reachable and readable       1  not              2  wrong arguments
    rome check     0  nothing is wrong             1  something is     2  wrong arguments, or it
                                                                          could not be checked

The answer goes to standard output, progress and errors to standard error. A password in the URL is
never shown; since other users of a machine see the arguments of its programs, the URL may come
from the environment (ROME_URL) instead.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

import rome
from rome.errors import ConfigurationError, RomeError
from rome.stores import StoreURL
from rome.tools import RepairRefused, Report, Status
from rome.tools import check as run_check
from rome.tools import repair as run_repair
from rome.tools import status as run_status
from rome.tools.check import in_words
from rome.tools.findings import EXAMPLES, Finding
from rome.tools.opening import enforces_foreign_keys, opened, parsed

NOT_CHECKED = 2
_WIDEST = 10_000


def _parsed(context: click.Context, parameter: click.Parameter, value: str) -> StoreURL:
    try:
        url = parsed(value)
    except ConfigurationError as error:
        raise click.BadParameter(str(error), context, parameter) from None
    if url.kind == "memory":
        raise click.BadParameter(
            "a memory store lives in the process that uses it, and cannot be seen from another",
            context,
            parameter,
        )
    return url


_url: Callable[[Any], Any] = click.argument("url", callback=_parsed, envvar="ROME_URL")
_json: Callable[[Any], Any] = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(rome.__version__, package_name="rome-orm")
def main() -> None:
    """Look after databases of ROME.

    URL is the one that programs connect with, such as rome+redis://HOST:PORT/DATABASE or
    rome+lmdb:///DIRECTORY. It may be given by the environment variable ROME_URL instead.
    """


@main.command()
@_url
@_json
@click.option("--exact", is_flag=True, help="Count rows and bytes one by one; reads everything.")
def status(url: StoreURL, as_json: bool, exact: bool) -> None:
    """Is the database reachable and readable? What does it hold?

    Exit code: 0 if it is, 1 if it is not, 2 for wrong arguments.
    """
    found = run_status(url, exact)
    if as_json:
        click.echo(json.dumps(found.as_dict()))
    else:
        _show_status(found)
    sys.exit(0 if found.healthy else 1)


@main.command()
@_url
@_json
@click.option("--repair", is_flag=True, help="Make index entries, counts and sequences again.")
def check(url: StoreURL, as_json: bool, repair: bool) -> None:
    """Do rows, indexes, keys, counts and the catalog agree? Reads everything.

    Exit code: 0 if they do (after --repair: if they do now), 1 if they do not, 2 for wrong
    arguments or if the database could not be checked.
    """
    answer: dict[str, Any] = {"url": str(url)}
    refused = None
    try:
        with opened(url) as store, ProgressBar() as bar:
            enforced = enforces_foreign_keys(url)
            report = run_check(store, enforced, bar)
            answer["found"] = report.as_dict()
            if repair and not report.sound:
                before = report
                try:
                    answer["repaired"] = run_repair(store, before, bar)
                    report = run_check(store, enforced, bar)
                except RepairRefused as error:
                    refused = answer["refused"] = str(error)
    except RomeError as error:
        _fail(answer, str(error), as_json)
    answer.update(report.as_dict())
    if as_json:
        click.echo(json.dumps(answer))
    else:
        if answer.get("repaired"):
            _show_repair(before, answer["repaired"])
        _show_report(report)
        if refused:
            _out().print(Text(f"not repaired: {refused}", "bold red"))
    sys.exit(0 if report.sound else 1)


def _fail(answer: dict[str, Any], reason: str, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({**answer, "sound": None, "reason": reason}))
    else:
        click.echo(f"could not be checked: {reason}", err=True)
    sys.exit(NOT_CHECKED)


# For people. Names come from programs, so nothing of them is taken for markup.


def _out() -> Console:
    # As wide as the longest name: what is cut cannot be looked for elsewhere.
    return Console(highlight=False, soft_wrap=True, width=_WIDEST)


def _show_status(found: Status) -> None:
    out = _out()
    out.print(Text(found.url, "bold"))
    if found.healthy:
        out.print(Text("reachable and readable", "green"))
    else:
        state = "reachable, not readable" if found.reachable else "not reachable"
        out.print(Text(f"{state}: {found.reason}", "bold red"))
    facts = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in found.health.items():
        shown = {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
        facts.add_row(Text(name.replace("_", " ")), Text(shown))
    if found.schema_version is not None:
        facts.add_row(Text("schema version"), Text(str(found.schema_version)))
        facts.add_row(
            Text("catalog format"),
            Text(f"{found.catalog_format} (this ROME reads up to {found.readable_format})"),
        )
    for name, number in found.counters.items():
        facts.add_row(Text(name), Text(f"{number:,}"))
    out.print(facts)
    if found.counters:
        out.print(Text("counters are sums over all processes, some seconds late", "dim"))
    if found.tables:
        out.print(_table_of_tables(found))
    elif found.readable:
        out.print("no tables")
    if found.locks:
        out.print(_table_of_locks(found))


def _table_of_tables(found: Status) -> Table:
    shown = Table("table", box=None, padding=(0, 2, 0, 0))
    for title in ("rows", "bytes", "indexes"):
        shown.add_column(title, justify="right")
    for table in found.tables:
        size = f"{'' if table.exact else '~'}{table.bytes:,}"
        shown.add_row(Text(table.name), f"{table.rows:,}", size, str(table.indexes))
    return shown


def _table_of_locks(found: Status) -> Table:
    shown = Table("lock", "owner", box=None, padding=(0, 2, 0, 0))
    for title in ("fencing", "seconds left", "waiting"):
        shown.add_column(title, justify="right")
    for lock in found.locks:
        numbers = (str(lock.fencing), f"{lock.remaining:.1f}", f"{lock.waiting:,}")
        shown.add_row(Text(lock.name), Text(lock.owner), *numbers)
    return shown


def _show_repair(before: Report, done: list[str]) -> None:
    out = _out()
    out.print(Text("found:", "bold"))
    for finding in before.findings.faults:
        out.print(_finding(finding))
    out.print(Text("repaired:", "bold"))
    for line in done:
        out.print(Text(f"  {line}", "green"))
    out.print(Text("checked again:", "bold"))


def _show_report(report: Report) -> None:
    out = _out()
    for finding in report.findings:
        out.print(_finding(finding))
    seen = f"{report.tables:,} tables, {report.rows:,} rows, {report.entries:,} index entries"
    if report.sound:
        out.print(Text(f"nothing is wrong: {seen}", "green"))
    else:
        out.print(Text(f"{len(report.findings.faults)} faults: {seen}", "bold red"))


def _finding(finding: Finding) -> Text:
    kind, style = ("note", "yellow") if finding.is_note else (finding.kind, "red")
    number = f" ({finding.count:,})" if finding.count > 1 or finding.examples else ""
    text = Text.assemble((f"{kind:<9}", style), f" {in_words(finding)}: {finding.text}{number}")
    for example in finding.examples:
        text.append(f"\n            {example}")
    if finding.count > EXAMPLES and finding.examples:
        text.append(f"\n            … and {finding.count - EXAMPLES:,} more")
    return text


class ProgressBar:
    """How far the walk is, on a terminal; nothing elsewhere."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._bar = Bar(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> ProgressBar:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def begin(self, total: int) -> None:
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task("", total=total or None)

    def step(self, table: str, entries: int) -> None:
        assert self._task is not None, "a walk begins before it goes on"
        self._bar.update(self._task, advance=entries, description=table)
