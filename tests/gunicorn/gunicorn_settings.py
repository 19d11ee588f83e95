"""Gunicorn's configuration in these tests; the rest is on its command line."""

import os
from pathlib import Path

control_socket_disable = True
loglevel = "info"


def post_worker_init(worker):
    """Tell the test that this worker serves now."""
    (Path(os.environ["WORKERS_THAT_SERVE"]) / str(worker.pid)).touch()
