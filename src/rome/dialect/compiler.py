"""How SQL expressions become SQL text: SQLAlchemy's way for SQLite, and one operator that can be told apart.

Some programs (Nova) match regular expressions with `column.op(operator)(pattern)`, and choose the
operator by the scheme of the connection URL: `REGEXP` where it begins with `mysql` or `sqlite`, `~` for
`postgresql`. For a scheme that they do not know they take `column.op("LIKE")("%pattern%")`, which
finds the pattern's own letters. ROME has REGEXP, but such a program cannot know.

The URL parameter `like_operator=regexp` says that this is meant: a LIKE that was written with `op()` is
then compiled as REGEXP, with the `%` at both ends taken off. `column.like(…)` and SQL text stay as they
are. Without the parameter nothing is changed, since a program may mean LIKE.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.dialects.sqlite.base import SQLiteCompiler


class RomeCompiler(SQLiteCompiler):
    def visit_custom_op_binary(self, element: Any, operator: Any, **more: Any) -> str:
        if operator.opstring.upper() == "LIKE" and getattr(self.dialect, "like_is_regexp", False):
            value, pattern = self.process(element.left, **more), self.process(element.right, **more)
            return f"{value} REGEXP trim({pattern}, '%')"
        text: str = super().visit_custom_op_binary(element, operator, **more)  # type: ignore[no-untyped-call]
        return text
