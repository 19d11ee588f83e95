"""What plans cost: eight limits over three payers, by plan and as decorators."""

from functools import partial

import limited_flask as apps
from figures import Figure, Size, compared
from flask import Flask
from of_flask import CALLS, OpenApp
from places import directory
from racing import Times, Work, race
from requests_to import caller

BY_PLAN, DECORATED = "by plan", "as decorators"
NAME = "a request by plan / the same limits as decorators"
REMARK = "8 limits over 3 payers, a 4 KB prompt estimated, usage settled, three dialects of headers"


def figures(size: Size) -> list[Figure]:
    """Whole requests, in memory and on this machine. What Redis is asked for one is counted in another family."""
    openers: dict[str, OpenApp] = {BY_PLAN: apps.ailimiters_by_plan, DECORATED: apps.ailimiters_like_a_plan}
    return whole_requests(NAME, openers, 1.1, REMARK, size)


def whole_requests(name: str, openers: dict[str, OpenApp], aim: float, remark: str, size: Size) -> list[Figure]:
    """A request to the first of two apps against one to the second, in memory and on this machine."""
    in_memory = {each: open_app("memory://") for each, open_app in openers.items()}
    with directory() as place:
        on_machine = {each: open_app(f"local://{place}/{open_app.__name__}") for each, open_app in openers.items()}
        return [
            _ratio(f"{name}, memory", in_memory, aim, remark, size),
            _ratio(f"{name}, local://", on_machine, aim, remark, size),
        ]


def _ratio(name: str, apps_by_name: dict[str, Flask], aim: float, remark: str, size: Size) -> Figure:
    times: tuple[Times, Times] = race({each: partial(_work, app) for each, app in apps_by_name.items()}, size, CALLS)
    ours, other = apps_by_name
    return compared(name, ours, other, times, aim, waits=False, remark=remark)


def _work(app: Flask) -> Work:
    return Work(caller(app))
