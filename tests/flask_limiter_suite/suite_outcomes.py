"""A pytest plugin for a run of Flask-Limiter's own suite: no connections, steady seconds, and a list of outcomes."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import hiro
import pytest

outcomes: dict[str, str] = {}


def refuse_connection(event: str, args: tuple[object, ...]) -> None:
    """Audit hook: let no test reach a server, since the suite empties those it finds at its ports."""
    if event == "socket.connect":
        raise RuntimeError(f"A test wants to connect to {args[1]}: list it in needs_server.txt, with the reason.")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--leave-out", action="append", default=[], help="the node id of a test not to run")
    parser.addoption("--outcomes", type=Path, required=True, help="write each test's outcome to this file, as JSON")


def pytest_configure() -> None:
    sys.addaudithook(refuse_connection)


@pytest.fixture(autouse=True)
def steady_second(request: pytest.FixtureRequest) -> Iterator[None]:
    """Stop the clock for two tests that compare a header with the wall clock's second, which may end in between."""
    if request.node.name in {"test_header_names_config", "test_header_names_constructor"}:
        with hiro.Timeline().freeze():
            yield
    else:
        yield


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # pytest's own --deselect would also take every test whose name begins with that of a listed one.
    left_out = {item.nodeid for item in items} & set(config.getoption("leave_out"))
    items[:] = [item for item in items if item.nodeid not in left_out]
    outcomes.update(dict.fromkeys(left_out, "left out"))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    # Set-up, call and tear-down are reported one by one: a test has passed if all three have.
    if outcomes.get(report.nodeid, "passed") == "passed":
        outcomes[report.nodeid] = report.outcome


def pytest_sessionfinish(session: pytest.Session) -> None:
    session.config.getoption("outcomes").write_text(json.dumps(outcomes), encoding="utf-8")
