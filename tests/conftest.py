import os
import sys

import pytest
from hypothesis import HealthCheck, settings

BASE = "AILIMIT_STORES_DIRECTORY"

# The machine may be busy: no example has a deadline, and none is too slow to make.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

# Before any test imports it: the store contract's asserts are to tell what they compared.
pytest.register_assert_rewrite("flask_ailimit.testing")


@pytest.fixture(scope="session", autouse=True)
def default_stores(tmp_path_factory):
    """Keep the default stores of all tests, and of the processes that they start, out of the user's own place."""
    home = tmp_path_factory.mktemp("stores")
    before = os.environ.get(BASE)
    os.environ[BASE] = str(home)
    yield home
    if before is None:
        del os.environ[BASE]
    else:
        os.environ[BASE] = before


@pytest.fixture(autouse=True)
def whole_log():
    """What a test before has logged leaves out nothing of this one's log."""
    few_lines = sys.modules.get("flask_ailimit.engine.few_lines")
    if few_lines:
        few_lines.few_lines.forget()
