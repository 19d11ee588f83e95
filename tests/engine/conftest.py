import pytest
from hypothesis import HealthCheck, settings

pytest.register_assert_rewrite("flask_ailimit.testing")

# For more: --hypothesis-profile=thorough. No deadline: the machine may be busy.
settings.register_profile("engine", max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", settings.get_profile("engine"), max_examples=1000)
settings.load_profile("engine")
