"""Retries with the real tenacity and stamina, of calls of the real SDKs, on a clock that nobody waits for."""

import asyncio
import time
from threading import Thread

import httpx
import httpx2
import openai
import pytest
import stamina
import tenacity
from hypothesis import given
from hypothesis import strategies as st
from sdk_calls import NAMES, answering, call, raising

from flask_ailimit.upstream.retrying import (
    LONGEST_WAIT,
    Attempts,
    backoff,
    retry_if_worthwhile,
    stamina_hook,
    stop_after_budget,
    wait_as_told,
)

SDK = pytest.mark.parametrize("sdk", NAMES)
SECONDS = st.floats(0, 1e9)
PART = st.floats(0, 1, exclude_max=True)


class Allowance:
    """A budget of so many retries."""

    def __init__(self, left):
        self.left = left

    def may_retry(self):
        self.left -= 1
        return self.left >= 0


class Provider:
    """Gives these answers in turn, and the last one from then on."""

    def __init__(self, *handlers):
        self.handlers = list(handlers)
        self.calls = 0

    def __call__(self, request):
        self.calls += 1
        return self.handlers[min(self.calls, len(self.handlers)) - 1](request)


CHAT = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": []}
GOOD = answering(200, CHAT)
TOLD = answering(429, retry_after_ms="2000")
SPENT = answering(429, {"error": {"type": "insufficient_quota", "code": "insufficient_quota"}})
BROKEN = answering(500)


@pytest.fixture
def slept(monkeypatch):
    """The seconds that anybody sleeps, which don't pass."""
    slept = []

    async def no_sleep(seconds):
        slept.append(seconds)

    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(asyncio, "sleep", no_sleep)
    return slept


# The arithmetic


@given(st.integers(1, 10**9), SECONDS.filter(bool), PART, st.floats(0.1, 1e6))
def test_who_was_told_never_comes_earlier_and_nobody_waits_longer_than_the_cap(attempt, told, part, cap):
    wait = backoff(attempt, told, lambda: part, cap=cap)
    assert min(told, cap) <= wait <= cap
    assert wait <= told + max(told / 10, 0.25)


@given(st.integers(1, 10**9), st.none() | st.just(0.0), PART)
def test_who_was_told_nothing_waits_less_than_the_step_of_the_attempt(attempt, told, part):
    most = min(8.0, 0.5 * 2 ** min(attempt - 1, 10))
    assert backoff(attempt, told, lambda: part) == part * most


def test_those_who_were_told_the_same_come_back_spread_over_a_tenth_of_it():
    waits = [backoff(1, 30.0, lambda part=i / 100: part) for i in range(100)]
    assert (min(waits), max(waits)) == (30.0, 32.97)
    assert len(set(waits)) == 100


# tenacity


def retrying(slept, *, attempts=3, **options):
    return tenacity.Retrying(
        retry=retry_if_worthwhile(),
        wait=wait_as_told(),
        stop=tenacity.stop_after_attempt(attempts),
        sleep=slept.append,
        reraise=True,
    ).copy(**options)


@SDK
def test_tenacity_waits_as_an_sdk_s_exception_tells(sdk, slept):
    provider = Provider(TOLD, TOLD, TOLD)
    with pytest.raises(Exception, match="429"):
        retrying(slept)(call, sdk, provider)
    assert provider.calls == 3
    assert len(slept) == 2
    assert all(2 <= seconds <= 2.25 for seconds in slept)


def test_tenacity_ends_with_the_first_good_answer(slept):
    provider = Provider(TOLD, BROKEN, GOOD)
    assert retrying(slept)(call, "openai", provider).id == "c"
    assert (provider.calls, len(slept)) == (3, 2)
    assert 2 <= slept[0] <= 2.25
    assert 0 <= slept[1] < 1


@SDK
@pytest.mark.parametrize(
    "handler",
    [
        pytest.param(SPENT, id="spent"),
        pytest.param(answering(400), id="bad request"),
        pytest.param(answering(401), id="key"),
        pytest.param(answering(429, retry_after="259200"), id="three days"),
        pytest.param(answering(529, x_should_retry="false"), id="asked not to"),
        pytest.param(raising(httpx2.ReadTimeout("x")), id="perhaps answered"),
        pytest.param(raising(httpx2.RemoteProtocolError("x")), id="perhaps answered, too"),
    ],
)
def test_what_is_not_worth_a_retry_is_asked_once(sdk, handler, slept):
    provider = Provider(handler)
    with pytest.raises(Exception, match=r".*"):
        retrying(slept)(call, sdk, provider)
    assert (provider.calls, slept) == (1, [])


