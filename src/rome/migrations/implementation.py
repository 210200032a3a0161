"""Alembic's operations on ROME.

Alembic's implementation for SQLite refuses to alter constraints and has `batch_alter_table` copy the
table instead. On ROME the operations write the statements of `rome.sql.alteration`, with batches or
without them; a batch copies only what cannot be said otherwise, or if it is told to.

What the other databases do beside the operation itself is done here, too: a column that is dropped takes
its indexes and constraints along, the columns of a primary key are NOT NULL, and a foreign key or
unique constraint that nobody has named is given a name (PostgreSQL's), so that a later migration, which
looks it up, can drop it.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import sqlalchemy as sa
from alembic.ddl import base
from alembic.ddl.impl import DefaultImpl
from alembic.ddl.sqlite import SQLiteImpl
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.ddl import DDLElement


class DropColumnCascade(base.DropColumn):
    """ALTER TABLE … DROP COLUMN … CASCADE"""

    inherit_cache = False


class DropUnnamed(DDLElement):
    """ALTER TABLE … DROP PRIMARY KEY, or DROP CHECK (…)"""

    inherit_cache = False

    def __init__(self, constraint: Any) -> None:
        self.constraint = constraint


@compiles(DropColumnCascade)
def _drop_column_cascade(element: Any, compiler: Any, **options: Any) -> str:
    return f"{base.visit_drop_column(element, compiler, **options)} CASCADE"


@compiles(DropUnnamed)
def _drop_unnamed(element: Any, compiler: Any, **options: Any) -> str:
    constraint = element.constraint
    table = compiler.preparer.format_table(constraint.table)
    if isinstance(constraint, sa.CheckConstraint):
        text = compiler.sql_compiler.process(constraint.sqltext, include_table=False, literal_binds=True)
        return f"ALTER TABLE {table} DROP CHECK IF EXISTS ({text})"
    return f"ALTER TABLE {table} DROP PRIMARY KEY"


class RomeImpl(SQLiteImpl):
    """Alters in place. Has no `__dialect__`, so that it does not take SQLite's place in the registry."""

    transactional_ddl = True

    # Constraints

    def create_table(self, table: Any, **kw: Any) -> None:
        for column in table.primary_key:
            column.nullable = False
        _name_constraints(table)
        super().create_table(table, **kw)

    def add_constraint(self, const: Any, **kw: Any) -> None:
        if const.table is not None:
            _name_constraints(const.table)
        if isinstance(const, sa.PrimaryKeyConstraint):
            for column in const.columns:
                self._exec(base.ColumnNullable(const.table.name, column.name, False))
        DefaultImpl.add_constraint(self, const, **kw)

    def drop_constraint(self, const: Any, **kw: Any) -> None:
        if isinstance(const, sa.PrimaryKeyConstraint) or (_is_unnamed(const) and _is_check(const)):
            self._exec(DropUnnamed(const))
        else:
            DefaultImpl.drop_constraint(self, const, **kw)

    # Columns

    def alter_column(self, table_name: str, column_name: str, **kw: Any) -> None:
        # Comments are not kept, as on SQLite; the other two only make sense for MySQL.
        for ignored in ("comment", "existing_comment", "autoincrement", "existing_autoincrement"):
            kw.pop(ignored, None)
        if isinstance(kw.get("type_"), sa.Integer) and self._is_numbered(table_name, column_name):
            # INTEGER is wide enough, and any other name would end the numbering.
            kw.pop("type_")
        super().alter_column(table_name, column_name, **kw)

    def drop_column(
        self,
        table_name: str,
        column: Any,
        *,
        schema: str | None = None,
        if_exists: bool | None = None,
        **kw: Any,
    ) -> None:
        known = {} if if_exists is None else {"if_exists": if_exists}  # older ones do not take it
        self._exec(DropColumnCascade(table_name, column, schema=schema, **known))

    def _is_numbered(self, table_name: str, column_name: str) -> bool:
        """Whether SQLite numbers the rows by this column: an INTEGER PRIMARY KEY."""
        if self.as_sql or self.connection is None:
            return False
        inspector = sa.inspect(self.connection)
        if inspector.get_pk_constraint(table_name)["constrained_columns"] != [column_name]:
            return False
        columns = {column["name"]: column["type"] for column in inspector.get_columns(table_name)}
        return type(columns[column_name]) is sa.INTEGER

    # Comparing with models

    def compare_type(self, inspector_column: Any, metadata_column: Any) -> bool:
        """Whether they differ, in more than the size of integers that has another one for SQLite.

        A key that numbers the rows is INTEGER in the database, whatever size the model gives it (see
        rome.dialect.types). For SQLite's sake models give such keys, and what refers to them, a variant.
        """
        types = (inspector_column.type, metadata_column.type)
        is_numbered = metadata_column is metadata_column.table._autoincrement_column
        if (is_numbered or _has_variant(metadata_column.type)) and all(
            isinstance(getattr(type_, "impl", type_), sa.Integer) for type_ in types
        ):
            return False
        return super().compare_type(inspector_column, metadata_column)

    def compare_server_default(
        self,
        inspector_column: Any,
        metadata_column: Any,
        rendered_metadata_default: str | None,
        rendered_inspector_default: str | None,
    ) -> bool:
        """Whether they differ. Alembic's comparison for SQLite takes the empty text for an expression."""
        if rendered_metadata_default in _EMPTY_TEXT and rendered_inspector_default in _EMPTY_TEXT:
            return False
        return super().compare_server_default(
            inspector_column, metadata_column, rendered_metadata_default, rendered_inspector_default
        )

    # Batches

    def requires_recreate_in_batch(self, batch_op: Any) -> bool:
        """Whether a batch asks for something that ALTER TABLE cannot do."""
        if batch_op.table_args or batch_op.table_kwargs or batch_op.partial_reordering:
            return bool(batch_op.batch)
        known: set[str] | None = None
        for operation, arguments, options in batch_op.batch:
            if operation == "add_column":
                if super().requires_recreate_in_batch(
                    SimpleNamespace(batch=[(operation, arguments, options)])  # type: ignore[arg-type]
                ):
                    return True
            elif operation == "drop_constraint":
                known = self._constraint_names(batch_op) if known is None else known
                if not self._can_drop(arguments[0], known):
                    return True
            elif operation == "add_constraint":
                known = self._constraint_names(batch_op) if known is None else known
                known.add(str(arguments[0].name))
            elif operation == "alter_column":
                if isinstance(options.get("server_default"), sa.Computed):
                    return True
            elif operation not in _IN_PLACE:
                return True
        return False

    def _can_drop(self, constraint: Any, known: set[str]) -> bool:
        """A naming convention may name what has no name in the database; only a copy can leave it out."""
        if isinstance(constraint, sa.PrimaryKeyConstraint) or self.as_sql:
            return True
        return _is_check(constraint) if _is_unnamed(constraint) else str(constraint.name) in known

    def _constraint_names(self, batch_op: Any) -> set[str]:
        if self.connection is None:
            return set()
        inspector = sa.inspect(self.connection)
        table = batch_op.table_name
        found = [
            *inspector.get_unique_constraints(table),
            *inspector.get_foreign_keys(table),
            *inspector.get_check_constraints(table),
        ]
        return {str(constraint["name"]) for constraint in found}


