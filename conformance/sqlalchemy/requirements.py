"""What SQLAlchemy's dialect compliance suite may ask of ROME, and of stock SQLite beside it.

The suite asks for each feature by name. Most are open unless a dialect says otherwise; the others
are closed unless it says so here. One class serves ROME and `sqlite://`, so that a test which is
skipped on ROME alone shows up: run.py lets that pass only for a feature listed in UNSUPPORTED.

    SUPPORTED            SQLite and ROME have it
    SQLITE_LIMITS        neither has it: the limit is SQLite's language or file format
    KNOWN_TO_FAIL        the suite expects the test to fail on SQLite, and so on ROME
    ONLY_ROME            ROME has it, `sqlite://` has not
    UNSUPPORTED          SQLite has it and ROME has not: each with its reason
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from alembic.testing.requirements import SuiteRequirements as AlembicRequirements
from sqlalchemy.testing import exclusions
from sqlalchemy.testing.requirements import SuiteRequirements as SQLAlchemyRequirements

SUPPORTED = """
    ad_hoc_engines autocommit autocommit_isolation boolean_col_expressions check_constraint_reflection
    computed_columns computed_columns_reflect_persisted computed_columns_stored
    computed_columns_virtual create_table_as create_temp_table_as ctes ctes_with_values date_historic
    datetime_historic datetime_literals dbapi_lastrowid emulated_lastrowid
    emulated_lastrowid_even_with_sequences except_ expression_server_defaults fetch_expression
    fetch_offset_with_options fk_constraint_option_reflection_ondelete_noaction
    fk_constraint_option_reflection_ondelete_restrict fk_constraint_option_reflection_onupdate_restrict
    float_or_double_precision_behaves_generically foreign_key_constraint_name_reflection
    foreign_key_constraint_option_reflection_ondelete foreign_key_constraint_option_reflection_onupdate
    has_temp_table index_ddl_if_exists indexes_check_column_order indexes_with_expressions
    infinity_floats inline_check_constraint_reflection intersect isolation_level json_array_indexes
    json_type legacy_unconditional_json_extract mod_operator_as_percent_sign non_updating_cascade
    nullsordering nvarchar_types order_by_collation order_by_label_with_expression percent_schema_names
    precision_numerics_enotation_large precision_numerics_enotation_small
    precision_numerics_retains_significant_digits reflect_table_options reflects_pk_names regexp_match
    repeated_column_foreign_keys repeated_remote_col_foreign_keys savepoints server_defaults
    skip_autocommit_rollback standalone_binds supports_bitwise_and supports_bitwise_not
    supports_bitwise_or supports_bitwise_shift supports_bitwise_xor table_ddl_if_exists temp_table_names
    temporary_views tuple_in tuple_in_w_empty unicode_ddl update_from view_column_reflection
    view_reflection views window_functions window_range window_range_numeric
    fk_deferrable fk_ondelete_is_reflected fk_onupdate_is_reflected reflects_fk_options
""".split()

SQLITE_LIMITS = {
    "implicitly_named_constraints": "SQLite gives no name to a constraint that has none",
    "json_index_supplementary_unicode_element": "SQLite's JSON paths take no surrogate pairs",
    "nested_aggregates": "SQLite takes no aggregate of an aggregate",
    "sequences": "SQLite's language has no sequences",
    "alter_column": "SQLite's ALTER TABLE changes no column; Alembic's batch mode does",
}

KNOWN_TO_FAIL = {
    "cast_precision_numerics_many_significant_digits": "SQLite casts to a 64-bit float",
    "numeric_received_as_decimal_untyped": "SQLite has no decimal type",
    "parens_in_union_contained_select_w_limit_offset": "SQLite's language",
    "parens_in_union_contained_select_wo_limit_offset": "SQLite's language",
    "precision_numerics_many_significant_digits": "SQLite keeps a 64-bit float",
}

ONLY_ROME = """
    independent_connections independent_readonly_connections
""".split()

UNSUPPORTED = {
    "schemas": "a ROME database has one schema: there is no ATTACH, hence no `test_schema` beside `main`",
    "sizes_of_numbered_keys": "a key that numbers the rows is INTEGER, whatever size its model gives it",
}
"""A test that asks for one of these is skipped on ROME; its reason is printed with the count."""

UNASKED = {
    r"ComponentReflectionTestExtra::test_check_constraint_\w+\[True\b": "schemas",
    r"ComponentReflectionTest::test_metadata\[\w+-(\w+-)?True\]": "schemas",
    r"AutoincrementTest::test_alter_column_autoincrement_pk_\w+_true": "sizes_of_numbered_keys",
}
"""Tests that need one of UNSUPPORTED without asking for it (pattern of the name → which)."""


def on_rome(config: Any) -> bool:
    return bool(config.db.url.get_backend_name() == "rome")


class Requirements(AlembicRequirements, SQLAlchemyRequirements):  # type: ignore[misc]
    """The answers to the suites' questions: the tables above, and what needs a few words of code."""

    def get_isolation_levels(self, config: Any) -> dict[str, Any]:
        dialect = config.db.dialect
        if hasattr(dialect, "get_isolation_level_values"):
            levels = list(dialect.get_isolation_level_values(None))
        else:
            levels = [*dialect._isolation_lookup, "AUTOCOMMIT"]
        return {"default": "SERIALIZABLE", "supported": levels}

    def get_order_by_collation(self, config: Any) -> str:
        return "nocase"


def answer(name: str, rule: Callable[..., Any], *arguments: Any) -> None:
    """Define a requirement. Its rule is made anew each time: the suite adds to those it is given."""
    setattr(Requirements, name, property(lambda self: rule(*arguments)))


def reason(name: str) -> str:
    """Why a feature is unsupported, as run.py recognises it in what pytest reports."""
    return f"rome: {name}: {UNSUPPORTED[name]}"


def reason_to_skip(test: str) -> str | None:
    """Why a test that asks for nothing cannot run on ROME; None if it can."""
    for pattern, name in UNASKED.items():
        if re.search(pattern, test):
            return reason(name)
    return None


def always(config: Any) -> bool:
    return True


for _name in SUPPORTED:
    answer(_name, exclusions.open)
for _name in ONLY_ROME:
    answer(_name, exclusions.only_if, on_rome, f"{_name}: not on stock sqlite")
for _name, _reason in SQLITE_LIMITS.items():
    answer(_name, exclusions.skip_if, always, f"sqlite: {_name}: {_reason}")
for _name, _reason in KNOWN_TO_FAIL.items():
    answer(_name, exclusions.fails_if, always, f"sqlite: {_name}: {_reason}")
for _name in UNSUPPORTED:
    answer(_name, exclusions.skip_if, on_rome, reason(_name))
