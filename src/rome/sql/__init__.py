"""SQLite as the query processor: schema catalog, virtual tables, constraints."""
