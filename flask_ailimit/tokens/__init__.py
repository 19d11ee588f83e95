"""Counting tokens, without Flask: what a request may use, and what its answer says that it used.

Example:
    >>> from flask_ailimit.tokens import decode_body, estimate_request, open_counter
    >>> body = decode_body(b'{"prompt": "Say hello.", "max_tokens": 20}')
    >>> estimate_request(body, counter=open_counter("estimate"), default_output_tokens=100).usage
    Usage(input_tokens=4, output_tokens=20, cached_input_tokens=0)
"""

from .body import InvalidBody, decode_body
from .counter import COUNTERS, TokenCounter, exact_counter, open_counter
from .output import read_output_text
from .report import read_usage
from .request import Estimate, estimate_request
from .stream import Measure, StreamMeter
from .usage import MAX_TOKENS, Usage

__all__ = [
    "COUNTERS",
    "MAX_TOKENS",
    "Estimate",
    "InvalidBody",
    "Measure",
    "StreamMeter",
    "TokenCounter",
    "Usage",
    "decode_body",
    "estimate_request",
    "exact_counter",
    "open_counter",
    "read_output_text",
    "read_usage",
]
