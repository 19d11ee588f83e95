"""The page at ``GET /``, as browsers, curl and programs get it."""

import re
from html.parser import HTMLParser

import pytest
from demo_doors import KEY

from demo_app import addresses, create_app, keys, plans
from demo_app.scripted import ScriptedModel

HTML = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}  # As Chromium and Firefox send it.
JSON = {"Accept": "application/json"}
CURL = {"Accept": "*/*"}
every_format = pytest.mark.parametrize("headers", [HTML, JSON, CURL], ids=["html", "json", "text"])


@pytest.fixture
def visitor():
    """Opens the demo as ``make demo`` serves it, but for the model and the store."""
    return create_app(ScriptedModel(), {"RATELIMIT_STORAGE_URI": "memory://"}).test_client()


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def all(self, name):
        return [attrs for tag, attrs in self.tags if tag == name]


@pytest.mark.parametrize(
    ("headers", "mimetype"),
    [(HTML, "text/html"), (CURL, "text/plain"), ({}, "text/plain"), (JSON, "application/json")],
    ids=["a browser", "curl", "no Accept", "a program"],
)
def test_each_visitor_gets_the_format_it_reads_best(visitor, headers, mimetype):
    response = visitor.get("/", headers=headers)
    assert (response.status_code, response.mimetype) == (200, mimetype)
    assert response.vary.to_header() == "Accept"


@every_format
def test_page_names_the_paths_the_keys_and_what_they_may_use(visitor, headers):
    text = visitor.get("/", headers=headers).text
    for told in ("/predict", "/v1/chat/completions", "/v1/messages", "/usage", "/v1/models", "/healthz"):
        assert told in text
    for told in ("demo-small-key", "demo-large-key", "10 per minute", "3000 per minute", "60000 per minute"):
        assert told in text
    for told in ("demo-penny-key", "0.01 USD per calendar day", "1000 USD per calendar month", "60 USD", "large-*"):
        assert told in text
    for told in ("demo-colleague-key", "free", "pro", "lab", "small-scripted", "large-scripted"):
        assert told in text
    assert "http://localhost/v1" in text
    assert "scripted" in text


@every_format
def test_a_key_that_was_replaced_is_shown_to_nobody(headers):
    accounts = keys.demo_accounts({"DEMO_SMALL_KEY": "canary-small"})
    app = create_app(ScriptedModel(), {"RATELIMIT_STORAGE_URI": "memory://", "DEMO_ACCOUNTS": accounts})
    text = app.test_client().get("/", headers=headers).text
    assert "canary" not in text
    assert "demo-small-key" not in text  # It opens nothing now.
    assert "demo-large-key" in text
    assert "YOUR-KEY" in text
    assert "YOUR-KEY" in addresses.greeting([("127.0.0.1", 8000)], keys.published_key(accounts[0]))


def test_page_of_plans_without_prices_shows_none(stranger):
    assert stranger.get("/", headers=JSON).json["prices"] == []
    assert "million tokens" not in stranger.get("/", headers=HTML).text
    assert "million tokens" not in stranger.get("/", headers=CURL).text


def test_page_is_not_limited_and_charges_no_key(client, model):
    for _ in range(20):
        for path in ("/", "/static/page.js", "/static/page.css"):
            response = client.get(path, headers=HTML)
            assert response.status_code == 200
            assert not [name for name, _ in response.headers if "ratelimit" in name.lower()]
            response.close()
    assert {limit["used"] for limit in client.get("/usage").json["limits"]} == {0}
    assert model.calls == []


def test_page_asks_for_no_key_and_looks_at_none(stranger):
    assert stranger.get("/", headers=HTML).status_code == 200
    response = stranger.get("/", headers={**HTML, "x-api-key": "canary-key"})
    assert response.status_code == 200
    assert "canary" not in response.text
    assert KEY not in response.text


@pytest.mark.parametrize("host", ["<script>alert(1)</script>", "x'; touch /tmp/x; '", "a b", '"'])
@every_format
def test_a_name_that_no_server_has_is_not_repeated(visitor, headers, host):
    response = visitor.get("/", headers={**headers, "Host": host})
    assert (response.status_code, response.json["error"]["code"]) == (400, "invalid_host")
    assert host not in response.json["error"]["message"]


def test_nothing_but_the_page_s_own_files_runs_on_it(visitor):
    response = visitor.get("/", headers=HTML)
    policy = dict(each.split(" ", 1) for each in response.headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert (policy["script-src"], policy["style-src"], policy["connect-src"]) == ("'self'", "'self'", "'self'")
    assert policy["frame-ancestors"] == "'none'"
    assert "unsafe" not in str(policy)
    page = Tags(response.text)
    assert page.all("style") == []
    for _, attributes in page.tags:
        assert "style" not in attributes
        assert not [name for name in attributes if name.startswith("on")]
    files = [tag["src"] for tag in page.all("script")] + [tag["href"] for tag in page.all("link")]
    assert len(files) == 3
    for file in files:
        served = visitor.get(file)
        assert served.status_code == 200
        assert served.headers["X-Content-Type-Options"] == "nosniff"
        assert "http" not in served.text.replace("http://www.w3.org/2000/svg", "")
        served.close()


def test_script_puts_no_text_in_as_html(visitor):
    with visitor.get("/static/page.js") as response:
        script = response.text
    assert "textContent" in script
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", script)


def test_links_lead_to_what_is_there(visitor):
    page = Tags(visitor.get("/", headers=HTML).text)
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    links = [tag["href"] for tag in page.all("a")]
    assert "/usage" in links
    for link in links:
        if link.startswith("#"):
            assert link[1:] in ids
        else:
            assert visitor.get(link, headers={"x-api-key": "demo-small-key"}).status_code == 200


def test_every_field_has_a_label(visitor):
    page = Tags(visitor.get("/", headers=HTML).text)
    labelled = {label["for"] for label in page.all("label") if "for" in label} | {"stream"}  # Its label is around it.
    fields = page.all("input") + page.all("select") + page.all("textarea")
    assert {field["id"] for field in fields} == labelled


def test_only_get_is_answered(stranger):
    assert stranger.head("/").status_code == 200
    assert stranger.post("/").status_code == 405


def test_plan_with_options_shows_its_limit():
    plan = {"requests": {"limit": "5 per day", "burst": 9}, "concurrency": 3}
    assert plans.limits_in(plan) == {
        "requests": "5 per day",
        "tokens": "unlimited",
        "concurrency": 3,
        "budget": "unlimited",
    }
