"""One transaction over a store: what it has read, what it will write, and how it ends."""

from rome.transaction.buffer import WriteBuffer
from rome.transaction.cache import ReadCache
from rome.transaction.transaction import Chunk, ConstraintViolated, SchemaChanged, Transaction

__all__ = ["Chunk", "ConstraintViolated", "ReadCache", "SchemaChanged", "Transaction", "WriteBuffer"]
