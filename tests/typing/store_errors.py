"""Never run: what the annotations of ``on_store_error`` promise, as in ``api.py``."""

from flask import Flask

from flask_ailimit import AILimiter, api_key
from flask_ailimit.signals import store_changed

app = Flask(__name__)
limiter = AILimiter(api_key, app=app, storage_uri="redis://10.0.0.5", secret="x" * 32, on_store_error="local")


@app.post("/")
@limiter.limit("20 per minute", on_store_error="allow")
@limiter.shared_limit("20 per minute", scope="all", on_store_error="deny")
@limiter.limit_tokens("10 per minute", on_store_error="local")
@limiter.limit_concurrency(4, on_store_error=None)
def view() -> str:
    return ""


@store_changed.connect_via(app)
def changed(sender: Flask, *, available: bool) -> None:
    pass


limiter.limit("1 per minute", on_store_error=True)  # type: ignore[arg-type]
limiter.shared_limit("1 per minute", scope="all", on_store_error=1)  # type: ignore[arg-type]
limiter.limit_tokens("1 per minute", on_store_error=b"deny")  # type: ignore[arg-type]
limiter.limit_concurrency(1, on_store_error=limiter)  # type: ignore[arg-type]
