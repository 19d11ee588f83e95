"""Where the demo's tests knock, and with what."""

from demo_app.keys import open_account

KEY = "key-for-tests"
OTHER_KEY = "key-of-somebody-else"

CHAT = {"model": "scripted", "messages": [{"role": "user", "content": "Three words please"}]}
BODIES = {
    "/predict": {"prompt": "Three words please"},
    "/v1/chat/completions": CHAT,
    "/v1/messages": {**CHAT, "max_tokens": 64},
}


def planned(plan, **config):
    """Settings of a demo in memory, where two accounts have this plan."""
    accounts = (open_account("tester", "tested", KEY), open_account("other", "tested", OTHER_KEY))
    plans = {"plans": {"tested": plan}}
    return {"RATELIMIT_STORAGE_URI": "memory://", "DEMO_ACCOUNTS": accounts, "AILIMIT_PLANS": plans, **config}
