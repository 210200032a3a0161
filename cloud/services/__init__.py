"""The services, one module each: what an operator writes and types to have it.

Each module has `configure` (its files), `migrate` (its tables, by its own command) and `start` (its
processes), and says which accounts and endpoints Keystone must know of (`ENDPOINT`).
"""
