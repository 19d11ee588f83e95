"""The real objects of the current app and request. Flask's proxies would look them up for each attribute."""

from typing import TYPE_CHECKING, Any, cast

import flask
from flask import Flask, Request

if TYPE_CHECKING:
    from collections.abc import Callable

current_app = cast("Callable[[], Flask]", cast("Any", flask.current_app)._get_current_object)  # noqa: SLF001  documented
"""Returns the current app. Raises ``RuntimeError`` if there is none."""

current_request = cast("Callable[[], Request]", cast("Any", flask.request)._get_current_object)  # noqa: SLF001  likewise
"""Returns the current request. Raises ``RuntimeError`` if there is none."""
