"""What clouds rely on when many do the same at once: each race counts what was acknowledged, and adds up."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Final

from proof.racing import Client, Race, Result, differences, sum_differs, total
from rome.dbapi import Connection, IntegrityError


class UniqueNames(Race):
    """Everybody wants the same names: each is given to one."""

    schema = ("CREATE TABLE names (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, owner INTEGER)",)

    def work(self, client: Client) -> None:
        for number in client:
            name = f"name {number}"
            try:
                client.transaction(
                    lambda c, n=name: c.execute(  # type: ignore[misc]
                        "INSERT INTO names (name, owner) VALUES (?, ?)", (n, client.number)
                    )
                )
            except IntegrityError:
                client.result.counts["refused"] += 1
            else:
                client.result.taken.append((name, client.number))

    def wrong(self, connection: Connection, results: list[Result]) -> list[str]:
        tried = max(result.counts["tries"] for result in results)
        told = sorted(pair for result in results for pair in result.taken)
        found = sorted(connection.execute("SELECT name, owner FROM names").fetchall())
        return differences(told, found) + ([] if len(found) == tried else [f"{len(found)} of {tried} names"])


class GeneratedNumbers(Race):
    """Autoincrement: no number is given out twice, not even one that was rolled back."""

    schema = ("CREATE TABLE items (id INTEGER PRIMARY KEY AUTOINCREMENT, owner INTEGER)",)

    def work(self, client: Client) -> None:
        for number in client:
            if number % 5 == 4:
                client.result.taken.append((self._insert(client, client.connection), None))
                client.connection.rollback()
            else:
                client.result.taken.append((client.transaction(partial(self._insert, client)), client.number))

    @staticmethod
    def _insert(client: Client, connection: Connection) -> int | None:
        return connection.execute("INSERT INTO items (owner) VALUES (?)", (client.number,)).lastrowid

    def wrong(self, connection: Connection, results: list[Result]) -> list[str]:
        told = [pair for result in results for pair in result.taken]
        twice = [number for number, times in Counter(number for number, _ in told).items() if times > 1]
        kept = sorted(pair for pair in told if pair[1] is not None)
        found = sorted(connection.execute("SELECT id, owner FROM items").fetchall())
        return differences(kept, found) + [f"number {number} was given out twice" for number in twice]


class Counters(Race):
    """UPDATE … SET n = n + 1 on one row: every acknowledged one is in the sum."""

    schema = ("CREATE TABLE counters (id INTEGER PRIMARY KEY, n INTEGER NOT NULL)",)

    def prepare(self, connection: Connection, tries: int) -> None:
        connection.execute("INSERT INTO counters VALUES (1, 0)")

    def work(self, client: Client) -> None:
        for _ in client:
            client.transaction(lambda c: c.execute("UPDATE counters SET n = n + 1 WHERE id = 1"))

    def wrong(self, connection: Connection, results: list[Result]) -> list[str]:
        return sum_differs(connection, "SELECT n FROM counters", total(results, "committed"))


class CompareAndSwap(Race):
    """UPDATE … WHERE n = what was read before: the row count tells who was first."""

    schema = ("CREATE TABLE swaps (id INTEGER PRIMARY KEY, n INTEGER NOT NULL)",)

    def prepare(self, connection: Connection, tries: int) -> None:
        connection.execute("INSERT INTO swaps VALUES (1, 0)")

    def work(self, client: Client) -> None:
        for _ in client:
            (old,) = client.transaction(lambda c: c.execute("SELECT n FROM swaps WHERE id = 1").fetchall()[0])
            changed = client.transaction(
                lambda c, old=old: (
                    c.execute(  # type: ignore[misc]
                        "UPDATE swaps SET n = ? WHERE id = 1 AND n = ?", (old + 1, old)
                    ).rowcount
                )
            )
            client.result.counts["won" if changed else "refused"] += 1

    def wrong(self, connection: Connection, results: list[Result]) -> list[str]:
        return sum_differs(connection, "SELECT n FROM swaps", total(results, "won"))


class AddressPool(Race):
    """Take a free address out of a pool, and give some back: none is held by two."""

    schema = (
        "CREATE TABLE addresses (address INTEGER PRIMARY KEY, owner INTEGER)",
        "CREATE INDEX addresses_owner ON addresses (owner)",
    )

    def prepare(self, connection: Connection, tries: int) -> None:
        connection.executemany(
            "INSERT INTO addresses VALUES (?, NULL)", [(number,) for number in range(max(8, tries // 4))]
        )

    def work(self, client: Client) -> None:
        held = client.result.taken
        for _ in client:
            if held and client.choice.random() < 0.4:
                address = held.pop(client.choice.randrange(len(held)))[0]
                given = client.transaction(partial(self._give_back, client, address))
                client.result.counts["given back" if given == 1 else "stolen"] += 1
            else:
                address = client.transaction(partial(self._take, client))
                if address is None:
                    client.result.counts["refused"] += 1
                else:
                    held.append((address, client.number))
                    client.result.counts["taken"] += 1

    @staticmethod
    def _take(client: Client, connection: Connection) -> int | None:
        free = connection.execute(
            "SELECT address FROM addresses WHERE owner IS NULL ORDER BY address LIMIT 1"
        ).fetchall()
        if not free:
            return None
        taken: int = free[0][0]
        connection.execute("UPDATE addresses SET owner = ? WHERE address = ?", (client.number, taken))
        return taken

    @staticmethod
    def _give_back(client: Client, address: int, connection: Connection) -> int:
        return connection.execute(
            "UPDATE addresses SET owner = NULL WHERE address = ? AND owner = ?", (address, client.number)
        ).rowcount

    def wrong(self, connection: Connection, results: list[Result]) -> list[str]:
        told = sorted(pair for result in results for pair in result.taken)
        found = sorted(connection.execute("SELECT address, owner FROM addresses WHERE owner >= 0").fetchall())
        stolen = total(results, "stolen")
        return differences(told, found) + ([f"{stolen} addresses were stolen"] if stolen else [])


class InsertIfAbsent(Race):
    """Service registration: look, and insert if there is none. No unique constraint helps."""

    schema = ("CREATE TABLE services (id INTEGER PRIMARY KEY, host TEXT NOT NULL, topic TEXT NOT NULL)",)

    def work(self, client: Client) -> None:
        for number in client:
            new = client.transaction(partial(self._register, f"host {number}"))
            client.result.counts["inserted" if new else "found"] += 1

    @staticmethod
    def _register(host: str, connection: Connection) -> bool:
        key = (host, "compute")
        if connection.execute("SELECT id FROM services WHERE host = ? AND topic = ?", key).fetchall():
            return False
        connection.execute("INSERT INTO services (host, topic) VALUES (?, ?)", key)
        return True

    def wrong(self, connection: Connection, results: list[Result]) -> list[str]:
        tried = max(result.counts["tries"] for result in results)
        twice = connection.execute("SELECT host FROM services GROUP BY host HAVING count(*) > 1").fetchall()
        wrong = [f"{host} is there twice" for (host,) in twice]
        wrong += sum_differs(connection, "SELECT count(*) FROM services", total(results, "inserted"))
        return wrong + sum_differs(connection, "SELECT count(DISTINCT host) FROM services", tried)


class Quota(Race):
    """Look how much is used, and insert if the limit allows: the limit is reached, never passed."""

    schema = (
        "CREATE TABLE usages (id INTEGER PRIMARY KEY, project INTEGER NOT NULL, amount INTEGER NOT NULL)",
        "CREATE INDEX usages_project ON usages (project)",
    )
    LIMIT = 20

    def work(self, client: Client) -> None:
        for number in client:
            allowed = client.transaction(partial(self._reserve, number // self.LIMIT))
            client.result.counts["allowed" if allowed else "refused"] += 1

    def _reserve(self, project: int, connection: Connection) -> bool:
        sql = "SELECT coalesce(sum(amount), 0) FROM usages WHERE project = ?"
        ((used,),) = connection.execute(sql, (project,)).fetchall()
        if used + 1 > self.LIMIT:
            return False
        connection.execute("INSERT INTO usages (project, amount) VALUES (?, 1)", (project,))
        return True

    def wrong(self, connection: Connection, results: list[Result]) -> list[str]:
        sums = connection.execute("SELECT project, sum(amount) FROM usages GROUP BY project").fetchall()
        wrong = [f"project {project} uses {used}" for project, used in sums if used > self.LIMIT]
        return wrong + sum_differs(connection, "SELECT count(*) FROM usages", total(results, "allowed"))


class Upserts(Race):
    """INSERT … ON CONFLICT DO UPDATE: whoever comes first inserts, all others add, and nobody is refused."""

    schema = ("CREATE TABLE sums (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, n INTEGER NOT NULL)",)
    SQL = "INSERT INTO sums (name, n) VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET n = n + 1"

    def work(self, client: Client) -> None:
        for number in client:
            client.transaction(lambda c, n=f"sum {number // 5}": c.execute(self.SQL, (n,)))  # type: ignore[misc]

    def wrong(self, connection: Connection, results: list[Result]) -> list[str]:
        tried = max(result.counts["tries"] for result in results)
        wrong = sum_differs(connection, "SELECT count(*) FROM sums", (tried + 4) // 5)
        return wrong + sum_differs(connection, "SELECT sum(n) FROM sums", total(results, "committed"))


class References(Race):
    """Children come while parents change, come and go: none is without a parent, none with one is refused."""

    schema = (
        "CREATE TABLE parents (id INTEGER PRIMARY KEY, n INTEGER NOT NULL)",
        "CREATE TABLE children (id INTEGER PRIMARY KEY, owner INTEGER NOT NULL,"
        " parent INTEGER NOT NULL REFERENCES parents (id))",
        "CREATE INDEX children_parent ON children (parent)",
    )
    LASTING = 3
    PASSING = 5

    def prepare(self, connection: Connection, tries: int) -> None:
        connection.executemany("INSERT INTO parents VALUES (?, 0)", [(n,) for n in range(self.LASTING)])

    def work(self, client: Client) -> None:
        for number in client:
            key = client.number * 1_000_000 + number
            lasting = client.choice.randrange(self.LASTING)
            passing = self.LASTING + client.choice.randrange(self.PASSING)
            dice = client.choice.random()
            if dice < 0.4:
                client.transaction(partial(self._add, client, key, lasting))
                client.result.counts["added"] += 1
            elif dice < 0.6:
                try:
                    client.transaction(partial(self._add, client, key, passing))
                    client.result.counts["added"] += 1
                except IntegrityError:
                    client.result.counts["refused"] += 1
            elif dice < 0.8:
                client.transaction(
                    lambda c, p=passing: c.execute("INSERT OR IGNORE INTO parents VALUES (?, 0)", (p,))  # type: ignore[misc]
                )
            else:
                try:
                    client.transaction(partial(self._empty, client, passing))
                except IntegrityError:
                    # At COMMIT: a child has come meanwhile.
                    client.result.counts["refused"] += 1

    @staticmethod
    def _add(client: Client, key: int, parent: int, connection: Connection) -> None:
        connection.execute("UPDATE parents SET n = n + 1 WHERE id = ?", (parent,))
        connection.execute("INSERT INTO children VALUES (?, ?, ?)", (key, client.number, parent))

    @staticmethod
    def _empty(client: Client, parent: int, connection: Connection) -> None:
        """Delete a parent with its children. Others may add to it until the last moment."""
        connection.execute("DELETE FROM children WHERE parent = ?", (parent,))
        try:
            connection.execute("DELETE FROM parents WHERE id = ?", (parent,))
        except IntegrityError as error:
            raise AssertionError(f"its children are gone: {error}") from error

    def wrong(self, connection: Connection, results: list[Result]) -> list[str]:
        orphans = "SELECT count(*) FROM children WHERE parent NOT IN (SELECT id FROM parents)"
        wrong = sum_differs(connection, orphans, 0)
        for parent, n, children in connection.execute(
            "SELECT p.id, p.n, (SELECT count(*) FROM children AS c WHERE c.parent = p.id) FROM parents AS p"
        ).fetchall():
            if n != children:
                wrong.append(f"parent {parent} counts {n} children and has {children}")
        return wrong


class SchemaChanges(Race):
    """One adds and drops columns, indexes and tables while the others write: no row is lost or torn."""

    schema = ("CREATE TABLE things (id INTEGER PRIMARY KEY, owner INTEGER NOT NULL, n INTEGER NOT NULL)",)

    def work(self, client: Client) -> None:
        for number in client:
            if client.number == 0 and number % 4 == 0:
                client.transaction(partial(self._change, number // 4))
                client.result.counts["schema changes"] += 1
            else:
                key = client.number * 1_000_000 + number
                client.transaction(partial(self._write, client, key))
                client.result.taken.append((key, client.number, 1))

    @staticmethod
    def _change(number: int, connection: Connection) -> None:
        match number % 4:
            case 0:
                connection.execute(f"ALTER TABLE things ADD COLUMN c{number} TEXT DEFAULT 'd{number}'")
            case 1:
                connection.execute(f"CREATE INDEX things_{number} ON things (owner, n)")
            case 2:
                connection.execute(f"DROP INDEX things_{number - 1}")
            case _:
                connection.execute(f"CREATE TABLE other{number} (id INTEGER PRIMARY KEY)")
                if number % 8 == 7:
                    connection.execute(f"ALTER TABLE things DROP COLUMN c{number - 3}")

    @staticmethod
    def _write(client: Client, key: int, connection: Connection) -> None:
        connection.execute("INSERT INTO things (id, owner, n) VALUES (?, ?, 0)", (key, client.number))
        connection.execute("UPDATE things SET n = n + 1 WHERE id = ?", (key,))

    def wrong(self, connection: Connection, results: list[Result]) -> list[str]:
        told = sorted(row for result in results for row in result.taken)
        wrong = differences(told, sorted(connection.execute("SELECT id, owner, n FROM things").fetchall()))
        connection.execute("CREATE INDEX IF NOT EXISTS things_last ON things (owner, n)")
        indexed = "SELECT id, owner, n FROM things WHERE owner >= 0 AND n = 1 ORDER BY owner, n"
        wrong += differences(told, sorted(connection.execute(indexed).fetchall()))
        columns = connection.execute("SELECT name FROM pragma_table_info('things')").fetchall()
        for (column,) in columns:
            if column.startswith("c"):
                sql = f"SELECT count(*) FROM things WHERE {column} IS NOT 'd{column[1:]}'"
                wrong += sum_differs(connection, sql, 0)
        return wrong


RACES: Final[dict[str, type[Race]]] = {
    "unique names": UniqueNames,
    "generated numbers": GeneratedNumbers,
    "counters": Counters,
    "compare and swap": CompareAndSwap,
    "address pool": AddressPool,
    "insert if absent": InsertIfAbsent,
    "quota": Quota,
    "upserts": Upserts,
    "references": References,
    "schema changes": SchemaChanges,
}
