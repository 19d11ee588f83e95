"""A client that sends one request after the other, with one slot, never meets its own shadow."""

import pytest
from conftest import KEEP_ALIVE, WORKER_CLASSES
from gunicorn_server import serving

ANSWERS = [
    ("/answer", "POST"),
    ("/story?ends=event", "POST"),
    ("/story?ends=length", "POST"),
    ("/story", "POST"),
    ("/story", "HEAD"),
]


def statuses(server, path, method, key, count, *, keeps):
    """The statuses of one request after the other, each sent as soon as the client knows that the last is answered."""
    call = None
    for _ in range(count):
        if keeps and call is not None and call.response.isclosed():
            call.send(path, key, method=method)
        else:
            last, call = call, server.call(path, key, method=method)
            if last is not None:
                last.leave()
        yield call.status
        if "ends=event" in path:
            while call.chunk() not in (b"data: [DONE]\n\n", b""):
                pass
        else:
            call.rest()


@pytest.fixture(scope="module", params=WORKER_CLASSES)
def slow_to_settle(request, tmp_path_factory):
    """A server with a store that takes its time: whatever is settled too late, is settled far too late."""
    with serving(tmp_path_factory.mktemp("slow"), request.param, *KEEP_ALIVE, settling_takes=0.02) as server:
        yield server


@pytest.mark.parametrize("keeps", [True, False], ids=["keep-alive", "new connections"])
@pytest.mark.parametrize(("path", "method"), ANSWERS)
def test_client_is_never_refused_for_its_own_last_request(slow_to_settle, path, method, keeps, key):
    assert set(statuses(slow_to_settle, path, method, key, 15, keeps=keeps)) == {200}


@pytest.mark.parametrize("count", [200, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("keeps", [True, False], ids=["keep-alive", "new connections"])
@pytest.mark.parametrize("path", ["/answer", "/story?ends=event"])
def test_client_is_never_refused_for_its_own_last_request_at_full_speed(server, path, keeps, count, key):
    assert [status for status in statuses(server, path, "POST", key, count, keeps=keeps) if status != 200] == []
    server.books.wait_settled(key, count)
