"""How SQL expressions become SQL text: SQLAlchemy's way for SQLite, but for two things.

**Regular expressions.** Some programs (Nova) match them with `column.op(operator)(pattern)`, and choose
the operator by the scheme of the connection URL: `REGEXP` where it begins with `mysql` or `sqlite`, `~` for
`postgresql`. For a scheme that they do not know they take `column.op("LIKE")("%pattern%")`, which
finds the pattern's own letters. ROME has REGEXP, but such a program cannot know.

The URL parameter `like_operator=regexp` says that this is meant: a LIKE that was written with `op()` is
then compiled as REGEXP, with the `%` at both ends taken off. `column.like(…)` and SQL text stay as they
are. Without the parameter nothing is changed, since a program may mean LIKE.

**Joins within outer joins.** A many-to-many relationship that is loaded by a join is

    a LEFT OUTER JOIN (x JOIN b ON b.id = x.b_id) ON a.id = x.a_id

SQLite makes the inner join first, of all rows of both tables, and then looks up what belongs to `a`: at
once where rows are in memory, a whole table over the network here. The same is written as

    a LEFT OUTER JOIN x ON a.id = x.a_id AND EXISTS (SELECT 1 FROM b AS b2 WHERE b2.id = x.b_id)
      LEFT OUTER JOIN b ON b.id = x.b_id

which SQLite does from `a` inwards. It is the same because a row of `x` without any of `b` is left out in
both, and because the inner condition is true of no row of `b` where `x` is NULL.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite.base import SQLiteCompiler
from sqlalchemy.sql import operators, visitors
from sqlalchemy.sql.elements import BinaryExpression, BooleanClauseList, ColumnClause, TextClause
from sqlalchemy.sql.selectable import Alias, FromGrouping, Join, SelectBase, TableClause
from sqlalchemy.sql.util import ClauseAdapter


class RomeCompiler(SQLiteCompiler):
    def visit_custom_op_binary(self, element: Any, operator: Any, **more: Any) -> str:
        if operator.opstring.upper() == "LIKE" and getattr(self.dialect, "like_is_regexp", False):
            value, pattern = self.process(element.left, **more), self.process(element.right, **more)
            return f"{value} REGEXP trim({pattern}, '%')"
        text: str = super().visit_custom_op_binary(element, operator, **more)  # type: ignore[no-untyped-call]
        return text

    def visit_join(self, join: Any, asfrom: bool = False, from_linter: Any = None, **more: Any) -> str:
        apart = _taken_apart(join)
        text: str = super().visit_join(  # type: ignore[no-untyped-call]
            join if apart is None else apart, asfrom=asfrom, from_linter=from_linter, **more
        )
        return text


def _taken_apart(join: Any) -> Any:
    """The same join without a join inside, see the essay; None where there is none, or it is not plain."""
    inner: Any = join.right.element if isinstance(join.right, FromGrouping) else join.right
    if not (join.isouter and isinstance(inner, Join)) or join.full or inner.isouter or inner.full:
        return None
    between, last, condition = inner.left, inner.right, inner.onclause
    if not (_is_table(between) and _is_table(last) and _is_plain(join.onclause) and _is_plain(condition)):
        return None
    if _names(join.onclause, last) or not _equates(condition, between, last):
        return None
    other = last.alias()
    of_other: Any = ClauseAdapter(other).traverse(condition)
    exists = sa.exists(sa.literal_column("1")).select_from(other).where(of_other).correlate(between)
    reached = sa.and_(join.onclause, exists)
    return sa.outerjoin(sa.outerjoin(join.left, between, reached), last, condition)


def _is_table(part: Any) -> bool:
    return isinstance(part.element if isinstance(part, Alias) else part, TableClause)


def _is_plain(condition: Any) -> bool:
    """Whether a condition consists of columns and values, as far as can be seen."""
    return not any(isinstance(part, TextClause | SelectBase) for part in visitors.iterate(condition))


def _names(condition: Any, table: Any) -> bool:
    """Whether a condition names a column of the table."""
    return any(_is_of(part, table) for part in visitors.iterate(condition))


def _is_of(part: Any, table: Any) -> bool:
    # ORM's annotated copies of a table have its hash.
    return isinstance(part, ColumnClause) and part.table is not None and hash(part.table) == hash(table)


def _equates(condition: Any, one: Any, other: Any) -> bool:
    """Whether rows can only meet if a column of the one equals a column of the other."""
    is_list = isinstance(condition, BooleanClauseList) and condition.operator is operators.and_
    return any(
        isinstance(part, BinaryExpression)
        and part.operator is operators.eq
        and any(
            _is_of(left, one) and _is_of(right, other)
            for left, right in ((part.left, part.right), (part.right, part.left))
        )
        for part in (condition.clauses if is_list else (condition,))
    )