def _has_variant(type_: Any) -> bool:
    """Whether a type is another one on SQLite. (SQLAlchemy 1.4 wraps such types.)"""
    variants = getattr(type_, "_variant_mapping", None) or getattr(type_, "mapping", {})
    return "sqlite" in variants


_EMPTY_TEXT = frozenset(["", "''", "('')"])

_IN_PLACE = frozenset(["create_index", "drop_index", "drop_column", "rename_table"])


def _name_constraints(table: Any) -> None:
    """Give unnamed foreign keys and unique constraints the names that PostgreSQL gives them.

    A unique constraint over the very columns of the primary key is none of its own, there and here.
    """
    key = list(table.primary_key.columns)
    taken = {str(constraint.name) for constraint in table.constraints if not _is_unnamed(constraint)}
    for constraint in table.constraints:
        suffix = _suffix(constraint)
        if suffix is None or not _is_unnamed(constraint):
            continue
        if suffix == "key" and list(constraint.columns) == key:
            continue
        columns = "_".join(column.name for column in constraint.columns)
        candidates = (f"{table.name}_{columns}_{suffix}{number}" for number in ("", *range(1, 1000)))
        constraint.name = next(name for name in candidates if name not in taken)
        taken.add(constraint.name)


def _suffix(constraint: Any) -> str | None:
    if isinstance(constraint, sa.ForeignKeyConstraint):
        return "fkey"
    return "key" if isinstance(constraint, sa.UniqueConstraint) else None


def _is_unnamed(constraint: Any) -> bool:
    return not isinstance(constraint.name, str)


def _is_check(constraint: Any) -> bool:
    return isinstance(constraint, sa.CheckConstraint)
