"""The one error that this layer adds to those of apsw and of the layers below."""

from rome.errors import RomeError


class NotSupported(RomeError):
    """SQL that SQLite knows, but that has no meaning, or no implementation, over a store."""
