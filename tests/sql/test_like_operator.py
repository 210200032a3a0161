"""The URL parameter like_operator: regular expressions for programs that fall back to LIKE."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine

NAMES = ["db-1", "web-1", "web-22", "x%y"]
things = sa.table("things", sa.column("name"))


def found(engine: Engine, criterion: sa.ColumnElement[bool]) -> list[str]:
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE things (name VARCHAR(20))")
        connection.execute(sa.insert(things), [{"name": name} for name in NAMES])
        query = sa.select(things.c.name).where(criterion).order_by(things.c.name)
        return list(connection.execute(query).scalars())


def by_operator(pattern: str) -> sa.ColumnElement[bool]:
    """As Nova writes it for a database that it does not know."""
    return things.c.name.op("LIKE")(f"%{pattern}%")


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("^web-[0-9]$", ["web-1"]),
        ("b-", ["db-1", "web-1", "web-22"]),
        ("^web", ["web-1", "web-22"]),
        ("^b", []),
    ],
)
def test_an_operator_like_is_a_regular_expression_where_the_url_says_so(
    open_url: Callable[..., Engine], pattern: str, names: list[str]
) -> None:
    assert found(open_url("rome+memory://?like_operator=regexp"), by_operator(pattern)) == names


def test_sqlalchemys_own_like_stays_what_it_is(open_url: Callable[..., Engine]) -> None:
    criterion = things.c.name.like("web-_")
    assert found(open_url("rome+memory://?like_operator=regexp"), criterion) == ["web-1"]


@pytest.mark.parametrize("url", ["rome+memory://", "rome+memory://?like_operator=like"])
def test_without_the_parameter_like_is_like(open_url: Callable[..., Engine], url: str) -> None:
    assert found(open_url(url), by_operator("^web")) == []


def test_another_value_is_refused(open_url: Callable[..., Engine]) -> None:
    with pytest.raises(sa.exc.ArgumentError, match="like, regexp"):
        open_url("rome+memory://?like_operator=glob")
