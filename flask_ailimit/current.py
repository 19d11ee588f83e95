"""The current app and request themselves. Flask's names for them look them up anew for each attribute."""

from typing import TYPE_CHECKING, Any, cast

import flask
from flask import Flask, Request

if TYPE_CHECKING:
    from collections.abc import Callable

current_app = cast("Callable[[], Flask]", cast("Any", flask.current_app)._get_current_object)  # noqa: SLF001  documented
"""Answers the current app. Raises ``RuntimeError`` outside of any."""

current_request = cast("Callable[[], Request]", cast("Any", flask.request)._get_current_object)  # noqa: SLF001  likewise
"""Answers the current request. Raises ``RuntimeError`` outside of any."""
