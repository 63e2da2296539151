"""Settings for all tests: how many examples hypothesis draws."""

import os

from hypothesis import HealthCheck, settings

# The same examples every time, so that a failure can be run again anywhere.
settings.register_profile(
    "default",
    max_examples=20,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
# Fresh examples, many of them: MINIFCN_HYPOTHESIS=thorough pytest
settings.register_profile(
    "thorough",
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("MINIFCN_HYPOTHESIS", "default"))
