import gc
import logging
import os
import threading
from contextlib import closing, nullcontext

import anthropic
import anyio
import httpx
import httpx2
import openai
import pytest
from upstream_calls import MESSAGES, a_world, ask, heard, left

from flask_ailimit.engine import ConfigurationError, Engine, open_store, system_clock
from flask_ailimit.engine.algorithms.gate import HALF_OPEN, Standing, standing_of
from flask_ailimit.testing import FakeProvider, Fault
from flask_ailimit.tokens import Usage
from flask_ailimit.upstream.calling import calling, calling_now
from flask_ailimit.upstream.pacing import Asked, Place
from flask_ailimit.upstream.told import Told
from flask_ailimit.upstream.upstream import Upstream

pytestmark = pytest.mark.server


@pytest.fixture
def world():
    with a_world() as world:
        yield world


def test_nobody_asks_for_whom_a_call_is_made_without_a_cache(world):
    upstream, asked = world.upstream(), []
    upstream.tenant = asked.append
    ask(world.client(upstream))
    assert asked == []


def test_official_sdks_work_unchanged(world):
    upstream = world.upstream(requests="60 per minute", tokens="10000 per minute", concurrency=5)
    assert ask(world.client(upstream)).choices[0].message.content == "one two three"
    chunks = ask(world.client(upstream), stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "one two three"
    claude = anthropic.Anthropic(
        api_key="k", base_url=world.provider.anthropic_url, http_client=world.http_client(upstream)
    )
    answer = claude.messages.create(model="m", max_tokens=20, messages=MESSAGES)
    assert answer.content[0].text == "one two three"
    with claude.messages.stream(model="m", max_tokens=20, messages=MESSAGES) as stream:
        assert stream.get_final_text() == "one two three"
    assert world.provider.count(200) == 4


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_both_libraries_have_such_transports(world, library):
    upstream = world.upstream(requests="60 per minute")
    client = world.http_client(upstream, library=library.__name__)
    answer = client.post(f"{world.provider.url}/chat/completions", json={"model": "m", "messages": MESSAGES})
    assert answer.json()["choices"][0]["message"]["content"] == "one two three"
    assert answer.headers["x-ailimit-upstream"] == "main"
    assert answer.headers["x-should-retry"] == "false"


def test_event_loops_are_never_blocked_by_the_store(world):
    upstream, main = world.upstream(requests="60 per minute", concurrency=3), threading.get_ident()
    asked = []
    for name in ("reserve", "settle"):
        whole = getattr(world.engine.store, name)
        setattr(
            world.engine.store, name, lambda *given, whole=whole: asked.append(threading.get_ident()) or whole(*given)
        )

    async def calls():
        client = openai.AsyncOpenAI(api_key="k", base_url=world.provider.url, http_client=upstream.async_http_client())
        await ask(client)
        async for _ in await ask(client, stream=True):
            pass
        await client.close()

    anyio.run(calls)
    assert len(asked) == 4
    assert main not in asked


def test_a_call_is_settled_with_what_it_used(world):
    upstream = world.upstream(requests="60 per minute", tokens={"limit": "10000 per minute", "burst": 10000})
    before = left(upstream, "tokens")
    with heard("call_settled") as told:
        usage = ask(world.client(upstream), max_tokens=5000).usage
    assert before - left(upstream, "tokens") == usage.total_tokens
    assert told[0][1]["usage"].total_tokens == usage.total_tokens
    assert told[0][1]["source"] == "reported"


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_the_app_cannot_count_is_passed_on_and_costs_what_was_reserved(world, stream, caplog):
    def counter(text):
        if "one" in text:
            raise ValueError(text)
        return 3

    upstream = world.upstream(tokens={"limit": "10000 per minute", "burst": 10000}, concurrency=5, counter=counter)
    world.provider.always(Fault.ok().without_usage())
    before = left(upstream, "tokens")
    answer = ask(world.client(upstream), stream=stream)
    if stream:
        assert "".join(chunk.choices[0].delta.content or "" for chunk in answer if chunk.choices) == "one two three"
    else:
        assert answer.choices[0].message.content == "one two three"
    assert before - left(upstream, "tokens") >= 20
    assert left(upstream, "concurrency") == 5
    assert "ValueError" in caplog.text
    assert "two" not in caplog.text


def test_a_call_asks_the_store_twice(world):
    upstream = world.upstream(requests="60 per minute", tokens="10000 per minute", concurrency=5)
    trips = store_calls(world, lambda name: name)
    ask(world.client(upstream))
    assert trips == ["reserve", "settle"]


def test_a_stream_that_is_left_gives_its_slot_back(world):
    upstream = world.upstream(concurrency=1)
    client = world.client(upstream)
    with ask(client, stream=True) as stream:
        next(iter(stream))
    assert left(upstream, "concurrency") == 1
    for _chunk in ask(client, stream=True):
        break
    del _chunk
    gc.collect()
    wait_until(lambda: left(upstream, "concurrency") == 1)
    never_read = ask(client, stream=True)
    del never_read
    gc.collect()
    world.provider.wait_for_calls(3)
    wait_until(lambda: left(upstream, "concurrency") == 1)


def store_calls(world, note):
    """What ``note`` answers of each call to the store from now on."""
    notes = []
    for name in ("reserve", "settle", "peek", "renew"):
        whole = getattr(world.engine.store, name)
        setattr(
            world.engine.store, name, lambda *given, name=name, whole=whole: notes.append(note(name)) or whole(*given)
        )
    return notes


def wait_until(is_so):
    """A thread of its own settles what was dropped."""
    done = threading.Event()
    for _ in range(500):
        if is_so():
            return
        done.wait(0.02)
    raise AssertionError("it never was so")


def test_retries_are_ours_alone(world):
    world.provider.always(Fault.overloaded())
    upstream = world.upstream(attempts=2)
    with pytest.raises(openai.InternalServerError):
        ask(world.client(upstream, max_retries=5))
    assert world.provider.count() == 2


def test_a_call_is_sent_again_after_an_overload(world):
    world.provider.then(Fault.overloaded(), Fault.error(502))
    with heard("call_retried") as told:
        assert ask(world.client(world.upstream())).choices
    assert [facts["kind"] for _, facts in told] == ["overloaded", "overloaded"]
    assert all(0 <= facts["seconds"] <= 2 for _, facts in told)


def test_a_429_is_waited_out_and_stops_all_other_calls(world):
    world.provider.then(Fault.throttled(retry_after=7))
    upstream, other = world.upstream(), world.upstream()
    ask(world.client(upstream))
    assert world.clock.running() >= 7
    world.provider.then(Fault.throttled(retry_after=5))
    with calling(wait=0), pytest.raises(openai.RateLimitError) as refused:
        ask(world.client(upstream))
    assert refused.value.response.headers["x-ailimit-limited-by"] == "provider"
    before = world.provider.count()
    with calling(wait=0), pytest.raises(openai.RateLimitError) as refused:
        ask(world.client(other))
    assert refused.value.response.headers["x-ailimit-limited-by"] == "app"
    assert 4 <= float(refused.value.response.headers["retry-after"]) <= 5
    assert world.provider.count() == before


@pytest.mark.parametrize("asked", [274_579, 10**9])
def test_no_answer_stops_calls_for_longer_than_the_longest_pause(world, asked):
    world.provider.then(Fault.throttled(retry_after=asked))
    upstream = world.upstream(longest_pause=20)
    with pytest.raises(openai.RateLimitError):
        ask(world.client(upstream))
    ask(world.client(upstream))
    assert 20 <= world.clock.running() <= 21


@pytest.mark.parametrize(
    ("fault", "error", "count"),
    [
        (Fault.spent(), openai.RateLimitError, 1),
        (Fault.too_large(), openai.RateLimitError, 1),
        (Fault.not_in_plan(), openai.RateLimitError, 1),
        (Fault.too_long(), openai.BadRequestError, 1),
        (Fault.error(401), openai.AuthenticationError, 1),
        (Fault.error(404), openai.NotFoundError, 1),
        (Fault.error(409), openai.ConflictError, 3),
        (Fault.error(500), openai.InternalServerError, 3),
        (Fault.dropped(), openai.InternalServerError, 1),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_each_answer_is_asked_for_as_often_as_it_helps(world, fault, error, count):
    world.provider.always(fault)
    with pytest.raises(error) as raised:
        ask(world.client(world.upstream()))
    assert raised.value.response.headers["x-should-retry"] == "false"
    assert world.provider.count() == count


def test_a_connection_that_is_refused_becomes_a_503_and_costs_nothing(world):
    upstream = world.upstream(requests={"limit": "60 per minute", "burst": 60}, attempts=2)
    with world.provider.away(), pytest.raises(openai.InternalServerError) as raised:
        ask(world.client(upstream))
    assert raised.value.status_code == 503
    assert raised.value.body["code"] == "upstream_unreachable"
    assert world.provider.count() == 0
    assert left(upstream, "requests") == 60


def test_a_silent_upstream_is_not_asked_twice_unless_the_app_wants_it(world):
    world.provider.then(Fault.silent(), Fault.silent())
    client = world.client(world.upstream(), timeout=0.3)
    with pytest.raises(openai.InternalServerError) as raised:
        ask(client)
    assert raised.value.status_code == 504
    assert world.provider.count() == 1
    ask(world.client(world.upstream(retry_uncertain=True), timeout=0.3))
    assert world.provider.count() == 3


def test_a_stream_that_is_cut_is_not_asked_again_after_its_first_byte(world):
    world.provider.then(Fault.ok().cut(2))
    upstream = world.upstream(tokens={"limit": "10000 per minute", "burst": 10000})
    with heard("call_settled") as told, pytest.raises(openai.APIConnectionError):
        for _ in ask(world.client(upstream), stream=True):
            pass
    assert world.provider.count() == 1
    assert told[0][1]["whole"] is False


def test_one_deadline_and_one_number_hold_over_retries_and_fallbacks(world):
    world.provider.always(Fault.overloaded())
    second = world.upstream("second", base_url=world.provider.url)
    upstream = world.upstream(attempts=3, fallback=[second])
    with pytest.raises(openai.InternalServerError):
        ask(world.client(upstream))
    assert world.provider.count() == 3


def test_a_target_whose_limits_are_reached_is_passed_over(world):
    second = world.upstream(
        "second", base_url=world.provider.url, models={"m": "small"}, headers={"authorization": "Bearer s"}
    )
    upstream = world.upstream(requests={"limit": "1 per minute", "burst": 1}, fallback=[second])
    client = world.client(upstream)
    raw = [client.chat.completions.with_raw_response.create(model="m", messages=MESSAGES) for _ in range(2)]
    assert [each.headers["x-ailimit-upstream"] for each in raw] == ["main", "second"]
    assert [call.body["model"] for call in world.provider.calls] == ["m", "small"]
    assert world.clock.naps == []


def test_the_same_upstream_is_asked_again_after_a_rest_if_its_fallback_has_no_room(world, monkeypatch):
    monkeypatch.setattr("flask_ailimit.upstream.attempts._random", lambda: 1.0)
    second = world.upstream("second", requests={"limit": "1 per minute", "burst": 1}, base_url=world.provider.url)
    ask(world.client(second))
    world.provider.always(Fault.error(500))
    with pytest.raises(openai.InternalServerError):
        ask(world.client(world.upstream(attempts=4, fallback=[second])))
    assert world.provider.count(500) == 4
    assert len(world.clock.naps) == 3
    assert min(world.clock.naps) > 0


def test_a_fallback_that_failed_is_asked_again_after_a_rest(world, monkeypatch):
    monkeypatch.setattr("flask_ailimit.upstream.attempts._random", lambda: 1.0)
    second = world.upstream("second", base_url=world.provider.url)
    upstream = world.upstream(requests={"limit": "1 per minute", "burst": 1}, fallback=[second])
    client = world.client(upstream)
    ask(client)
    raw = client.chat.completions.with_raw_response
    for most in (60, 5):  # Its upstream has room in 60 s: in time, or not.
        world.provider.then(Fault.error(500))
        with upstream.calling(wait=most):
            assert raw.create(model="m", messages=MESSAGES).headers["x-ailimit-upstream"] == "second"
    assert len(world.clock.naps) == 2
    assert sum(world.clock.naps) == pytest.approx(1)


def test_a_call_goes_back_to_its_upstream_while_the_fallback_rests(world, monkeypatch):
    monkeypatch.setattr("flask_ailimit.upstream.attempts._random", lambda: 1.0)
    with FakeProvider() as broken:
        broken.always(Fault.error(500))
        second = world.upstream("second", base_url=broken.url)
        upstream = world.upstream(requests={"limit": "5 per second", "burst": 1}, fallback=[second])
        client = world.client(upstream)
        for _ in range(8):
            ask(client)
        assert broken.count() == 7
    assert world.provider.count(200) == 8


@pytest.mark.parametrize(("fault", "why"), [(Fault.error(500), "status 500"), (None, "no answer")])
def test_the_log_says_why_the_breaker_is_open(world, caplog, fault, why):
    client = world.client(world.upstream(attempts=1))
    away = world.provider.away() if fault is None else nullcontext()
    world.provider.always(fault or Fault.ok())
    with away:
        for _ in range(11):
            with pytest.raises(openai.APIError):
                ask(client)
    assert f"upstream main: the breaker of 'm' is open ({why})." in caplog.messages


def test_a_spent_account_falls_back_and_is_not_asked_again(world):
    world.provider.then(Fault.spent())
    second = world.upstream("second", base_url=world.provider.url)
    upstream = world.upstream(fallback=[second])
    client = world.client(upstream)
    assert (
        client.chat.completions.with_raw_response.create(model="m", messages=MESSAGES).headers["x-ailimit-upstream"]
        == "second"
    )
    ask(client)
    assert world.provider.count() == 3
    assert world.provider.count(429) == 1


def test_a_client_that_retries_by_itself_is_counted(world):
    upstream = world.upstream()
    client = world.http_client(upstream)
    statuses = [
        client.post(
            f"{world.provider.url}/chat/completions",
            json={"model": "m", "messages": MESSAGES},
            headers={"x-stainless-retry-count": "1"},
        ).status_code
        for _ in range(60)
    ]
    assert statuses == [200] * 50 + [429] * 10


def test_repeated_calls_carry_one_idempotency_key(world):
    world.provider.then(Fault.overloaded())
    ask(world.client(world.upstream(idempotency_header="Idempotency-Key")))
    ask(world.client(world.upstream(idempotency_header="Idempotency-Key")))
    keys = [call.headers["idempotency-key"] for call in world.provider.calls]
    assert keys[0] == keys[1] != keys[2]


def test_waiting_is_bounded_by_the_callers_own_time(world):
    upstream = world.upstream(requests={"limit": "1 per minute", "burst": 1})
    client = world.client(upstream)
    ask(client)
    with calling(wait=0), pytest.raises(openai.RateLimitError) as refused:
        ask(client)
    assert refused.value.body["code"] == "upstream_requests"
    assert 59 <= float(refused.value.response.headers["retry-after"]) <= 60
    with calling(wait=30), pytest.raises(openai.RateLimitError):
        ask(client)
    assert world.clock.running() < 1
    ask(client)
    assert 59 <= world.clock.running() <= 61


def test_a_call_that_is_too_late_for_its_inbound_request_is_not_sent(world):
    upstream = Upstream(world.engine, "main", requests={"limit": "1 per minute", "burst": 1})
    client = world.client(upstream)
    ask(client)
    with calling(within=30), calling(within=3000), pytest.raises(openai.RateLimitError):
        ask(client)


def test_limits_are_learnt_where_none_are_named():
    with a_world(limits={"requests": "10 per minute"}) as world:
        upstream = world.upstream()
        ask(world.client(upstream))
        assert [(quota.unit, quota.limit) for quota in upstream.group("m").quotas] == [("requests", 10)]


def test_limits_may_be_learnt_from_several_answers_at_once(world, monkeypatch):
    upstream = world.upstream()
    group, paced = upstream.group("m"), upstream.settings.paced

    def told(unit):
        return Told(limits={unit: 50}, remaining={}, resets={}, retry_after=None, periods={}, full_in={})

    def while_others_learn(settings, unit, limit, period):
        if unit == "requests":
            group.learn(told("tokens"))
        return paced(unit, limit, period)

    monkeypatch.setattr(type(upstream.settings), "paced", while_others_learn)
    group.learn(told("requests"))
    assert {quota.unit for quota in group.quotas} == {"requests", "tokens"}


def test_what_an_answer_tells_never_raises_a_limit():
    with a_world(limits={"requests": "1000 per minute"}) as world:
        upstream = world.upstream(requests="10 per minute")
        ask(world.client(upstream))
        assert [(quota.unit, quota.limit) for quota in upstream.group("m").quotas] == [("requests", 10)]


def test_groups_share_their_limits_and_other_models_have_their_own(world):
    upstream = world.upstream(requests={"limit": "1 per minute", "burst": 1}, groups={"small": ["*-mini", "*-nano"]})
    client = world.client(upstream)
    ask(client, model="a-mini")
    with calling(wait=0), pytest.raises(openai.RateLimitError):
        ask(client, model="b-nano")
    ask(client, model="large")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"requests": "many"}, "requests"),
        ({"tokens": {"limit": "1 per minute", "brust": 3}}, "tokens"),
        ({"concurrency": 0}, "concurrency"),
        ({"attempts": 0}, "attempts"),
        ({"max_wait": -1}, "max_wait"),
        ({"base_url": "openai.com"}, "base_url"),
        ({"base_url": "https:///v1"}, "base_url"),
        ({"base_url": "https://[::1/v1"}, "base_url"),
        ({"base_url": "https://openai.com:99999/v1"}, "base_url"),
        ({"base_url": "https://open ai.com/v1"}, "base_url"),
        ({"base_url": "https://openai.com/v1?api-version=1"}, "base_url"),
        ({"retires": 3}, "retires"),
        ({"fallback": ["second", "second"]}, "each once"),
        ({"fallback": ["main"]}, "other upstreams"),
    ],
)
def test_wrong_settings_are_refused_by_name(world, settings, words):
    with pytest.raises(ConfigurationError, match=words):
        world.upstream(**settings)


