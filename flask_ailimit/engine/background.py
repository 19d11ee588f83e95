"""Threads that work in the background, where the system has one to give."""

import logging
from collections.abc import Callable
from threading import Thread

_log = logging.getLogger("flask_ailimit")


def started(work: Callable[[], None], name: str) -> Thread | None:
    """A daemon thread that does the work; None where none can start: a request is not to fail for that."""
    thread = Thread(target=work, name=f"flask_ailimit {name}", daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        _log.error("No thread for %s: %s", name, error)
        return None
    return thread
