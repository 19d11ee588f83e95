import pytest
from sdk_users import SDKS

from flask_ailimit.testing import FakeProvider


@pytest.fixture
def provider():
    with FakeProvider() as provider:
        yield provider


@pytest.fixture(params=SDKS.values(), ids=SDKS)
def sdk(request):
    """Each of the SDKs, sync and async."""
    return request.param
