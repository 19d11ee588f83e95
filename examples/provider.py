"""Where the examples find a model: at the demo (``make demo``), or at the provider that the environment names.

A key of the environment goes only to the address of the environment, never to the demo.
"""

import os

DEMO = "http://127.0.0.1:8000"
DEMO_KEY = "demo-large-key"

URL = os.environ.get("OPENAI_BASE_URL", f"{DEMO}/v1")
KEY = os.environ["OPENAI_API_KEY"] if "OPENAI_BASE_URL" in os.environ else DEMO_KEY

ANTHROPIC_URL = os.environ.get("ANTHROPIC_BASE_URL", DEMO)
ANTHROPIC_KEY = os.environ["ANTHROPIC_API_KEY"] if "ANTHROPIC_BASE_URL" in os.environ else DEMO_KEY

MODEL = os.environ.get("MODEL", "smollm2-135m-instruct")

# Another model, at the same provider or at another one that takes the same key: for fallbacks.py.
SPARE_URL = os.environ.get("SPARE_BASE_URL", URL)
SPARE_MODEL = os.environ.get("SPARE_MODEL", f"small-{MODEL}")
