import pytest
from hypothesis import HealthCheck, settings

from flask_ailimit.engine.stores.local import LocalStore
from flask_ailimit.testing import ManualClock

# For more: --hypothesis-profile=thorough. No deadline: the machine may be busy.
settings.register_profile("engine", max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", settings.get_profile("engine"), max_examples=1000)
settings.load_profile("engine")


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def place(tmp_path):
    """Where a local store's directory is to be."""
    return tmp_path / "limits"


@pytest.fixture
def open_local(place, clock):
    """Opens a local store, of ``place`` unless told otherwise; all are closed at the end.

    Whoever has its lock may be a process that is not scheduled for a while.
    """
    opened = []

    def open_another(path=place, **options):
        opened.append(LocalStore(path, clock=clock, **{"lock_timeout": 60, **options}))
        return opened[-1]

    yield open_another
    for store in opened:
        store.close()
