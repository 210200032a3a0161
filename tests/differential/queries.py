"""Random conditions and queries.

The result of a query is compared as a list where its order is total, and as a multiset otherwise.
SQLite may choose among equal values that look different (1 and 1.0, or a and A under NOCASE) in
DISTINCT, GROUP BY, UNION, min and max; such a query is *loose*, and those values count as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.differential.dice import Dice
from tests.differential.schemas import Column, Schema, Table
from tests.differential.values import Text, any_value


@dataclass(frozen=True)
class Place:
    """A column of a query's FROM clause."""

    alias: str
    column: Column

    @property
    def text(self) -> str:
        return f"{self.alias}.{self.column.name}" if self.alias else self.column.name


@dataclass
class Query:
    sql: str
    ordered: bool = False
    loose: bool = False


class Queries:
    """Makes queries over a schema, into one text."""

    def __init__(self, dice: Dice, schema: Schema, text: Text) -> None:
        self.dice = dice
        self.schema = schema
        self.text = text
        self._aliases = 0

    def alias(self) -> str:
        self._aliases += 1
        return f"x{self._aliases}"

    def table(self) -> Table:
        return self.dice.choice(self.schema.tables)

    def places(self, alias: str, table: Table) -> list[Place]:
        return [Place(alias, column) for column in table.columns]

    # Conditions

    def condition(self, places: Sequence[Place], depth: int = 2) -> str:
        kind = self.dice.weighted(
            [(50, "plain"), (18, "and"), (12, "or"), (5, "not"), (5, "exists"), (5, "in query"), (5, "rows")]
            if depth
            else [(1, "plain")]
        )
        if kind == "plain":
            return self.plain_condition(places)
        if kind == "not":
            return f"NOT ({self.condition(places, depth - 1)})"
        if kind == "exists":
            return self._exists(places)
        if kind == "in query":
            return self._in_query(places)
        if kind == "rows":
            return self._row_values(places)
        parts = [f"({self.condition(places, depth - 1)})" for _ in range(self.dice.between(2, 3))]
        return f" {kind.upper()} ".join(parts)

    def plain_condition(self, places: Sequence[Place]) -> str:
        dice = self.dice
        place = dice.choice(places)
        name, affinity = place.text, place.column.affinity
        if dice.chance(10):
            name = dice.choice(
                [f"lower({name})", f"length({name})", f"{name} || 'x'", f"coalesce({name}, 0)"]
            )
        kind = dice.weighted(
            [
                (40, "compare"),
                (12, "in"),
                (8, "between"),
                (10, "null"),
                (8, "is"),
                (10, "like"),
                (12, "columns"),
            ]
        )
        if kind == "compare":
            operator = dice.choice(["=", "<", "<=", ">", ">=", "<>"])
            collation = " COLLATE NOCASE" if dice.chance(6) else ""
            value = self.text.value(any_value(dice, affinity, null=4))
            if dice.chance(10):
                return f"{value} {_MIRRORED[operator]} {name}{collation}"
            return f"{name}{collation} {operator} {value}"
        if kind == "in":
            values = [self.text.value(any_value(dice, affinity, null=5)) for _ in range(dice.between(1, 4))]
            return f"{name} {'NOT ' if dice.chance(15) else ''}IN ({', '.join(values)})"
        if kind == "between":
            low = self.text.value(any_value(dice, affinity, null=2))
            return f"{name} BETWEEN {low} AND {self.text.value(any_value(dice, affinity, null=2))}"
        if kind == "null":
            return f"{name} IS {'NOT ' if dice.chance(40) else ''}NULL"
        if kind == "is":
            return (
                f"{name} IS {'NOT ' if dice.chance(20) else ''}{self.text.value(any_value(dice, affinity))}"
            )
        if kind == "like":
            word = dice.choice(["LIKE", "LIKE", "NOT LIKE", "GLOB"])
            pattern = dice.choice(["a%", "%b", "A_", "a*", "long%", "%", "1%", "é%", ""])
            return f"{name} {word} {self.text.value(pattern)}"
        other = dice.choice(places)
        return f"{name} {dice.choice(['=', '<', '>=', '<>', 'IS'])} {other.text}"

    def _exists(self, places: Sequence[Place]) -> str:
        table, alias = self.table(), self.alias()
        inner = self.places(alias, table)
        link = f"{self.dice.choice(inner).text} = {self.dice.choice(places).text}"
        condition = f" AND {self.plain_condition(inner)}" if self.dice.chance(50) else ""
        negated = "NOT " if self.dice.chance(30) else ""
        return f"{negated}EXISTS (SELECT 1 FROM {table.name} AS {alias} WHERE {link}{condition})"

    def _in_query(self, places: Sequence[Place]) -> str:
        table, alias = self.table(), self.alias()
        inner = self.places(alias, table)
        place = self.dice.choice(places)
        negated = "NOT " if self.dice.chance(25) else ""
        # SQLite compares a text column of a virtual table with a list of numbers as text.
        alike = [other for other in inner if other.column.is_numeric == place.column.is_numeric]
        if not alike:
            return self.plain_condition(places)
        wanted = self.dice.choice(alike).text
        condition = f" WHERE {self.condition(inner, 0)}" if self.dice.chance(60) else ""
        return f"{place.text} {negated}IN (SELECT {wanted} FROM {table.name} AS {alias}{condition})"

    def _row_values(self, places: Sequence[Place]) -> str:
        """Row values, or the long form of them that keyset pagination uses."""
        first, second = self.dice.choice(places), self.dice.choice(places)
        operator = self.dice.choice(["<", ">", "="])
        a, b = (any_value(self.dice, place.column.affinity, null=0) for place in (first, second))
        if operator == "=" or self.dice.chance(50):
            return f"({first.text}, {second.text}) {operator} ({self.text.value(a)}, {self.text.value(b)})"
        return (
            f"({first.text} {operator} {self.text.value(a)} OR ({first.text} = {self.text.value(a)}"
            f" AND {second.text} {operator} {self.text.value(b)}))"
        )

    # Queries

    def query(self) -> Query:
        kind = self.dice.weighted(
            [
                (30, self.simple),
                (22, self.join),
                (13, self.grouped),
                (8, self.compound),
                (7, self.common_table),
                (7, self.window),
                (7, self.derived),
                (6, self.distinct),
            ]
        )
        return kind()

    def source(self, most_joins: int) -> tuple[str, list[Place]]:
        """FROM, with what can be named behind it."""
        table, alias = self.table(), self.alias()
        sql, places = f"{table.name} AS {alias}", self.places(alias, table)
        for _ in range(self.dice.between(min(1, most_joins), most_joins) if most_joins else 0):
            joined, alias = self.table(), self.alias()
            more = self.places(alias, joined)
            word = self.dice.weighted(
                [(45, "JOIN"), (40, "LEFT JOIN"), (5, "CROSS JOIN"), (10, "RIGHT JOIN")]
            )
            link = f"{self._linked(places, more)}"
            if self.dice.chance(25):
                link += f" AND {self.plain_condition([*places, *more])}"
            sql += f" {word} {joined.name} AS {alias} ON {link}"
            places = [*places, *more]
        return sql, places

    def _linked(self, places: Sequence[Place], more: Sequence[Place]) -> str:
        """Usually what a foreign key joins."""
        pairs = [
            (place, other)
            for place in places
            for other in more
            if (place.column.refers_to or ("", ""))[1] == other.column.name
            or (other.column.refers_to or ("", ""))[1] == place.column.name
        ]
        if pairs and self.dice.chance(75):
            place, other = self.dice.choice(pairs)
        else:
            place, other = self.dice.choice(places), self.dice.choice(more)
        if self.dice.chance(50):
            place, other = other, place
        return f"{place.text} = {other.text}"

    def where(self, places: Sequence[Place], chance: int = 80) -> str:
        return f" WHERE {self.condition(places)}" if self.dice.chance(chance) else ""

    def _selected(self, places: Sequence[Place]) -> list[str]:
        selected = [place.text for place in self.dice.some(places, 1, 5)]
        if self.dice.chance(15):
            place = self.dice.choice(places).text
            selected.append(self.dice.choice([f"typeof({place})", f"length({place})", f"{place} IS NULL"]))
        if self.dice.chance(8):
            selected.append(self._scalar(places))
        if self.dice.chance(8):
            selected.append(f"CASE WHEN {self.plain_condition(places)} THEN 1 ELSE 'no' END")
        return selected

    def _scalar(self, places: Sequence[Place]) -> str:
        table, alias = self.table(), self.alias()
        inner = self.places(alias, table)
        link = f"{self.dice.choice(inner).text} = {self.dice.choice(places).text}"
        return f"(SELECT count(*) FROM {table.name} AS {alias} WHERE {link})"

    def total_order(self, places: Sequence[Place], selected: Sequence[str]) -> str:
        """ORDER BY some columns, and then by all that is to be seen."""
        dice = self.dice
        terms = []
        for place in dice.some(places, 1, 3):
            collation = " COLLATE NOCASE" if dice.chance(5) else ""
            nulls = f" NULLS {dice.choice(['FIRST', 'LAST'])}" if dice.chance(8) else ""
            terms.append(f"{place.text}{collation}{dice.choice(['', '', ' DESC'])}{nulls}")
        keys = [place.text for place in places if place.column.name == "id"]
        if len({place.alias for place in places}) == 1 and keys:
            return f" ORDER BY {', '.join([*terms, *keys])}"
        everything = [f"({term}) COLLATE BINARY, typeof({term})" for term in selected if "?" not in term]
        return f" ORDER BY {', '.join([*terms, *everything])}"

    def _limit(self) -> str:
        if not self.dice.chance(60):
            return ""
        limit = f" LIMIT {self.text.value(self.dice.choice([1, 2, 3, 5, 0, -1]))}"
        if self.dice.chance(40):
            limit += f" OFFSET {self.text.value(self.dice.choice([0, 1, 2, 4]))}"
        return limit

    def simple(self, joins: int = 0) -> Query:
        # The parameters come in the order of the text, so what is selected is made first.
        mark = len(self.text.parameters)
        source, places = self.source(joins)
        of_source, self.text.parameters[mark:] = self.text.parameters[mark:], []
        selected = self._selected(places)
        self.text.parameters += of_source
        sql = f"SELECT {', '.join(selected)} FROM {source}{self.where(places)}"
        if any("?" in term for term in selected) or not self.dice.chance(55):
            return Query(sql)
        sql += self.total_order(places, selected)
        return Query(sql + self._limit(), ordered=True)

    def join(self) -> Query:
        return self.simple(self.dice.between(1, 2))

    def grouped(self) -> Query:
        source, places = self.source(self.dice.below(2))
        where = self.where(places, 50)
        place = self.dice.choice(places).text
        aggregates = [
            "count(*)",
            f"count({place})",
            f"count(DISTINCT {place})",
            f"min({place})",
            f"max({place})",
            f"sum(CAST({place} AS INTEGER) % 1000)",
            f"avg(CAST({place} AS INTEGER) % 1000)",
        ]
        selected = self.dice.some(aggregates, 1, 3)
        if self.dice.chance(30):
            return Query(f"SELECT {', '.join(selected)} FROM {source}{where}", loose=True)
        groups = [place.text for place in self.dice.some(places, 1, 2)]
        having = (
            f" HAVING count(*) {self.dice.choice(['> 1', '= 1', '>= 1'])}" if self.dice.chance(30) else ""
        )
        shown = ", ".join([*groups, *selected])
        sql = f"SELECT {shown} FROM {source}{where} GROUP BY {', '.join(groups)}{having}"
        return Query(sql, loose=True)

    def compound(self) -> Query:
        parts = []
        width = self.dice.between(1, 2)
        for number in range(self.dice.between(2, 3)):
            table = self.table()
            places = self.places("", table)
            chosen = [self.dice.choice(places) for _ in range(width)]
            names = [
                place.text + (" COLLATE BINARY" if place.column.is_number_of_row and not number else "")
                for place in chosen
            ]
            parts.append(f"SELECT {', '.join(names)} FROM {table.name}{self.where(places, 50)}")
        word = self.dice.choice([" UNION ALL ", " UNION ", " EXCEPT ", " INTERSECT "])
        return Query(word.join(parts), loose=True)

    def common_table(self) -> Query:
        if self.dice.chance(30):
            table = self.table()
            place = self.dice.choice(self.places("y", table)).text
            return Query(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4)"
                f" SELECT n.i, {place} FROM n LEFT JOIN {table.name} AS y ON {place} = n.i",
            )
        inner = self.simple()
        table = self.table()
        if self.dice.chance(50):
            return Query(f"WITH c AS ({inner.sql}) SELECT * FROM c", loose=inner.loose)
        places = self.places("z", table)
        shown = ", ".join(["c.*", *(place.text for place in places)])
        joined = f"{table.name} AS z ON {self.condition(places, 1)}"
        return Query(f"WITH c AS ({inner.sql}) SELECT {shown} FROM c JOIN {joined}")

    def derived(self) -> Query:
        inner = self.simple(self.dice.below(2))
        table, alias = self.table(), self.alias()
        places = self.places(alias, table)
        return Query(f"SELECT count(*) FROM ({inner.sql}) AS d, {table.name} AS {alias}{self.where(places)}")

    def distinct(self) -> Query:
        source, places = self.source(self.dice.below(2))
        names = [place.text for place in self.dice.some(places, 1, 2)]
        return Query(f"SELECT DISTINCT {', '.join(names)} FROM {source}{self.where(places, 40)}", loose=True)

    def window(self) -> Query:
        source, places = self.source(0)
        names = [place.text for place in places]
        order = ", ".join(f"{name} COLLATE BINARY, typeof({name})" for name in names)
        partition = f"PARTITION BY {self.dice.choice(names)} " if self.dice.chance(50) else ""
        function = self.dice.choice(
            [
                "row_number()",
                "count(*)",
                f"lag({names[0]})",
                "ntile(2)",
                f"sum(CAST({names[0]} AS INTEGER) % 1000)",
            ]
        )
        sql = f"SELECT {', '.join(names)}, {function} OVER ({partition}ORDER BY {order}) FROM {source}"
        return Query(sql + self.where(places, 50), loose=True)


_MIRRORED = {"=": "=", "<": ">", "<=": ">=", ">": "<", ">=": "<=", "<>": "<>"}