def test_a_fallback_without_an_address_is_refused(world):
    upstream = world.upstream(fallback=[Upstream(world.engine, "second")])
    with pytest.raises(ConfigurationError, match="base_url"):
        world.http_client(upstream).get(world.provider.url)


def test_a_batch_keeps_the_order_and_the_limits(world):
    with closing(Engine(open_store("memory://", name="batch", clock=system_clock, options={}))) as engine:
        upstream = Upstream(engine, "main", requests={"limit": "600 per minute", "burst": 1})
        client = world.client(upstream)
        answers = upstream.batch(
            lambda word: ask(client, messages=[{"role": "user", "content": word}]).choices[0].message.content,
            (f"word{number}" for number in range(20)),
            workers=4,
        )
    assert answers == [f"word{number}" for number in range(20)]
    first, *_, last = [call.at_us for call in world.provider.calls]
    assert last - first >= 1_850_000


def test_a_call_that_is_told_to_stop_waits_no_longer(world):
    upstream, stop = Upstream(world.engine, "main", requests={"limit": "1 per minute", "burst": 1}), threading.Event()
    client = world.client(upstream)
    ask(client)
    threading.Timer(0.2, stop.set).start()
    with calling(stop=stop), pytest.raises(openai.RateLimitError):
        ask(client)


