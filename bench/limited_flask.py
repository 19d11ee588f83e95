"""The same small Flask app with nothing, with Flask-Limiter, with throttled-py's extension, and with AILimiter.

All have ``/predict``, which answers at once, and ``/model``, which first waits for 20 ms as a view does that asks a
small model. Nobody is refused: a refusal is cheaper. A limiter is imported by the app that has it, so that no worker
keeps another one in memory.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from importlib.util import find_spec
from typing import Any

from flask import Flask, request
from requests_to import environs

REQUESTS = ((10**9, "minute"), (10**10, "hour"), (10**11, "day"))
TOKENS = ((3 * 10**7, "minute"), (10**10, "day"))
IN_FLIGHT = 1000
DIALECTS = ("x-ratelimit", "openai", "ietf", "anthropic")
MODEL_TAKES = 0.02
SECONDS = {"minute": 60, "hour": 3600, "day": 86400}

View = Callable[[], Any]
Decorate = Callable[[View], View]
Limits = Sequence[tuple[int, str]]


def _small() -> dict[str, Any]:
    return {"ok": True}


def _completion() -> dict[str, Any]:
    request.get_json()  # A view that asks a model reads what for, with limits or without.
    usage = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
    return {"choices": [{"message": {"role": "assistant", "content": "Hello."}}], "usage": usage}


def _after_waiting(answer: View) -> dict[str, Any]:
    time.sleep(MODEL_TAKES)
    return answer()


def user() -> str:
    """Who sent the request: the same function for every limiter."""
    return request.headers["Authorization"]


def _serve(app: Flask, answer: View = _small, *decorators: Decorate) -> Flask:
    for path, view in (("predict", answer), ("model", partial(_after_waiting, answer))):
        limited = _named(path, view)
        for decorate in reversed(decorators):
            limited = decorate(limited)
        app.post(f"/{path}")(limited)
    return app


def _named(name: str, view: View) -> View:
    def call() -> Any:
        return view()

    call.__name__ = call.__qualname__ = name
    return call


def store_options(uri: str, prefix: str = "ailimit") -> dict[str, Any]:
    """On a busy machine nobody is to be timed out, and the peers have no time-out."""
    return {"timeout": 3, "prefix": prefix} if uri.startswith("redis") else {}


def _secret(app: Flask) -> str:
    """One for each app, so that two that share a local store don't share their counts. In Redis each has a prefix."""
    return app.name.ljust(32, "-")


def _text(limits: Limits) -> str:
    return ";".join(f"{limit} per {period}" for limit, period in limits)


def bare() -> Flask:
    """No limits, a small answer."""
    return _serve(Flask("bare"))


def bare_completion() -> Flask:
    """No limits, and the answer of a model: what the whole job answers."""
    return _serve(Flask("bare_completion"), _completion)


def flask_limiters(uri: str, limits: Limits = REQUESTS) -> Flask:
    """Flask-Limiter with its default strategy, fixed windows, which is its cheapest, and its headers on."""
    import flask_limiter  # noqa: PLC0415

    app = Flask("flask_limiters")
    limiter = flask_limiter.Limiter(
        user, app=app, storage_uri=uri, headers_enabled=True, strategy="fixed-window", swallow_errors=False
    )
    return _serve(app, _small, limiter.limit(_text(limits)))


def throttleds(uri: str, limits: Limits = REQUESTS) -> Flask:
    """throttled-py's extension for Flask: one decorator for each limit, fixed windows, headers always on."""
    from throttled import per_duration  # noqa: PLC0415  it may not be installed
    from throttled.contrib.flask import Limiter  # noqa: PLC0415
    from throttled.store import MemoryStore, RedisStore  # noqa: PLC0415

    app = Flask("throttleds")
    quotas = [per_duration(timedelta(seconds=SECONDS[period]), limit=limit) for limit, period in limits]
    store = RedisStore(server=uri) if uri.startswith("redis") else MemoryStore(options={"MAX_SIZE": 100_000})
    limiter = Limiter(quotas[0], app=app, store=store, using="fixed_window", key_func=user)
    return _serve(app, _small, *map(limiter.limit, quotas))


def _ailimiter(app: Flask, uri: str, dialects: Sequence[str]) -> Any:
    from flask_ailimit import AILimiter  # noqa: PLC0415

    return AILimiter(
        user,
        app=app,
        storage_uri=uri,
        storage_options=store_options(uri, app.name),
        secret=_secret(app),
        on_store_error="deny",
        headers=list(dialects),
    )


def ailimiters(uri: str, limits: Limits = REQUESTS, dialects: Sequence[str] = DIALECTS[:1]) -> Flask:
    """AILimiter with the same request limits, and the headers that Flask-Limiter has too."""
    app = Flask(f"ailimiters_{len(dialects)}")
    limiter = _ailimiter(app, uri, dialects)
    return _serve(app, _small, limiter.limit(_text(limits)))


def ailimiters_usual(uri: str, limits: Limits = REQUESTS) -> Flask:
    """The same with its default headers, which are three dialects."""
    return ailimiters(uri, limits, DIALECTS[:3])


