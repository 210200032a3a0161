"""RETURNING: the rows that a statement wrote, as SQLite gives them of its own tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import rome
from rome.dbapi import Connection, IntegrityError, OperationalError
from tests.sql.beside import Beside


@pytest.fixture
def both(connection: Connection) -> Iterator[Beside]:
    pair = Beside(connection)
    pair.script(
        """CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT DEFAULT 'd', n INTEGER DEFAULT (1 + 1), u UNIQUE);
        CREATE TABLE s (k VARCHAR(10) NOT NULL PRIMARY KEY, v INTEGER);
        CREATE TABLE c (id INTEGER PRIMARY KEY, k VARCHAR(10) REFERENCES s ON DELETE CASCADE);
        INSERT INTO t (a) VALUES ('x'), ('y');
        INSERT INTO s VALUES ('one', 1), ('two', 2);
        INSERT INTO c (k) VALUES ('one'), ('one')"""
    )
    pair.commit()
    yield pair
    pair.close()


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t (a) VALUES ('z') RETURNING id",
        "INSERT INTO t (a) VALUES ('z') RETURNING *",
        "INSERT INTO t DEFAULT VALUES RETURNING id, a, n, u",
        "INSERT INTO t (a) VALUES ('p'), ('q') RETURNING id, a || '!' AS loud",
        "INSERT INTO t (a) SELECT k FROM s ORDER BY k RETURNING a",
        "INSERT INTO s VALUES ('three', '3') RETURNING *, typeof(v)",
        "INSERT OR IGNORE INTO s VALUES ('one', 9), ('four', 4) RETURNING k",
        "INSERT OR REPLACE INTO s VALUES ('one', 9) RETURNING k, v",
        "UPDATE t SET a = a || a, n = n + 1 WHERE id = 1 RETURNING id, a, n",
        "UPDATE t SET n = id RETURNING n",
        "UPDATE s SET k = upper(k) RETURNING k, v",
        "UPDATE t SET a = 1 WHERE id = 99 RETURNING id",
        "UPDATE t SET a = 'same' RETURNING (SELECT count(*) FROM s) AS others, t.a",
        "DELETE FROM t WHERE id = 2 RETURNING id, a",
        "DELETE FROM s WHERE k = 'one' RETURNING *",
        "DELETE FROM t RETURNING id AS gone",
        "INSERT INTO t (id) VALUES (1) RETURNING id",
        "INSERT INTO t (a) VALUES ('r') RETURNING missing",
    ],
)
def test_the_rows_and_the_count_are_those_of_sqlite(both: Beside, sql: str) -> None:
    both.run(sql)
    both.same("t", "s", "c")


def test_parameters_on_both_sides_of_the_word(both: Beside) -> None:
    both.run("INSERT INTO t (a, n) VALUES (?, ?) RETURNING id, a || ?, ?", ("v", 3, "+", 7))
    both.run("UPDATE t SET a = ?2 WHERE id = ?1 RETURNING a", (1, "numbered"))
    both.run("DELETE FROM t WHERE id = ? RETURNING a, ?", (1, "x"))
    both.same("t")


def test_names_of_the_columns(connection: Connection, both: Beside) -> None:
    cursor = connection.execute("UPDATE t SET a = 'n' RETURNING id, a AS label")
    assert [column[0] for column in cursor.description or ()] == ["id", "label"]
    assert cursor.rowcount == 2


def test_a_statement_that_breaks_a_constraint_returns_nothing(connection: Connection, both: Beside) -> None:
    with pytest.raises(IntegrityError):
        connection.execute("INSERT INTO c (k) VALUES ('nobody') RETURNING id")
    assert connection.execute("SELECT count(*) FROM c").fetchall() == [(2,)]


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    state: Mapped[str] = mapped_column(server_default="new")


def test_sqlalchemy_s_returning(engine: Engine) -> None:
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        inserted = session.execute(
            sa.insert(Item).returning(Item.id, Item.state), [{"name": "a"}, {"name": "b"}, {"name": "c"}]
        ).all()
        assert [tuple(row) for row in inserted] == [(1, "new"), (2, "new"), (3, "new")]
        updated = session.scalars(
            sa.update(Item).where(Item.name == "a").values(state="old").returning(Item)
        ).one()
        assert (updated.name, updated.state) == ("a", "old")
        gone = session.scalars(sa.delete(Item).where(Item.id > 1).returning(Item.name)).all()
        assert sorted(gone) == ["b", "c"]
        session.commit()
    with Session(engine) as session:
        assert [item.name for item in session.scalars(sa.select(Item))] == ["a"]


def test_inserts_of_the_orm_with_sorted_returning(engine: Engine, open_engine: Callable[..., Engine]) -> None:
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        items = [Item(name=f"n{number}") for number in range(50)]
        session.add_all(items)
        session.flush()
        assert len({item.id for item in items}) == 50
        found = dict(session.execute(sa.select(Item.name, Item.id)).all())
        assert found == {item.name: item.id for item in items}
        before = rome.store_of(engine).round_trips
        session.commit()
        assert rome.store_of(engine).round_trips == before + 1


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO t (v) VALUES (1), (2) RETURNING count(*)",
        "INSERT INTO t (v) VALUES (1) RETURNING id, max(v)",
        "UPDATE t SET v = 1 RETURNING group_concat(v)",
        "DELETE FROM t RETURNING sum(v)",
        "INSERT INTO t (v) VALUES (1) RETURNING row_number() OVER ()",
    ],
)
def test_returning_does_not_aggregate(connect: Callable[..., Connection], statement: str) -> None:
    connection = connect()
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v INTEGER)")
    connection.execute("INSERT INTO t (v) VALUES (7)")
    with pytest.raises(OperationalError, match=r"misuse of (aggregate|window) function"):
        connection.execute(statement)
    assert connection.execute("SELECT v FROM t").fetchall() == [(7,)]
    largest = connection.execute("INSERT INTO t (v) VALUES (?) RETURNING max(v, ?)", (3, 5))
    assert largest.fetchall() == [(5,)]


@pytest.mark.parametrize("action", ["SET NULL", "SET DEFAULT", "CASCADE"])
def test_what_actions_of_foreign_keys_write_is_not_returned(both: Beside, action: str) -> None:
    both.script(
        f"""CREATE TABLE parent (id INTEGER PRIMARY KEY, a);
        CREATE TABLE child (id INTEGER PRIMARY KEY, p REFERENCES parent ON UPDATE {action}
            ON DELETE {action});
        CREATE TABLE tree (id INTEGER PRIMARY KEY, above REFERENCES tree ON UPDATE SET NULL);
        INSERT INTO parent VALUES (1, 'x'), (2, 'y');
        INSERT INTO child VALUES (7, 1), (8, 2);
        INSERT INTO tree VALUES (1, NULL), (2, 1)"""
    )
    both.run("UPDATE parent SET id = id + 10 RETURNING *")
    both.same("child")
    both.run("UPDATE child SET p = id + 4 RETURNING p")
    both.run("DELETE FROM parent RETURNING *")
    both.run("UPDATE tree SET id = 5 WHERE id = 1 RETURNING *")
    both.same("parent", "child", "tree")
