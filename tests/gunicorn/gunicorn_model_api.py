"""An API of a model, spoken over a call that the upstream has taken: it begins to answer, and falls silent."""

import json
import ssl

WORDS = "one two "
_CHAT = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
_MESSAGE = {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None}


def begin(conversation, certificate=None):
    """Read the request, and say two words in the format that its path asks for."""
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        conversation.encrypt(context)
    path = conversation.read_request()
    kind = "text/plain" if path == "/text" else "text/event-stream"
    conversation.send(f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    for chunk in {"/text": [WORDS], "/v1/chat/completions": _chat(), "/v1/messages": _messages()}[path]:
        conversation.send(f"{len(chunk):x}\r\n{chunk}\r\n".encode())


def _chat():
    choice = {"index": 0, "delta": {"role": "assistant", "content": WORDS}, "finish_reason": None}
    yield f"data: {json.dumps({**_CHAT, 'choices': [choice]})}\n\n"


def _messages():
    yield _named("message_start", message={**_MESSAGE, "usage": {"input_tokens": 5, "output_tokens": 0}})
    yield _named("content_block_start", index=0, content_block={"type": "text", "text": ""})
    yield _named("content_block_delta", index=0, delta={"type": "text_delta", "text": WORDS})


def _named(kind, **fields):
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n"
