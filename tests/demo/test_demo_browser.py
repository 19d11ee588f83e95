"""The page in a real browser, if there is one (Debian's packages chromium and chromium-driver)."""

import http.client
import json
import re
import shutil
import subprocess
import time

import pytest
from app_server import serving
from demo_doors import KEY

from demo_app import create_app

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
]

pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver")


class Browser:
    """A browser's session. Speaks https://www.w3.org/TR/webdriver2/ with chromedriver."""

    def __init__(self, port, profile):
        self.port = port
        self.session = "/session"
        chrome = {"binary": CHROMIUM, "args": [*OPTIONS, f"--user-data-dir={profile}"]}
        wanted = {"goog:chromeOptions": chrome, "goog:loggingPrefs": {"browser": "ALL"}}
        started = self.call("POST", "", capabilities={"alwaysMatch": wanted})
        self.session = f"/session/{started['sessionId']}"

    def call(self, method, path, **fields):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        body = json.dumps(fields) if method == "POST" else None
        connection.request(method, self.session + path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        value = json.load(response)["value"]
        connection.close()
        assert response.status == 200, value
        return value

    def open(self, address):
        self.call("POST", "/url", url=address)

    def element(self, selector):
        found = self.call("POST", "/element", using="css selector", value=selector)
        return f"/element/{next(iter(found.values()))}"

    def click(self, selector):
        self.call("POST", f"{self.element(selector)}/click")

    def type(self, selector, text):
        self.call("POST", f"{self.element(selector)}/clear")
        self.call("POST", f"{self.element(selector)}/value", text=text)

    def run(self, script):
        return self.call("POST", "/execute/sync", script=script, args=[])

    def wait_for(self, script):
        give_up = time.monotonic() + 60
        while not (value := self.run(script)):
            assert time.monotonic() < give_up, self.run("return document.body.innerText")
            time.sleep(0.05)
        return value

    def wait_for_answer(self, number):
        """What the newest answer shows, once there are so many and it has ended."""
        return self.wait_for(f"""
            const all = document.querySelectorAll("article"), newest = all[0];
            if (all.length !== {number} || !newest.className) return null;
            return {{
                kind: newest.className,
                outcome: newest.querySelector(".outcome").textContent,
                said: newest.querySelector(".said").textContent,
                body: newest.querySelector(".body").textContent,
                bold: newest.querySelectorAll(".said b").length,
                headers: Object.fromEntries([...newest.querySelectorAll("tbody tr")].map(
                    (row) => [row.cells[0].textContent, row.cells[1].textContent])),
            }};""")


@pytest.fixture
def browser(tmp_path):
    driver = subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        port = next(int(found[1]) for line in driver.stdout if (found := re.search(r"on port (\d+)\.", line)))
        session = Browser(port, tmp_path / "profile")
        yield session
        session.call("DELETE", "")
    finally:
        driver.terminate()
        driver.wait(60)
        driver.stdout.close()


@pytest.mark.parametrize(
    "plan", [{"requests": "4 per day", "tokens": "3000 per day", "concurrency": 2}], ids=["four a day"]
)
def test_the_form_asks_and_shows_what_came_back(browser, address, model):
    model.words = ("<b>Bold</b>", "words.")
    browser.open(address)
    browser.click("#key option[value='']")
    browser.type("#other-key", KEY)
    browser.type("#max-tokens", "20")

    browser.click("#ask button")
    whole = browser.wait_for_answer(1)
    assert (whole["kind"], whole["said"], whole["bold"]) == ("good", "<b>Bold</b> words.", 0)
    assert whole["outcome"].startswith("200 OK in ")
    assert whole["headers"]["x-ratelimit-remaining-requests"] == "3"
    assert '"requests-per-day";q=4' in whole["headers"]["ratelimit-policy"]

    browser.click("#stream")
    for number, path in enumerate(("/predict", "/v1/chat/completions", "/v1/messages"), 2):
        browser.run(f"document.getElementById('door').value = {path!r}")
        browser.type("#prompt", "Three words please")
        browser.click("#ask button")
        pieces = browser.wait_for_answer(number)
        assert (pieces["kind"], pieces["said"], pieces["bold"]) == ("good", "<b>Bold</b> words.", 0)
        assert "200 OK, all pieces in " in pieces["outcome"]
        assert pieces["body"].startswith(("data: ", "event: "))

    browser.click("#ask button")
    refused = browser.wait_for_answer(5)
    assert refused["kind"] == "bad"
    assert refused["outcome"].startswith("429 ")
    assert int(refused["headers"]["retry-after"]) >= 1
    assert json.loads(refused["body"])["error"]["code"] == "rate_limit_exceeded"

    browser.click("a[href='/usage']")  # The browser's own request would have no key.
    left = browser.wait_for_answer(6)
    assert {limit["name"]: limit["used"] for limit in json.loads(left["body"])["limits"]}["requests-per-day"] == 4
    assert "requests-per-day: 4 of 4 used, 0 left" in left["said"].splitlines()

    complaints = [line["message"] for line in browser.call("POST", "/se/log", type="browser")]
    assert [line for line in complaints if "status of 429" not in line] == []  # No script and no style was blocked.


def test_a_stopped_answer_ends_the_work(browser, address, model):
    model.words = ("word",) * 1000
    spoken = []
    model.before_token = lambda: (spoken.append(1), time.sleep(0.05))
    browser.open(address)
    browser.click("#key option[value='']")
    browser.type("#other-key", KEY)
    browser.type("#max-tokens", "1000")
    browser.click("#stream")
    browser.click("#ask button")
    browser.wait_for("return document.querySelector('.said').textContent.includes('word word')")
    browser.click(".stop")
    assert "stopped by you" in browser.wait_for_answer(1)["outcome"]
    give_up = time.monotonic() + 60
    while model.abandoned == 0:
        assert time.monotonic() < give_up
        time.sleep(0.05)
    assert model.finished == 0


def test_what_is_left_of_a_budget_is_told_in_a_line(browser, model):
    with serving(create_app(model, {"RATELIMIT_STORAGE_URI": "memory://"})) as address:
        browser.open(address)
        browser.click("#key option[value='demo-penny-key']")
        browser.click("#ask button")
        assert browser.wait_for_answer(1)["kind"] == "good"
        browser.click("#usage")
        said = browser.wait_for_answer(2)["said"]
    assert re.search(
        r"^usd-per-calendar-day: 0\.00\d+ of 0\.01 USD spent, 0\.00 reserved, 0\.00\d+ left; "
        r"renewed at \d{4}-\d\d-\d\dT00:00:00\+00:00 \(UTC\)$",
        said,
        re.MULTILINE,
    )
