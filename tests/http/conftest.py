import pytest
from limited_apps import commandable


@pytest.fixture
def made(tmp_path):
    """Makes apps without views, each with its limiter, whose counts other processes can see."""
    with commandable(tmp_path / "limits") as make:
        yield make
