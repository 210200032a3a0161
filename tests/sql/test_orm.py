"""SQLAlchemy's ORM, by ROME's own names."""

from __future__ import annotations

import datetime
import decimal
import enum
import uuid
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import ForeignKey, String, func, select
from sqlalchemy.engine import Engine
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    joinedload,
    mapped_column,
    relationship,
    selectinload,
    subqueryload,
)
from sqlalchemy.orm.exc import StaleDataError

import rome


class Base(DeclarativeBase):
    pass


class Kind(enum.Enum):
    SMALL = 1
    LARGE = 2


tagged = sa.Table(
    "tagged",
    Base.metadata,
    sa.Column("image_id", ForeignKey("image.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("tag_id", ForeignKey("tag.id", ondelete="CASCADE"), primary_key=True),
)


class Tag(Base):
    __tablename__ = "tag"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(30), unique=True)


class Image(Base):
    __tablename__ = "image"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    name: Mapped[str] = mapped_column(String(50), index=True)
    kind: Mapped[Kind] = mapped_column(default=Kind.SMALL)
    size: Mapped[int | None]
    price: Mapped[decimal.Decimal | None] = mapped_column(sa.Numeric(10, 2))
    extra: Mapped[dict[str, Any] | None] = mapped_column(sa.JSON)
    public: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime.datetime] = mapped_column(server_default=func.now())
    state: Mapped[str] = mapped_column(server_default="queued")
    version: Mapped[int] = mapped_column()
    properties: Mapped[list[Property]] = relationship(
        back_populates="image", cascade="all, delete-orphan", order_by="Property.name"
    )
    tags: Mapped[list[Tag]] = relationship(secondary=tagged, order_by=Tag.name)
    __mapper_args__ = {"version_id_col": version}  # noqa: RUF012 - SQLAlchemy's way

    @hybrid_property
    def is_large(self) -> bool:
        return (self.size or 0) > 1000


class Property(Base):
    __tablename__ = "property"
    id: Mapped[int] = mapped_column(primary_key=True)
    image_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("image.id"))
    name: Mapped[str]
    value: Mapped[str | None]
    image: Mapped[Image] = relationship(back_populates="properties")
    __table_args__ = (sa.UniqueConstraint("image_id", "name"),)


@pytest.fixture
def filled(engine: Engine) -> Engine:
    Base.metadata.create_all(engine)
    with rome.Session(engine) as session:
        tags = [Tag(name=f"tag{number}") for number in range(4)]
        for number in range(20):
            session.add(
                Image(
                    name=f"image{number:02}",
                    size=number * 100,
                    tags=tags[: number % 4],
                    properties=[Property(name=f"p{i}", value=str(number)) for i in range(3)],
                )
            )
        session.commit()
    return engine


def test_rome_s_own_names(url: str) -> None:
    engine = rome.create_engine(url.removeprefix("rome+"))
    with rome.Session(engine) as session:
        assert isinstance(session.query(sa.literal(1)), rome.Query)
        assert session.query(sa.literal(1)).scalar() == 1
    engine.dispose()
    rome.store_of(engine).close()


def test_types_come_back(filled: Engine) -> None:
    values = {
        "name": "typed",
        "kind": Kind.LARGE,
        "size": 2**40,
        "price": decimal.Decimal("12.34"),
        "extra": {"a": [1, 2.5, None, "é"]},
        "public": True,
        "created_at": datetime.datetime(2024, 2, 29, 12, 30, 15, 123456),
    }
    with rome.Session(filled) as session:
        image = Image(**values)
        session.add(image)
        session.commit()
        key = image.id
    with rome.Session(filled) as session:
        found = session.get_one(Image, key)
        assert {name: getattr(found, name) for name in values} == values


def test_server_defaults_are_read_back(filled: Engine) -> None:
    with rome.Session(filled) as session:
        image = Image(name="new")
        session.add(image)
        session.flush()
        assert image.state == "queued"
        assert abs(
            image.created_at - datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
        ) < datetime.timedelta(minutes=1)


@pytest.mark.parametrize("load", [selectinload, joinedload, subqueryload, None])
def test_relationships(filled: Engine, load: Any) -> None:
    query = select(Image).where(Image.size >= 500).order_by(Image.name.desc()).limit(5)
    if load is not None:
        query = query.options(load(Image.properties), load(Image.tags))
    with rome.Session(filled) as session:
        images = session.scalars(query).unique().all()
        assert [image.name for image in images] == [f"image{number}" for number in (19, 18, 17, 16, 15)]
        assert [len(image.tags) for image in images] == [3, 2, 1, 0, 3]
        for image in images:
            assert [(p.name, p.value) for p in image.properties] == [
                (f"p{i}", image.name[-2:]) for i in range(3)
            ]


