"""What all tests share: nothing but the switches of hypothesis."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# `make fuzz` is the long run; `make test` takes a sample of it. A failure prints the blob that
# repeats it (@reproduce_failure), so random tests need no seed of their own.
settings.register_profile(
    "sample", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("long", settings.get_profile("sample"), max_examples=1000)
settings.load_profile(os.environ.get("ROME_FUZZ", "sample"))
