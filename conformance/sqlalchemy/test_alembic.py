"""Alembic's suite for dialects, as it comes with the Alembic that is installed."""

from alembic.testing.suite import *  # noqa: F403
