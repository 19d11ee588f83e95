"""What a refusal says to a person."""

import pytest
from header_decisions import (
    BURST,
    INPUT,
    NEVER,
    OUT_OF_DAY,
    OUT_OF_REQUESTS,
    OUT_OF_SLOTS,
    OUT_OF_TOKENS,
    OUTPUT,
    PAGES,
    SECOND,
    SLOTS,
    decided,
    refused,
)

from flask_ailimit.http.responses import refusal_message


@pytest.mark.parametrize(
    ("decision", "message"),
    [
        (
            OUT_OF_REQUESTS,
            "Request limit reached: limit 60 requests per 60 s, used 60, requested 1. Try again in 12 s.",
        ),
        (
            OUT_OF_TOKENS,
            "Token limit reached: limit 10000 tokens per 60 s, used 9990, requested 1202. Try again in 7.2 s.",
        ),
        (
            decided(refused(INPUT, 0, 60 * SECOND, 60 * SECOND, cost=9)),
            "Input token limit reached: limit 30000 input tokens per 60 s, used 30000, requested 9. Try again in 60 s.",
        ),
        (
            decided(refused(BURST, 100, 2 * SECOND, 1, cost=101)),
            (
                "Token limit reached: limit 10000 tokens per 60 s with a burst of 500, used 400, requested 101. "
                "Try again in 0.1 s."
            ),
        ),
        (OUT_OF_SLOTS, "Concurrency limit reached: 4 of 4 in flight. Try again in 1 s."),
        (
            OUT_OF_DAY,
            "Request limit reached: limit 200 requests per 86400 s, used 200, requested 1. Try again in 432 s (7m12s).",
        ),
        (
            decided(refused(PAGES, 1, 2880 * SECOND, 720_000_001, cost=2)),
            "Limit reached: limit 5 pages read per 3600 s, used 4, requested 2. Try again in 721 s (12m1s).",
        ),
        (
            NEVER,
            (
                "This request needs at least 30601 tokens, but a limit of 10000 tokens per 60 s allows 10000 at most. "
                "Waiting does not help: shorten the prompt or lower max_tokens."
            ),
        ),
        (
            decided(refused(BURST, 500, 0, None, cost=501)),
            (
                "This request needs at least 501 tokens, but a limit of 10000 tokens per 60 s allows 500 at most. "
                "Waiting does not help: shorten the prompt or lower max_tokens."
            ),
        ),
        (
            decided(refused(OUTPUT, 8000, 0, None, cost=9000)),
            (
                "This request needs at least 9000 output tokens, but a limit of 8000 output tokens per 60 s allows "
                "8000 at most. Waiting does not help: lower max_tokens."
            ),
        ),
        (
            decided(refused(INPUT, 30_000, 0, None, cost=30_001)),
            (
                "This request needs at least 30001 input tokens, but a limit of 30000 input tokens per 60 s allows "
                "30000 at most. Waiting does not help: shorten the prompt."
            ),
        ),
        (
            decided(refused(PAGES, 5, 0, None, cost=6)),
            (
                "This request needs 6 pages read, but a limit of 5 pages read per 3600 s allows 5 at most. "
                "Waiting does not help: make a smaller request."
            ),
        ),
        (
            decided(refused(SLOTS, 4, 0, None, cost=5)),
            (
                "This request needs 5 slots, but a limit of 4 in flight allows 4 at most. "
                "Waiting does not help: make a smaller request."
            ),
        ),
    ],
)
def test_message_says_what_and_how_much_and_what_to_do(decision, message):
    assert refusal_message(decision) == message
