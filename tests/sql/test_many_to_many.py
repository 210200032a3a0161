"""A join within an outer join, which is how a many-to-many relationship is loaded, is not done inside out."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session, declarative_base, joinedload, relationship

import rome

metadata = sa.MetaData()
a = sa.Table("a", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("n", sa.Integer))
x = sa.Table(
    "x",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("a_id", sa.Integer, index=True),
    sa.Column("b_id", sa.Integer, index=True),
    sa.Column("n", sa.Integer),
)
b = sa.Table("b", metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("n", sa.Integer))
b2 = b.alias("b2")
x2 = x.alias()


def joined(on_last: Any, on_between: Any, between: Any = x, last: Any = b) -> Any:
    inner = between.join(last, on_last)
    return sa.select(a.c.id, between.c.id, last.c.id).select_from(a.outerjoin(inner, on_between))


def taken_apart(query: Any, engine: Engine) -> bool:
    return "EXISTS" in str(query.compile(engine))


PLAIN = [
    lambda v: joined(x.c.b_id == b.c.id, a.c.id == x.c.a_id),
    lambda v: joined(b2.c.id == x2.c.b_id, x2.c.a_id == a.c.id, x2, b2),
    lambda v: joined(sa.and_(x.c.b_id == b.c.id, b.c.n > v), sa.and_(a.c.id == x.c.a_id, x.c.n != v)),
    lambda v: joined(sa.and_(x.c.n < v, x.c.b_id == b.c.n), sa.and_(a.c.n == x.c.a_id, a.c.n > v)),
    lambda v: joined(x.c.b_id == b.c.n, sa.or_(a.c.id == x.c.a_id, x.c.n == v)).where(a.c.id > v),
    lambda v: sa.select(a.c.id, x.c.id, b.c.id, x2.c.id, b2.c.id).select_from(
        a.outerjoin(x.join(b, x.c.b_id == b.c.id), a.c.id == x.c.a_id).outerjoin(
            x2.join(b2, sa.and_(x2.c.b_id == b2.c.id, x2.c.n != v)), x2.c.a_id == b.c.id
        )
    ),
]
NOT_PLAIN = [
    lambda v: joined(x.c.b_id == b.c.id, sa.and_(a.c.id == x.c.a_id, b.c.n > v)),
    lambda v: joined(x.c.n < v, a.c.id == x.c.a_id),
    lambda v: joined(sa.or_(x.c.b_id == b.c.id, x.c.n.is_(None)), a.c.id == x.c.a_id),
    lambda v: joined(sa.and_(x.c.b_id == b.c.id, sa.text("b.n > 2")), a.c.id == x.c.a_id),
    lambda v: joined(
        x.c.b_id == b.c.id, sa.and_(a.c.id == x.c.a_id, a.c.n == sa.select(v).scalar_subquery())
    ),
]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("queries", "apart"), [(PLAIN, True), (NOT_PLAIN, False)])
def test_the_rows_are_those_of_sqlite(
    url: str, open_url: Callable[..., Engine], seed: int, queries: list[Any], apart: bool
) -> None:
    chance = random.Random(seed)

    def some(least: int = 0) -> int | None:
        return chance.choice([None, *range(least, 8)])

    rows: dict[Any, list[Any]] = {
        a: [{"id": number, "n": some()} for number in range(8)],
        x: [{"id": number, "a_id": some(), "b_id": some(), "n": some()} for number in range(40)],
        b: [{"id": number, "n": some()} for number in range(2, 6)],
    }
    found = []
    for engine in (open_url(url), sa.create_engine("sqlite://")):
        with engine.begin() as connection:
            metadata.create_all(connection)
            for table, values in rows.items():
                connection.execute(table.insert(), values)
            # More than one value for each: the text is compiled once, and its values are not.
            results = [
                sorted(map(repr, connection.execute(query(value))))
                for query in queries
                for value in (2, 4, 2)
            ]
        found.append(results)
        is_here = engine.dialect.driver != "pysqlite"
        assert [taken_apart(query(2), engine) for query in queries] == [apart and is_here] * len(queries)
    assert found[0] == found[1]
    assert sum(map(len, found[0])) > 100


Base: Any = declarative_base()
membership = sa.Table(
    "membership",
    Base.metadata,
    sa.Column("person_id", sa.ForeignKey("people.id"), primary_key=True),
    sa.Column("club_id", sa.ForeignKey("clubs.id"), primary_key=True),
)


class Person(Base):
    __tablename__ = "people"
    id = sa.Column(sa.Integer, primary_key=True)
    clubs = relationship("Club", secondary=membership, backref="people")


class Club(Base):
    __tablename__ = "clubs"
    id = sa.Column(sa.Integer, primary_key=True)


def test_a_relationship_is_loaded_from_its_rows_alone(url: str, open_url: Callable[..., Engine]) -> None:
    engine = open_url(url)
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        clubs = [Club(id=number) for number in range(1, 201)]
        people = [
            Person(id=number + 1, clubs=[clubs[number], clubs[100 + number * 7 % 97]])
            for number in range(100)
        ]
        session.add_all([*clubs, *people, Person(id=500)])
        session.commit()
    query = sa.select(Person).options(joinedload(Person.clubs))
    store = rome.store_of(engine)
    for chosen in (Person.id == 5, Person.id.in_([1, 5, 9, 500])):
        for _ in range(2):
            with Session(engine) as session:
                before = store.round_trips
                found = session.execute(query.where(chosen)).unique().scalars().all()
                spent = store.round_trips - before
        assert {person.id: {club.id for club in person.clubs} for person in found} == {
            person.id: {person.id, 101 + (person.id - 1) * 7 % 97} if person.id < 500 else set()
            for person in found
        }
        if store.characteristics.remote:
            assert spent == 2