def break_down(world, upstream):
    """Let the provider fail until the breaker is open."""
    world.provider.always(Fault.error(500))
    for _ in range(10):
        with pytest.raises(openai.InternalServerError):
            ask(world.client(upstream))


def test_an_open_breaker_answers_at_once_unless_the_caller_says_how_long_it_waits(world):
    upstream = world.upstream(attempts=1)
    break_down(world, upstream)
    before = world.provider.count()
    with pytest.raises(openai.InternalServerError) as refused:
        ask(world.client(upstream))
    assert refused.value.body["code"] == "upstream_open"
    assert world.provider.count() == before
    world.provider.always(Fault.ok())
    with calling(wait=30):
        ask(world.client(upstream))
    assert 1 <= world.clock.running() <= 3


def test_a_breaker_is_told_by_signals(world):
    upstream = world.upstream(attempts=1)
    with heard("breaker_changed") as told:
        break_down(world, upstream)
        with pytest.raises(openai.InternalServerError):
            ask(world.client(upstream))
        world.provider.always(Fault.ok())
        world.clock.pause(1)
        ask(world.client(upstream))
        ask(world.client(upstream))
    assert [facts["state"] for _, facts in told] == ["open", "half-open", "closed"]


def test_who_probes_is_in_the_log_and_what_it_is_called_there_is_told_by_the_gate(world, caplog):
    upstream = world.upstream(attempts=1)
    break_down(world, upstream)
    world.clock.pause(1)
    place, asked = Place(is_batch=False), Asked("m", Usage())
    group = upstream.group("m")
    probe = group.probe_of(group.reserve(asked, place))
    upstream.let_through(group, probe)
    assert f"process {os.getpid()} tries, as probe {probe:x}." in caplog.text
    (gate,) = upstream.peek([group.gate])
    assert standing_of(gate.remaining) == Standing(HALF_OPEN, 500, probe)
    assert not group.probe_of(world.upstream("other").group("m").reserve(asked, place))