@SDK
@pytest.mark.parametrize("error", [httpx2.ConnectError("x"), httpx2.ConnectTimeout("x"), httpx2.PoolTimeout("x")])
def test_what_was_not_sent_is_sent_again(sdk, error, slept):
    provider = Provider(raising(error))
    with pytest.raises(Exception, match=r".*"):
        retrying(slept)(call, sdk, provider)
    assert provider.calls == 3


def test_what_is_uncertain_is_sent_again_when_asked_for(slept):
    provider = Provider(raising(httpx2.ReadTimeout("x")), GOOD)
    assert retrying(slept, retry=retry_if_worthwhile(uncertain=True))(call, "openai", provider).id == "c"


def test_error_of_the_app_itself_is_not_retried(slept):
    with pytest.raises(ZeroDivisionError):
        retrying(slept)(lambda: 1 / 0)
    assert slept == []


@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
def test_response_that_nobody_raised_is_retried(library, slept):
    answers = iter([library.Response(429, headers={"retry-after": "7"}), library.Response(200)])
    assert retrying(slept)(lambda: next(answers)).status_code == 200
    assert 7 <= slept[0] <= 7.7


def test_result_that_is_no_response_ends_the_call(slept):
    assert retrying(slept)(lambda: "text") == "text"


def test_wait_without_our_retry_is_capped_all_the_same(slept):
    provider = Provider(answering(429, retry_after="259200"))
    with pytest.raises(openai.RateLimitError):
        retrying(slept, retry=tenacity.retry_if_exception_type())(call, "openai", provider)
    assert slept == [LONGEST_WAIT] * 2


def test_budget_that_is_used_up_stops_the_call(slept):
    budget = Allowance(1)
    provider = Provider(BROKEN)
    stop = tenacity.stop_after_attempt(9) | stop_after_budget(budget)
    with pytest.raises(openai.InternalServerError):
        retrying(slept, stop=stop)(call, "openai", provider)
    assert (provider.calls, budget.left) == (2, -1)


def test_budget_is_asked_neither_after_good_answers_nor_after_the_last_attempt(slept):
    budget = Allowance(9)
    stop = tenacity.stop_after_attempt(2) | stop_after_budget(budget)
    with pytest.raises(openai.InternalServerError):
        retrying(slept, stop=stop)(call, "openai", Provider(BROKEN))
    retrying(slept, stop=stop)(call, "openai", Provider(GOOD))
    with pytest.raises(openai.BadRequestError):
        retrying(slept, stop=stop)(call, "openai", Provider(answering(400)))
    assert budget.left == 8


def test_pieces_join_with_tenacity_s_own(slept):
    provider = Provider(TOLD)
    with pytest.raises(openai.RateLimitError):
        retrying(
            slept,
            wait=wait_as_told() + tenacity.wait_fixed(100),
            retry=retry_if_worthwhile() | tenacity.retry_if_exception_type(KeyError),
            stop=tenacity.stop_before_delay(101),
        )(call, "openai", provider)
    assert (provider.calls, slept) == (1, [])


def test_async_functions_wait_as_told(slept):
    provider = Provider(TOLD, GOOD)

    @tenacity.retry(retry=retry_if_worthwhile(), wait=wait_as_told(), stop=tenacity.stop_after_attempt(3))
    async def ask():
        return call("openai", provider)

    assert asyncio.run(ask()).id == "c"
    assert 2 <= slept[0] <= 2.25


# The attempts of our own transport


def made(controller, provider, sleep):
    """As our transport makes them."""
    attempts = Attempts(controller)
    while True:
        try:
            answer = call("openai", provider)
        except Exception as error:
            rest = attempts.rest_after_error(error)
            if rest is None:
                raise
        else:
            rest = attempts.rest_after(answer)
            if rest is None:
                return answer, attempts.number
        sleep(rest)


@pytest.mark.parametrize("reraise", [True, False])
def test_attempts_end_with_the_answer_or_the_very_error(slept, reraise):
    controller = retrying(slept, reraise=reraise)
    assert made(controller, Provider(TOLD, BROKEN, GOOD), slept.append)[1] == 3
    assert 2 <= slept[0] <= 2.25
    provider = Provider(TOLD)
    with pytest.raises(openai.RateLimitError):
        made(controller, provider, slept.append)
    assert provider.calls == 3
    with pytest.raises(openai.BadRequestError):
        made(controller, Provider(answering(400)), slept.append)


