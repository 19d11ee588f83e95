"""Two apps of one limiter behind one server, and a proxy beside them: what counts together, and what apart."""

from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
from app_server import serving
from flask import Flask
from pages import imported, served_as_written
from real_servers import PATIENCE, SilentModel, said
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from flask_ailimit import AILimiter, usage_settled
from flask_ailimit.testing import limits_clock  # noqa: F401  a fixture

pytestmark = pytest.mark.usefixtures("limits_clock")
PAGE = "how-to/several-apps.md"
KEY = {"Authorization": "Bearer key-of-ada"}
WAYS = {"/ask": {"data": {"prompt": "hello"}}, "/v1/generate": {"json": {"prompt": "hello"}}}


@pytest.fixture
def stores(tmp_path, monkeypatch):
    monkeypatch.setenv("AILIMIT_STORES_DIRECTORY", str(tmp_path))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def page(tmp_path, stores, caplog):
    with imported(PAGE, tmp_path) as module:
        yield module
    assert "two configurations" not in caplog.text


def ask(address, path):
    return httpx2.post(f"{address}{path}", headers=KEY, timeout=PATIENCE, **WAYS[path])


def used(page, app, endpoint):
    with app.test_request_context():
        return {each.quota.text: each.used for each in page.limiter.peek(endpoint, "key-of-ada").verdicts}


def test_allowance_of_both_apps_is_one_and_that_of_a_view_its_own(page):
    with serving(page.application) as address:
        assert ask(address, "/ask").text == "<p>5 characters</p>"
        assert [ask(address, "/v1/generate").json() for _ in range(2)] == [{"text": "HELLO"}] * 2
    together = {"100 requests per 60 s": 3, "10000 tokens per 86400 s": 20 + 2 * 42}
    assert used(page, page.site, "ask") == together | {"20 requests per 60 s": 1}
    assert used(page, page.api, "generate") == together | {"20 requests per 60 s": 2}


def test_last_block_looks_at_the_api(page):
    assert {each.used for each in page.left.verdicts} == {0}


def test_allowance_that_one_app_has_used_up_is_refused_in_the_other(page):
    with serving(page.application) as address:
        for path in ("/ask", "/v1/generate"):
            assert [ask(address, path).status_code for _ in range(21)] == [200] * 20 + [429]
    assert used(page, page.site, "ask")["100 requests per 60 s"] == 40


def test_views_with_one_endpoint_have_one_count(tmp_path, stores):
    with imported(PAGE, tmp_path, replaced={"def generate()": "def ask()", 'peek("generate"': 'peek("ask"'}) as page:
        with serving(page.application) as address:
            ask(address, "/ask")
            ask(address, "/v1/generate")
        assert used(page, page.site, "ask")["20 requests per 60 s"] == 2


@pytest.mark.parametrize(
    ("options", "is_shared"),
    [({"name": "shop"}, True), ({}, False), ({"storage_uri": "memory://", "name": "shop"}, False)],
    ids=str,
)
@pytest.mark.parametrize("limiters", [1, 2])
def test_who_shares_a_store(stores, caplog, options, is_shared, limiters):
    made = [AILimiter(lambda: "ada", application_limits=["9 per day"], **options) for _ in range(limiters)]
    apps = [Flask("one", root_path="."), Flask("two", root_path=".")]
    for app, limiter in zip(apps, (made * 2)[:2], strict=True):
        limiter.init_app(app)
        app.get("/")(lambda: "")
    with serving(apps[0]) as address:
        assert httpx2.get(address, timeout=PATIENCE).status_code == 200
    with apps[1].test_request_context("/"):
        limiter = made[-1]
        (verdict,) = limiter.peek("<lambda>", "ada").verdicts
    assert verdict.used == (1 if is_shared else 0)
    assert ("two configurations" in caplog.text) is (is_shared and limiters == 2)
    for app, limiter in zip(apps, (made * 2)[:2], strict=True):
        with app.app_context():
            limiter.engine.close()


def test_receiver_hears_of_one_app_or_of_all(page):
    of_api, of_all = [], []

    def hear_api(sender, **extra):
        of_api.append(sender.name)

    def hear_all(sender, **extra):
        of_all.append(sender.name)

    usage_settled.connect_via(page.api)(hear_api)
    usage_settled.connect(hear_all)
    with serving(page.application) as address:
        for path in WAYS:
            ask(address, path)
    assert (of_api, of_all) == (["api"], ["site", "api"])


def test_proxy_that_is_mounted_streams_and_hears_its_client_leave(page, tmp_path, monkeypatch):
    silent = SilentModel()
    monkeypatch.setenv("UPSTREAM_URL", f"{silent.address}/v1")
    with imported("how-to/proxy.md", tmp_path) as proxy:
        application = DispatcherMiddleware(page.site, {"/llm": proxy.app})
        body = {"model": "m", "messages": [], "stream": True}
        with serving(application) as address:
            client = httpx2.Client(timeout=PATIENCE)
            call = client.build_request("POST", f"{address}/llm/v1/chat/completions", json=body, headers=KEY)
            with ThreadPoolExecutor(1) as threads:
                answering = threads.submit(client.send, call, stream=True)
                silent.begin(said("one "))
                answer = answering.result(PATIENCE)
            assert answer.status_code == 200
            answer.close()
            client.close()
            assert silent.is_hung_up()
        proxy.upstream.close()
    silent.close()


@pytest.mark.server
def test_both_apps_answer_under_gunicorn_as_the_page_starts_it(tmp_path):
    with served_as_written(PAGE, tmp_path, name="server") as (address, _):
        assert [ask(address, path).status_code for path in WAYS] == [200, 200]
