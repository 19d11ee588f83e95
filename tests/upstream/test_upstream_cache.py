import threading

import flask
import openai
import pytest
from upstream_calls import MESSAGES, World, a_world, ask, heard, left

from flask_ailimit import AILimiter, api_key
from flask_ailimit.testing import Fault
from flask_ailimit.upstream.calling import calling

pytestmark = pytest.mark.server


@pytest.fixture
def world():
    with a_world() as world:
        yield world


@pytest.fixture
def upstream(world, tmp_path):
    return world.upstream(tokens={"limit": "10000 per minute", "burst": 10000}, cache={"path": tmp_path / "answers.db"})


def same(client, **options):
    return ask(client, temperature=0, **options)


def test_the_same_deterministic_call_is_asked_once(world, upstream):
    client = world.client(upstream)
    first, second = same(client), same(client)
    assert first == second
    assert world.provider.count() == 1
    raw = client.chat.completions.with_raw_response.create(model="m", messages=MESSAGES, max_tokens=20, temperature=0)
    assert raw.headers["x-ailimit-cache"] == "hit"


def test_a_hit_uses_nothing_of_the_upstream(world, upstream):
    client, tally = world.client(upstream), []
    same(client)
    before = left(upstream, "tokens")
    with calling(tally=lambda *told: tally.append(told)), heard("cache_looked") as told:
        same(client)
    assert left(upstream, "tokens") == before
    assert [usage.total_tokens for _, _, usage in tally] == [0]
    assert [facts["hit"] for _, facts in told] == [True]


def test_a_tally_that_raises_changes_nothing_for_a_hit(world, upstream, caplog):
    def tally(name, model, usage):
        raise ValueError("one two three")

    client = world.client(upstream)
    with calling(tally=tally):
        assert same(client) == same(client)
    assert [record.message for record in caplog.records] == ["A tally of calls raised ValueError."] * 2


def test_streams_are_kept_and_given_out_as_streams(world, upstream):
    client = world.client(upstream)
    answers = [
        "".join(chunk.choices[0].delta.content or "" for chunk in same(client, stream=True) if chunk.choices)
        for _ in range(2)
    ]
    assert answers == ["one two three"] * 2
    assert world.provider.count() == 1


def test_calls_that_do_not_ask_for_the_same_answer_are_not_kept(world, upstream):
    client = world.client(upstream)
    ask(client)
    ask(client)
    assert world.provider.count() == 2


def test_no_tenant_gets_what_another_one_has_asked(world, upstream):
    client = world.client(upstream)
    for tenant in ("a", "b", "a"):
        with calling(tenant=tenant):
            same(client)
    assert world.provider.count() == 2


def test_a_broken_answer_is_not_kept(world, upstream):
    world.provider.then(Fault.ok().cut(2), Fault.error(500), Fault.error(500), Fault.error(500))
    client = world.client(upstream)
    with pytest.raises(openai.APIConnectionError):
        list(same(client, stream=True))
    with pytest.raises(openai.InternalServerError):
        same(client, stream=True)
    list(same(client, stream=True))
    assert world.provider.count(200) == 2


def test_an_answer_of_a_fallback_is_not_kept(world, tmp_path):
    other = world.upstream("other", base_url=world.provider.url, models={"m": "small"})
    upstream = world.upstream(cache={"path": tmp_path / "answers.db"}, fallback=[other])
    world.provider.then(Fault.error(500))
    client = world.client(upstream)
    assert [same(client).model for _ in range(3)] == ["small", "m", "m"]
    assert world.provider.count(200) == 2


def test_one_asks_while_others_wait(tmp_path):
    with a_world() as world:
        world.provider.always(Fault.ok().late(0.5))
        upstream = world.upstream(cache={"path": tmp_path / "answers.db"})
        upstream.pause = threading.Event().wait
        clients = [world.client(upstream) for _ in range(6)]
        threads = [threading.Thread(target=same, args=(client,)) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert world.provider.count() == 1


def test_two_apps_with_one_secret_share_answers_and_others_do_not(world, upstream, tmp_path):
    same(world.client(upstream))
    again = World(world.provider)
    same(again.client(again.upstream(cache={"path": tmp_path / "answers.db"})))
    again.close()
    assert world.provider.count() == 1


@pytest.fixture
def gateway(world, tmp_path):
    """An app that passes on what clients ask, and pays by what answers report."""
    app = flask.Flask("gateway")
    limiter = AILimiter(api_key, app=app, storage_uri="memory://", **LIMITS)
    upstream = limiter.upstream("main", cache={"path": tmp_path / "gateway.db"})
    client, uncached = world.client(upstream), world.client(limiter.upstream("other", requests="600 per minute"))

    @app.post("/chat")
    def chat():
        answer = same(client)
        return answer.to_dict()

    @app.post("/twice")
    def twice():
        same(client)
        return ask(client).to_dict()

    @app.post("/elsewhere")
    def elsewhere():
        same(client)
        return ask(uncached).to_dict()

    @app.post("/recorded")
    def recorded():
        same(client)
        usage = ask(client).usage
        limiter.record_usage(input_tokens=usage.prompt_tokens, output_tokens=usage.completion_tokens)
        return {}

    @app.post("/refused")
    def refused():
        same(client)
        try:
            return ask(client).to_dict()
        except openai.APIError as error:
            raise upstream.refusal(error) from None

    gateway = app.test_client()
    yield lambda path, key: gateway.post(path, headers={"authorization": f"Bearer {key}"}).headers
    limiter.engine.close()


LIMITS = {"application_limits": ["100 per hour"], "application_token_limits": ["1000000 per year"]}


def left_to(headers):
    return [int(headers[f"x-ratelimit-remaining-{unit}"]) for unit in ("requests", "tokens")]


def test_a_client_pays_a_request_and_no_tokens_for_an_answer_from_the_cache(world, gateway):
    gateway("/chat", "a")
    first, second = left_to(gateway("/chat", "a")), left_to(gateway("/chat", "a"))
    assert [first[0] - second[0], first[1] - second[1]] == [1, 0]
    assert world.provider.count() == 1


def test_a_view_that_calls_twice_pays_for_the_call_that_was_made(world, gateway):
    gateway("/chat", "a")
    before = left_to(gateway("/twice", "a"))
    after = left_to(gateway("/chat", "a"))
    assert before[1] - after[1] == 6


def test_call_to_another_upstream_beside_an_answer_from_the_cache_is_paid(world, gateway):
    gateway("/chat", "a")
    before, after = left_to(gateway("/elsewhere", "a")), left_to(gateway("/chat", "a"))
    assert before[1] - after[1] == 6


def test_what_an_app_records_beside_an_answer_from_the_cache_is_paid_once(world, gateway):
    gateway("/chat", "a")
    before, after = left_to(gateway("/recorded", "a")), left_to(gateway("/chat", "a"))
    assert before[1] - after[1] == 6


def test_refused_request_pays_nothing_also_after_an_answer_from_the_cache(world, gateway):
    gateway("/chat", "a")
    before = left_to(gateway("/chat", "a"))
    world.provider.always(Fault.spent())
    gateway("/refused", "a")
    assert left_to(gateway("/chat", "a")) == [before[0] - 1, before[1]]


def test_clients_are_tenants_of_their_own(world, gateway):
    for key in ("a", "b", "a", "b"):
        gateway("/chat", key)
    assert world.provider.count() == 2
