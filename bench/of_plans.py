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
OPENERS: dict[str, OpenApp] = {BY_PLAN: apps.ailimiters_by_plan, DECORATED: apps.ailimiters_like_a_plan}
REMARK = "8 limits over 3 payers, a 4 KB prompt estimated, usage settled, three dialects of headers"


def figures(size: Size) -> list[Figure]:
    """Whole requests, in memory and on this machine. What Redis is asked for one is counted in another family."""
    in_memory = {name: open_app("memory://") for name, open_app in OPENERS.items()}
    with directory() as place:
        on_machine = {name: open_app(f"local://{place}/{open_app.__name__}") for name, open_app in OPENERS.items()}
        return [_ratio("memory", in_memory, size), _ratio("local://", on_machine, size)]


def _ratio(store: str, apps_by_name: dict[str, Flask], size: Size) -> Figure:
    times: tuple[Times, Times] = race({name: partial(_work, app) for name, app in apps_by_name.items()}, size, CALLS)
    name = f"a request by plan / the same limits as decorators, {store}"
    return compared(name, BY_PLAN, DECORATED, times, 1.1, waits=False, remark=REMARK)


def _work(app: Flask) -> Work:
    return Work(caller(app))
