"""SQLAlchemy's dialect compliance suite, as it comes with the SQLAlchemy that is installed."""

from sqlalchemy.testing.suite import *  # noqa: F403
