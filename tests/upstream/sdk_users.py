"""One call by each of the real SDKs, and what their user sees of it."""

import asyncio
from collections.abc import Callable
from typing import NamedTuple

import anthropic
import httpx2
import openai

PROMPT = "one two three"
MESSAGES = [{"role": "user", "content": PROMPT}]
KEY = "sk-test"


class Seen(NamedTuple):
    """What the user of an SDK sees.

    Attributes:
        texts: The parts of the text that came, in their order.
        finish: Why the answer ended; None if nobody said so.
        usage: Input and output tokens; None if nobody said so.
        error: What was raised.
    """

    texts: list[str]
    finish: str | None
    usage: tuple[int, int] | None
    error: Exception | None

    @property
    def text(self):
        return "".join(self.texts)

    @property
    def status(self):
        """Of the error; None if there is no error, or no answer."""
        return getattr(self.error, "status_code", None)


class _Noting:
    """Notes what comes, until an error does."""

    def __init__(self):
        self.texts, self.finish, self.usage, self.error = [], None, None, None

    def openai_answer(self, answer):
        (choice,) = answer.choices
        self.texts.append(choice.message.content)
        self.finish = choice.finish_reason
        self._openai_usage(answer.usage)

    def openai_event(self, chunk):
        for choice in chunk.choices:
            self.texts += [choice.delta.content] if choice.delta.content else []
            self.finish = choice.finish_reason or self.finish
        self._openai_usage(chunk.usage)

    def _openai_usage(self, usage):
        self.usage = (usage.prompt_tokens, usage.completion_tokens) if usage else self.usage

    def anthropic_answer(self, answer):
        (block,) = answer.content
        self.texts.append(block.text)
        self.finish = answer.stop_reason
        usage = getattr(answer, "usage", None)
        self.usage = (usage.input_tokens, usage.output_tokens) if usage else None

    def anthropic_event(self, event):
        if event.type == "message_start" and getattr(event.message, "usage", None):
            self.usage = (event.message.usage.input_tokens, 0)
        elif event.type == "content_block_delta":
            self.texts.append(event.delta.text)
        elif event.type == "message_delta":
            self.finish = event.delta.stop_reason
            if self.usage and event.usage:
                self.usage = (self.usage[0], event.usage.output_tokens)

    def seen(self):
        return Seen(self.texts, self.finish, self.usage, self.error)


class Sdk(NamedTuple):
    """An SDK's client: how it is made, and what is asked of it.

    Attributes:
        dialect: Of the API that it speaks.
    """

    dialect: str
    make: Callable
    is_async: bool

    def ask(self, provider, *, stream=False, **options):
        """Ask once. Errors of the SDK and of its transport are among what is seen, others are raised."""
        noting = _Noting()
        try:
            if self.is_async:
                asyncio.run(self._ask_async(provider, noting, stream, options))
            else:
                self._ask(provider, noting, stream, options)
        except (openai.OpenAIError, anthropic.AnthropicError, httpx2.TransportError) as error:
            noting.error = error
        return noting.seen()

    def client(self, provider, **options):
        sdk = anthropic if self.dialect == "anthropic" else openai
        default = sdk.DefaultAsyncHttpxClient if self.is_async else sdk.DefaultHttpxClient
        # Nothing is encrypted here, and to read the authorities takes 20 ms.
        usual = {"max_retries": 0, "timeout": 20, "http_client": default(verify=False)}
        return self.make(provider, api_key=KEY, **usual | options)

    def _parts(self, noting, stream):
        name = "anthropic" if self.dialect == "anthropic" else "openai"
        return getattr(noting, f"{name}_{'event' if stream else 'answer'}")

    def _call(self, client, stream):
        common = {"model": "test-model", "messages": MESSAGES, "stream": stream}
        if self.dialect == "anthropic":
            return client.messages.create(**common, max_tokens=100)
        with_usage = {"stream_options": {"include_usage": True}} if stream else {}
        return client.chat.completions.create(**common, **with_usage)

    def _ask(self, provider, noting, stream, options):
        note = self._parts(noting, stream)
        with self.client(provider, **options) as client:
            answer = self._call(client, stream)
            if not stream:
                note(answer)
                return
            with answer:
                for event in answer:
                    note(event)

    async def _ask_async(self, provider, noting, stream, options):
        note = self._parts(noting, stream)
        async with self.client(provider, **options) as client:
            answer = await self._call(client, stream)
            if not stream:
                note(answer)
                return
            async with answer:
                async for event in answer:
                    note(event)


def _azure(client):
    return lambda provider, **options: client(azure_endpoint=provider.azure_url, api_version="2024-10-21", **options)


def _openai(client):
    return lambda provider, **options: client(base_url=provider.url, **options)


def _anthropic(client):
    return lambda provider, **options: client(base_url=provider.anthropic_url, **options)


SDKS = {
    "openai": Sdk("openai", _openai(openai.OpenAI), False),
    "openai-async": Sdk("openai", _openai(openai.AsyncOpenAI), True),
    "azure": Sdk("azure", _azure(openai.AzureOpenAI), False),
    "azure-async": Sdk("azure", _azure(openai.AsyncAzureOpenAI), True),
    "anthropic": Sdk("anthropic", _anthropic(anthropic.Anthropic), False),
    "anthropic-async": Sdk("anthropic", _anthropic(anthropic.AsyncAnthropic), True),
}
