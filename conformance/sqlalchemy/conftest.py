"""SQLAlchemy's own pytest plugin, as README.dialects asks for it. What is ours is in hooks.py."""

import pytest

pytest.register_assert_rewrite("sqlalchemy.testing.assertions")

from sqlalchemy.testing.plugin.pytestplugin import *  # noqa: E402, F403
