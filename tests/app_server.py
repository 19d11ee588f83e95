"""An app under a real server, in a thread of the tests."""

from contextlib import contextmanager
from threading import Thread

from werkzeug.serving import make_server


@contextmanager
def serving(app):
    """The address of a real server with a thread for each connection, for as long as the context lasts."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
