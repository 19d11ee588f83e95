"""Never run: mypy --strict reads this file as a user's program, and so tests what the annotations promise."""

from socket import socket
from typing import assert_type

import flask
from flask import Blueprint, Flask, Response
from flask_limiter import RequestLimit

from flask_ailimit import (
    UNLIMITED,
    AILimiter,
    Caller,
    ConcurrencyLimit,
    Decision,
    LimiterUnavailable,
    Payer,
    QuotaExceeded,
    TokenLimit,
    Usage,
    Verdict,
    api_key,
    api_key_in,
    remote_address,
)
from flask_ailimit.engine import Charge, Engine, Quota, Reservation, open_store, parse_quotas
from flask_ailimit.tokens import TokenCounter, exact_counter
from flask_ailimit.unlimited import Unlimited

app = Flask(__name__)
limiter = AILimiter(
    api_key,
    app=app,
    default_limits=["60 per minute", lambda: "100 per hour"],
    default_token_limits=["100000 per minute", lambda: "5 per day"],
    storage_uri="local://",
    headers=["openai"],
)
AILimiter(remote_address).init_app(app)
AILimiter(api_key_in("x-api-key")).init_app(app)


def plan() -> str:
    return "1000 per minute"


def asked(request: flask.Request) -> int:
    return request.content_length or 1


def used(request: flask.Request) -> Usage:
    return Usage(input_tokens=request.content_length or 1, output_tokens=1)


def on_breach(limit: RequestLimit) -> Response | None:
    return None


def plan_or_none() -> str | Unlimited:
    return plan() if app.debug else UNLIMITED


# A decorated view keeps its signature.
@app.post("/<int:number>")
@limiter.limit("20 per minute")
@limiter.limit_tokens(plan, unit="output_tokens", estimate=asked, on_breach=on_breach)
@limiter.limit_tokens("10 per minute", estimate=used, burst=20, key_func=remote_address, scope="x", methods=["POST"])
@limiter.limit(plan_or_none)
@limiter.limit_tokens(UNLIMITED)
@limiter.limit_concurrency(lambda: UNLIMITED)
@limiter.limit_concurrency(4, lease=30, name="slots", in_headers=False)
@limiter.limit("5 per second", name="calls", in_headers=False)
@limiter.limit_units("pages", "10 per day", cost=lambda: 2, name="pages", burst=5)
@limiter.limit_tokens("10 per minute", default_output_tokens=0)
@limiter.metering(default_output_tokens=0)
def view(number: int, *, text: str = "") -> tuple[str, int]:
    limiter.record_usage(input_tokens=number, output_tokens=1, cached_input_tokens=0, units={"pages": 3})
    return text, 200


assert_type(view(1, text="a"), tuple[str, int])
view("1")  # type: ignore[arg-type]
view(1, other=2)  # type: ignore[call-arg]


@limiter.limit_concurrency(lambda: 4)
async def answer(prompt: str) -> bytes:
    with limiter.limit_tokens("10 per minute"):
        return prompt.encode()


async def ask() -> None:
    assert_type(await answer("a"), bytes)


limiter.limit_tokens("10 per minute")(Blueprint("v1", __name__))

upstream = limiter.upstream("openai-main", requests="500 per minute")


@upstream.needed
def needing() -> str:
    upstream.require_room(100, model="gpt-5", wait=5)
    return "there was room"


@upstream.needed(model="gpt-5")
def needing_a_model(number: int) -> int:
    return number


assert_type(needing(), str)
assert_type(needing_a_model(1), int)
assert_type(upstream.refusal(ValueError()).request_id, str)

by_plan = AILimiter(plans={"plans": {"free": {"requests": "10 per minute"}}}, told_roles=["organisation"])


@by_plan.identify
def who() -> Caller:
    return Caller(user=Payer(7, plan="free", label="Ann"), organisation=None)


@by_plan.limit_by_plan()
def planned(prompt: str) -> bytes:
    return prompt.encode()


assert_type(who(), Caller)
assert_type(planned("a"), bytes)
by_plan.limit_by_plan()(Blueprint("v2", __name__))

TokenLimit("10 per minute", name="plan")
TokenLimit(plan_or_none)
ConcurrencyLimit(4, lease=30)


@exact_counter
def count(text: str) -> int:
    return len(text)


assert_type(count, TokenCounter)
assert_type(count.exact, bool)

# What is wrong is refused by the type checker too.
TokenLimit(10)  # type: ignore[arg-type]
ConcurrencyLimit("4")  # type: ignore[arg-type]
limiter.limit_units("pages", 10)  # type: ignore[arg-type]
limiter.limit_tokens("10 per minute", name=3)  # type: ignore[arg-type]
limiter.limit_tokens(10)  # type: ignore[arg-type]
limiter.limit(lambda: None)  # type: ignore[arg-type,return-value]
limiter.limit_concurrency("4")  # type: ignore[arg-type]
limiter.limit("1 per minute", tokens=1)  # type: ignore[call-arg]
limiter.record_usage(1, 2)  # type: ignore[call-arg, arg-type]
limiter.nothing  # type: ignore[attr-defined]  # noqa: B018

assert_type(limiter.decision, Decision | None)
left: Decision = limiter.peek("view", limiter.subject("alice"), key_func=remote_address)
assert_type(limiter.peek("view", "alice").uncertain[0].text, str)
assert_type(limiter.engine, Engine)
assert_type(limiter.client_gone.is_set(), bool)
assert_type(limiter.client_gone.wait(0.5), bool)
assert_type(limiter.client_gone.closes(socket()), socket)
limiter.client_gone.call(lambda: None)
limiter.client_gone.call(5)  # type: ignore[arg-type]


@app.errorhandler(QuotaExceeded)
def refused(error: QuotaExceeded) -> Response:
    assert_type(error.decision.binding, Verdict | None)
    assert_type(error.decision.retry_after, float | None)
    return Response(str(error.decision.refused[0].charge.quota.text), error.code)


@app.errorhandler(LimiterUnavailable)
def unavailable(error: LimiterUnavailable) -> tuple[str, int]:
    return error.request_id, 503


engine = Engine(open_store("memory://", name="worker"))
reservation = engine.reserve([Charge(engine.subject("user-1"), quota) for quota in parse_quotas("10 per minute")])
assert_type(reservation, Reservation)
assert_type(reservation.settle({"tokens": 1}), bool)
Quota(1.5, 60)  # type: ignore[arg-type]
