"""The app that gunicorn serves in the test of settlements under several workers."""

import os
from pathlib import Path

from flask import Flask

from flask_ailimit import AILimiter, api_key

app = Flask(__name__)
limiter = AILimiter(
    api_key,
    app=app,
    storage_uri=f"local://{os.environ['PLACE']}/limits",
    settlements=Path(os.environ["PLACE"]) / "settlements.sqlite",
)


@app.post("/chat")
@limiter.limit_tokens("1000000000 per day")
def chat():
    return {"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 20}, "pid": os.getpid()}