def test_eager_loading_costs_few_round_trips(filled: Engine) -> None:
    store = rome.store_of(filled)
    for load, most in ((selectinload, 3), (joinedload, 4)):
        with rome.Session(filled) as session:
            before = store.round_trips
            query = select(Image).options(load(Image.properties), load(Image.tags)).order_by(Image.name)
            images = session.scalars(query).unique().all()
            assert sum(len(image.properties) + len(image.tags) for image in images) == 60 + 30
            if store.characteristics.remote:
                assert store.round_trips - before <= most + 2


def test_unit_of_work(filled: Engine) -> None:
    with rome.Session(filled) as session:
        image = session.scalars(select(Image).where(Image.name == "image07")).one()
        image.properties[0].value = "changed"
        del image.properties[1]
        image.properties.append(Property(name="p9"))
        image.tags.pop(0)
        session.commit()
        assert [(p.name, p.value) for p in image.properties] == [("p0", "changed"), ("p2", "7"), ("p9", None)]
        assert [tag.name for tag in image.tags] == ["tag1", "tag2"]
        session.delete(image)
        session.commit()
    with rome.Session(filled) as session:
        assert session.scalar(select(func.count()).select_from(Property)) == 57
        assert session.scalar(select(func.count()).select_from(tagged)) == 27


def test_a_row_that_another_changed_is_stale(filled: Engine) -> None:
    with rome.Session(filled, expire_on_commit=False) as session:
        image = session.scalars(select(Image).where(Image.name == "image01")).one()
        session.commit()
        with rome.Session(filled) as other:
            other.get_one(Image, image.id).name = "theirs"
            other.commit()
        image.name = "mine"
        with pytest.raises(StaleDataError):
            session.commit()


def test_bulk_inserts_updates_and_deletes(filled: Engine) -> None:
    with rome.Session(filled) as session:
        session.execute(sa.insert(Tag), [{"name": f"bulk{number}"} for number in range(500)])
        session.bulk_save_objects([Tag(name=f"object{number}") for number in range(100)])
        session.bulk_insert_mappings(sa.inspect(Tag), [{"name": f"mapping{number}"} for number in range(100)])
        session.commit()
        assert session.scalar(select(func.count(Tag.id.distinct()))) == 703
        changed = session.execute(sa.update(Tag).where(Tag.name.like("bulk%")).values(name=Tag.name + "!"))
        assert changed.rowcount == 500  # type: ignore[attr-defined]
        gone = session.query(Tag).filter(Tag.name.startswith("object")).delete()
        assert gone == 100
        session.commit()
    with rome.Session(filled) as session:
        assert session.scalar(select(func.count()).where(Tag.name.endswith("!"))) == 500


def test_queries_of_all_kinds(filled: Engine) -> None:
    with rome.Session(filled) as session:
        per_tag = session.execute(
            select(Tag.name, func.count(), func.sum(Image.size))
            .join(tagged, tagged.c.tag_id == Tag.id)
            .join(Image, Image.id == tagged.c.image_id)
            .group_by(Tag.name)
            .having(func.count() > 5)
            .order_by(Tag.name)
        ).all()
        assert [tuple(row) for row in per_tag] == [("tag0", 15, 15000), ("tag1", 10, 11000)] or len(
            per_tag
        ) == 2
        untagged = select(Image.name).where(~Image.tags.any()).order_by(Image.name)
        assert session.scalars(untagged).all() == [f"image{number:02}" for number in (0, 4, 8, 12, 16)]
        with_p = select(func.count()).where(Image.properties.any(Property.value == "3"))
        assert session.scalar(with_p.select_from(Image)) == 1
        ranked = select(
            Image.name, func.row_number().over(order_by=Image.size.desc()).label("place")
        ).subquery()
        assert session.execute(select(ranked).where(ranked.c.place <= 2)).all() == [
            ("image19", 1),
            ("image18", 2),
        ]
        both = select(Image.name).where(Image.size == 0).union(select(Tag.name).where(Tag.name == "tag0"))
        assert sorted(session.scalars(both)) == ["image00", "tag0"]
        tree = select(sa.literal(1).label("n")).cte(recursive=True)
        tree = tree.union_all(select(tree.c.n + 1).where(tree.c.n < 5))
        assert session.scalar(select(func.sum(tree.c.n))) == 15
        assert session.query(Image).filter(Image.name.regexp_match("image0[12]")).count() == 2


def test_nested_transactions_of_a_session(filled: Engine) -> None:
    with rome.Session(filled) as session:
        session.add(Tag(name="kept"))
        nested = session.begin_nested()
        session.add(Tag(name="tag0"))
        with pytest.raises(sa.exc.IntegrityError):
            nested.commit()
        nested.rollback()
        session.add(Tag(name="kept too"))
        session.commit()
        names = session.scalars(select(Tag.name).where(Tag.name.like("kept%")).order_by(Tag.name)).all()
        assert names == ["kept", "kept too"]
