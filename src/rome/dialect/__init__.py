"""SQLAlchemy's view of ROME: a URL becomes an engine.

The language is SQLite's, so the dialect is SQLAlchemy's own for SQLite (`name` stays "sqlite",
which is what Glance, oslo.db and Alembic ask for) with another way to connect. What differs:

* one store is opened for an engine, and shared by its connections;
* isolation is SERIALIZABLE, or AUTOCOMMIT;
* a pool's ping costs no round trip: a lost store shows at the first statement, whose
  transaction has not begun to matter yet.
"""

from rome.dialect.base import LMDBDialect, MemoryDialect, RedisDialect, RedisTLSDialect, RomeDialect

__all__ = ["LMDBDialect", "MemoryDialect", "RedisDialect", "RedisTLSDialect", "RomeDialect"]
