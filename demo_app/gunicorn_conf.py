"""How the demo is served: ``gunicorn -c demo_app/gunicorn_conf.py``.

Two processes, so that the limits are seen to hold across processes; threads, because an answer takes seconds.
"""

import os

wsgi_app = "demo_app:create_app()"
bind = os.environ.get("DEMO_BIND", "127.0.0.1:8000")
workers = int(os.environ.get("DEMO_WORKERS", "2"))
worker_class = "gthread"
threads = int(os.environ.get("DEMO_THREADS", "4"))

# The model is loaded by each worker at its first call. llama.cpp's threads wouldn't survive a fork.
preload_app = False

# Long enough for the longest answer that is under way when the server is told to stop.
graceful_timeout = 60
timeout = 60
keepalive = 5
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108  heartbeats never wait for a disk

# A socket in the home directory that would accept commands.
control_socket_disable = True

accesslog = None
errorlog = "-"
loglevel = os.environ.get("DEMO_LOG_LEVEL", "warning")