def test_signals_are_lines_of_a_log_with_their_facts_as_attributes(world, caplog):
    caplog.set_level(logging.INFO, "flask_ailimit.upstream")
    ask(world.client(world.upstream()))
    (record,) = [each for each in caplog.records if each.name == "flask_ailimit.upstream"]
    assert record.getMessage().startswith("call-settled upstream=main group='m' seconds=0.0 model='m' usage=")
    assert (record.upstream, record.source, record.whole) == ("main", "reported", True)


def test_calls_go_on_as_soon_as_the_answer_to_the_probe_has_begun(world):
    upstream = world.upstream(attempts=1, concurrency=5)
    break_down(world, upstream)
    world.provider.always(Fault.ok())
    world.clock.pause(1)
    with ask(world.client(upstream), stream=True) as stream:
        next(iter(stream))
        assert ask(world.client(upstream)).choices[0].message.content == "one two three"
        assert left(upstream, "concurrency") == 4
    assert left(upstream, "concurrency") == 5


@pytest.mark.parametrize("error", [RuntimeError("Event loop is closed"), OverflowError("too large")])
def test_what_the_app_itself_raises_is_no_fault_of_the_upstream(world, error):
    def failing(request):
        raise error

    upstream = world.upstream(attempts=1)
    with httpx2.Client(transport=upstream.transport(httpx2.MockTransport(failing))) as client:
        for _ in range(20):
            assert client.post("http://p/v1/chat/completions", json={"model": "m"}).status_code == 504
    ask(world.client(upstream))


