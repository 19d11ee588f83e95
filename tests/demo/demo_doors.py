"""Where the demo's tests knock, and with what."""

KEY = "key-for-tests"
OTHER_KEY = "key-of-somebody-else"

CHAT = {"model": "scripted", "messages": [{"role": "user", "content": "Three words please"}]}
BODIES = {
    "/predict": {"prompt": "Three words please"},
    "/v1/chat/completions": CHAT,
    "/v1/messages": {**CHAT, "max_tokens": 64},
}