def test_attempts_end_with_the_last_response_where_nobody_raises(slept):
    attempts = Attempts(retrying(slept))
    assert attempts.rest_after(httpx2.Response(503)) is not None
    assert attempts.rest_after(httpx2.Response(503)) is not None
    assert attempts.rest_after(httpx2.Response(503)) is None
    assert slept == []  # Whoever makes them rests.


def test_attempts_ask_the_controller_s_own_callbacks(slept):
    told = []
    controller = retrying(
        slept,
        before=lambda state: told.append("before"),
        after=lambda state: told.append("after"),
        before_sleep=lambda state: told.append(state.next_action.sleep),
        retry_error_callback=lambda state: told.append("over"),
        wait=tenacity.wait_fixed(3),
        stop=tenacity.stop_after_attempt(2),
    )
    attempts = Attempts(controller)
    assert [attempts.rest_after(httpx2.Response(503)), attempts.rest_after(httpx2.Response(503))] == [3, None]
    assert told == ["before", "after", 3, "after", "over"]


def test_mistake_in_a_callback_is_not_taken_for_the_call_s_own_error(slept):
    attempts = Attempts(retrying(slept, wait=lambda state: 1 / 0))
    with pytest.raises(ZeroDivisionError):
        attempts.rest_after_error(httpx2.ConnectError("x"))


def test_many_calls_at_once_share_a_controller_and_nothing_else(slept):
    """Attempts copy it: tenacity keeps the state of a call in its controller."""
    controller = retrying(slept, attempts=4)
    calls = {name: Attempts(controller) for name in range(20)}
    for _ in range(3):
        assert all(attempts.rest_after(httpx2.Response(503)) is not None for attempts in calls.values())
    assert {attempts.number for attempts in calls.values()} == {4}
    assert all(attempts.rest_after(httpx2.Response(503)) is None for attempts in calls.values())


def test_async_calls_at_once_each_make_their_own_attempts():
    controller = retrying([], attempts=3)

    async def ask(answers):
        attempts = Attempts(controller)
        for answer in answers:
            if attempts.rest_after(answer) is None:
                return attempts.number
            await asyncio.sleep(0)
        raise AssertionError

    async def ask_all():
        bad, good = httpx2.Response(503), httpx2.Response(200)
        return await asyncio.gather(*(ask([bad] * (i % 3) + [good] * 3) for i in range(30)))

    assert asyncio.run(ask_all()) == [1, 2, 3] * 10


def test_call_may_go_on_in_another_thread(slept):
    attempts = Attempts(retrying(slept))
    rests = []
    for _ in range(3):
        thread = Thread(target=lambda: rests.append(attempts.rest_after(httpx2.Response(503))))
        thread.start()
        thread.join()
    assert [rest is None for rest in rests] == [False, False, True]


# stamina


@SDK
def test_stamina_waits_exactly_what_the_hook_says(sdk, slept):
    provider = Provider(TOLD, GOOD if sdk == "openai" else answering(200, {"type": "message", "content": []}))

    @stamina.retry(on=stamina_hook, attempts=3)
    def ask():
        return call(sdk, provider)

    assert ask() is not None
    assert provider.calls == 2
    assert len(slept) == 1
    assert 2 <= slept[0] <= 2.25


def test_stamina_s_own_wait_holds_where_nothing_is_told(slept):
    provider = Provider(BROKEN)

    @stamina.retry(on=stamina_hook, attempts=3, wait_initial=0.5, wait_jitter=0, wait_max=9)
    def ask():
        return call("openai", provider)

    with pytest.raises(openai.InternalServerError):
        ask()
    assert slept == [0.5, 1.0]


@pytest.mark.parametrize("handler", [SPENT, answering(429, retry_after="259200"), raising(httpx2.ReadTimeout("x"))])
def test_stamina_does_not_retry_what_is_not_worth_it(handler, slept):
    provider = Provider(handler)

    @stamina.retry(on=stamina_hook, attempts=3)
    def ask():
        return call("openai", provider)

    with pytest.raises(openai.APIError):
        ask()
    assert (provider.calls, slept) == (1, [])


def test_stamina_s_async_functions_wait_as_told(slept):
    provider = Provider(TOLD, GOOD)

    @stamina.retry(on=stamina_hook, attempts=3)
    async def ask():
        return call("openai", provider)

    assert asyncio.run(ask()).id == "c"
    assert 2 <= slept[0] <= 2.25


def test_stamina_s_context_waits_as_told(slept):
    provider = Provider(TOLD, GOOD)
    for attempt in stamina.retry_context(on=stamina_hook, attempts=3):
        with attempt:
            answer = call("openai", provider)
    assert answer.id == "c"
    assert 2 <= slept[0] <= 2.25
