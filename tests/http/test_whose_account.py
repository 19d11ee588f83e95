"""Who ends an account: the request and the process that began it, and nobody who has a copy."""

import gc
import os
import threading

import pytest
from flask import Response, request
from limited_apps import limited

from flask_ailimit.engine import Charge, Quota
from flask_ailimit.request.streaming import MeteredStream

TOKENS, SLOTS, REQUESTS = "tokens-per-day", "concurrency", "requests-per-day"


def in_child(work):
    """Do it in a child process, and answer whether it came to its end."""
    pid = os.fork()
    if not pid:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.fixture
def streamed(tmp_path):
    served = limited(storage_uri=f"local://{tmp_path}/limits", storage_options={"map_size": 1 << 20})

    @served.app.post("/")
    @served.limiter.limit("10 per day")
    @served.limiter.limit_tokens("1000 per day")
    @served.limiter.limit_concurrency(1)
    def answer():
        return Response((b"word " for _ in range(3)), mimetype="text/plain")

    yield served
    served.limiter.engine.close()


def begin(served):
    """A list with the only reference to an answer that was begun."""
    answer = served.client().post("/", json={"prompt": "hi", "max_tokens": 40})
    assert answer.status_code == 200
    return [answer]


def read_on(kept):
    for _ in kept[0].iter_encoded():
        pass


def drop(kept):
    kept.clear()
    gc.collect()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize(
    "work", [drop, lambda kept: kept[0].close(), lambda kept: kept[0].response.close(), read_on], ids=range(4)
)
def test_child_process_that_has_a_copy_of_a_stream_ends_nothing(streamed, work):
    kept = begin(streamed)
    before = streamed.used()
    assert before[SLOTS] == 1
    assert in_child(lambda: work(kept))
    assert streamed.used() == before
    drop(kept)
    assert streamed.used()[SLOTS] == 0


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_child_process_does_not_wait_for_a_lock_that_a_thread_of_its_parent_held(streamed):
    others = {id(each) for each in gc.get_objects() if isinstance(each, MeteredStream)}
    kept = begin(streamed)
    streams = [each for each in gc.get_objects() if isinstance(each, MeteredStream) and id(each) not in others]
    held, let = threading.Event(), threading.Event()

    turn = streams.pop()._turn

    thread = threading.Thread(target=lambda: turn.run(lambda: (held.set(), let.wait(60))))
    thread.start()
    assert held.wait(60)
    assert in_child(lambda: drop(kept))
    let.set()
    thread.join()
    assert streamed.used()[SLOTS] == 1


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_view_that_forks_a_child_which_leaves_through_it_pays_once(streamed):
    @streamed.app.post("/fork")
    @streamed.limiter.limit_tokens("1000 per day")
    @streamed.limiter.limit_concurrency(1)
    def fork():
        def leave():
            streamed.limiter.record_usage(input_tokens=900)
            streamed.limiter._teardown_request(None)

        assert in_child(leave)
        assert streamed.used(endpoint="fork")[SLOTS] == 1
        streamed.limiter.record_usage(input_tokens=7)
        return {}

    assert streamed.client().post("/fork", json={"prompt": "hi", "max_tokens": 40}).status_code == 200
    assert streamed.used(endpoint="fork") == {TOKENS: 7, SLOTS: 0}


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_child_process_ends_no_reservation_of_its_parent_s_engine(streamed):
    engine = streamed.limiter.engine
    charge = Charge(engine.subject("alice"), Quota(10, 86400, "tokens"), 4)
    reservation = engine.reserve([charge])
    assert in_child(reservation.cancel)
    assert engine.peek([charge]).verdicts[0].remaining == 6
    assert reservation.cancel()
    assert engine.peek([charge]).verdicts[0].remaining == 10


@pytest.fixture
def nested():
    served = limited()
    limiter = served.limiter

    @served.app.post("/outer")
    @limiter.limit("10 per day")
    @limiter.limit_tokens("100000 per day")
    @limiter.limit_concurrency(1)
    def outer():
        decision, request_id = limiter.decision, limiter.request_id
        environ = request.environ
        path, environ["PATH_INFO"] = environ["PATH_INFO"], "/" + request.args["to"]
        try:
            with served.app.request_context(environ):
                inner = served.app.full_dispatch_request()
        finally:
            environ["PATH_INFO"] = path
        assert limiter.decision is decision
        assert limiter.request_id == request_id
        assert served.used(endpoint="outer")[SLOTS] == 1
        limiter.record_usage(input_tokens=5)
        return {"inner": inner.status_code, "inner_id": inner.headers.get("x-request-id")}

    @served.app.post("/inner")
    @limiter.limit("2 per day")
    @limiter.limit_tokens("100000 per day")
    def inner():
        limiter.record_usage(input_tokens=3)
        return {}

    @served.app.post("/unlimited")
    def unlimited():
        return {}

    return served


def test_request_that_is_dispatched_inside_of_another_has_an_account_of_its_own(nested):
    client = nested.client()
    answers = [client.post("/outer?to=inner", json={}) for _ in range(3)]
    assert [answer.json["inner"] for answer in answers] == [200, 200, 429]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert nested.used(endpoint="outer") == {REQUESTS: 3, TOKENS: 15, SLOTS: 0}
    assert nested.used(endpoint="inner") == {REQUESTS: 2, TOKENS: 6}
    for answer in answers:
        assert answer.headers["x-request-id"] != answer.json["inner_id"]
        assert answer.headers["x-ratelimit-limit-requests"] == "10"
        assert "Retry-After" not in answer.headers


@pytest.mark.parametrize("to", ["unlimited", "nowhere"])
def test_unlimited_request_inside_of_another_ends_nothing(nested, to):
    answer = nested.client().post(f"/outer?to={to}", json={})
    assert answer.json["inner"] == (200 if to == "unlimited" else 404)
    assert nested.used(endpoint="outer")[SLOTS] == 0


def test_middleware_that_dispatches_an_environment_again_is_charged_for_each(nested):
    wsgi_app = nested.app.wsgi_app

    def twice(environ, start_response):
        b"".join(wsgi_app(environ, lambda *_: None))
        return wsgi_app(environ, start_response)

    nested.app.wsgi_app = twice
    assert nested.client().post("/inner").status_code == 200
    assert nested.used(endpoint="inner") == {REQUESTS: 2, TOKENS: 6}
    assert nested.client().post("/inner").status_code == 429