def ailimiters_whole(uri: str, requests: Limits = REQUESTS, tokens: Limits = TOKENS) -> Flask:
    """The whole job: requests, tokens and calls in flight, with every dialect of headers."""
    app = Flask("ailimiters_whole")
    limiter = _ailimiter(app, uri, DIALECTS)
    charged = [limiter.limit_tokens(f"{limit} per {period}") for limit, period in tokens]
    return _serve(app, _completion, limiter.limit(_text(requests)), *charged, limiter.limit_concurrency(IN_FLIGHT))


PLANS = {
    "plans": {
        "pro": {
            "requests": _text(REQUESTS[:2]),
            "tokens": _text(TOKENS[:1]),
            "concurrency": IN_FLIGHT,
            "models": {"m*": {"tokens": _text(TOKENS[:1])}, "*": True},
        },
        "team": {"requests": _text(REQUESTS[:1]), "tokens": _text(TOKENS[:1])},
    },
    "service": {"concurrency": IN_FLIGHT},
}
"""Eight limits of three payers: five of the user, two of its organisation, one of everybody."""


def ailimiters_by_plan(uri: str) -> Flask:
    """AILimiter with eight limits of plans over three payers, and its default headers."""
    return _by_plan("ailimiters_by_plan", uri, PLANS, organisation="9")[0]


def _by_plan(name: str, uri: str, plans: Mapping[str, Any], organisation: str | None = None) -> tuple[Flask, Any]:
    """An app whose users have the plan ``pro``, and an organisation, if they have one, ``team``; and its limiter."""
    from flask_ailimit import AILimiter, Caller, Payer  # noqa: PLC0415

    # Where the bench keeps its counts, changes of plans would not survive: nobody makes any.
    logging.getLogger("flask_ailimit").setLevel(logging.ERROR)
    app = Flask(name)
    options = {"storage_uri": uri, "storage_options": store_options(uri, app.name), "secret": _secret(app)}
    options |= {"on_store_error": "deny", "headers": list(DIALECTS[:3]), "accept_money_loss": True}
    limiter = AILimiter(app=app, plans=plans, **options)
    team = None if organisation is None else Payer(organisation, plan="team")
    limiter.identify(lambda: Caller(user=Payer(user(), plan="pro"), organisation=team))
    return _serve(app, _completion, limiter.limit_by_plan()), limiter


def _with_budget(budget: str) -> dict[str, Any]:
    """The plan without a budget, and beside its limits this one."""
    plans = {"pro": {**WITHOUT_BUDGET["plans"]["pro"], "budget": budget}}
    return {"plans": plans, "prices": {"m*": {"input": "2.50 USD", "output": "10 USD"}}}


WITHOUT_BUDGET = {
    "plans": {"pro": {"requests": _text(REQUESTS[:2]), "tokens": _text(TOKENS[:1]), "concurrency": IN_FLIGHT}}
}
CREDIT = "1000000 USD"


def ailimiters_without_budget(uri: str) -> Flask:
    """AILimiter with four limits of a plan, and its default headers."""
    return _by_plan("ailimiters_without_budget", uri, WITHOUT_BUDGET)[0]


def ailimiters_with_budget(uri: str) -> Flask:
    """The same with a budget besides: a price is found, money reserved and settled, and one header more is written."""
    return _by_plan("ailimiters_with_budget", uri, _with_budget(f"{CREDIT} per calendar month"))[0]


def ailimiters_on_credit(uri: str) -> Flask:
    """The same, where each request is paid by credit, because the budget gives nothing."""
    app, limiter = _by_plan("ailimiters_on_credit", uri, _with_budget("0 USD per calendar month"))
    with app.app_context():
        for environ in environs():
            limiter.admin.credit(f"user:{environ['HTTP_AUTHORIZATION']}", CREDIT, reason="to be measured", by="bench")
    return app


def close(app: Flask) -> None:
    """End what runs for an app beside its requests: else it says that its server has gone."""
    for limiter in app.extensions.get("limiter", ()):
        if hasattr(limiter, "engine"):
            with app.app_context():
                limiter.engine.close()


def ailimiters_like_a_plan(uri: str) -> Flask:
    """The same eight limits as decorators, each with the key function of its payer and a scope of its own."""
    app = Flask("ailimiters_like_a_plan")
    limiter = _ailimiter(app, uri, DIALECTS[:3])
    organisation, everybody = partial(str, "9"), partial(str, "everybody")
    requests, tokens = _text(REQUESTS[:2]), _text(TOKENS[:1])
    return _serve(
        app,
        _completion,
        limiter.shared_limit(requests, "plan"),
        limiter.limit_tokens(tokens, shared=True, scope="plan"),
        limiter.limit_concurrency(IN_FLIGHT, shared=True, scope="plan"),
        limiter.limit_tokens(tokens, shared=True, scope="plan/models/m*"),
        limiter.shared_limit(_text(REQUESTS[:1]), "organisation", key_func=organisation, in_headers=False),
        limiter.limit_tokens(tokens, shared=True, scope="organisation", key_func=organisation, in_headers=False),
        limiter.limit_concurrency(IN_FLIGHT, shared=True, scope="service", key_func=everybody, in_headers=False),
    )


def installed(name: str) -> bool:
    """Whether there is such a package."""
    return find_spec(name) is not None