def test_nobody_waits_for_an_account_that_has_nothing_left(world):
    world.provider.then(Fault.spent())
    upstream = world.upstream()
    for code in ("insufficient_quota", "upstream_spent"):
        with pytest.raises(openai.RateLimitError) as refused:
            ask(world.client(upstream))
        assert refused.value.body["code"] == code
    assert world.provider.count() == 1
    assert world.clock.naps == []
    world.clock.pause(60)
    ask(world.client(upstream))


def test_inner_blocks_take_over_what_they_do_not_say():
    with calling(wait=5, tenant="acme"), calling(batch=True):
        assert (calling_now().wait, calling_now().tenant, calling_now().is_batch) == (5, "acme", True)


@pytest.mark.parametrize("first", [Fault.spent(), Fault.throttled(retry_after=50)], ids=["spent", "paused"])
def test_a_call_waits_for_the_target_that_has_room_soonest(world, first):
    world.provider.then(first)
    second = world.upstream("second", requests={"limit": "60 per minute", "burst": 1}, base_url=world.provider.url)
    raw = world.client(world.upstream(fallback=[second])).chat.completions.with_raw_response
    for seconds in (0, 1, 2):
        assert raw.create(model="m", messages=MESSAGES).headers["x-ailimit-upstream"] == "second"
        assert seconds <= world.clock.running() <= seconds + 0.5
