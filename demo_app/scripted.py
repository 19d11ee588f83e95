"""A stand-in for the language model, for unit tests only: it says the words it was given."""

from collections.abc import Callable, Generator, Sequence

from .model import Call, Delta, ModelFailedError, Usage, require_room

NO_FAULT = -1


class ScriptedModel:
    """Answers every call with the same words, one word a token. Nothing but tests should use it.

    Args:
        words: The answer.
        context: Tokens for input and answer together; a word is a token.
        before_token: Called before each word, so that a test can hold a stream where it wants.
        breaks_after: Fail after so many words; ``NO_FAULT`` never fails.
        on_end: Called when an answer has ended, in whatever way.
    """

    name = "scripted"

    def __init__(
        self,
        words: Sequence[str] = ("All", "good", "things", "come", "in", "threes."),
        *,
        context: int = 2048,
        before_token: Callable[[], None] = lambda: None,
        breaks_after: int = NO_FAULT,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self.words = tuple(words)
        self.context = context
        self.before_token = before_token
        self.breaks_after = breaks_after
        self.on_end = on_end
        self.calls: list[Call] = []
        self.finished = 0
        self.abandoned = 0

    def stream(self, call: Call) -> Generator[Delta]:
        """Answer piece by piece; see :meth:`demo_app.model.Model.stream`."""
        self.calls.append(call)
        read = sum(len(message.text.split()) for message in call.messages)
        require_room(input_tokens=read, call=call, context=self.context)
        done = False
        try:
            yield Delta("", Usage(read, 0))
            spoken = self.words[: call.max_tokens]
            for count, word in enumerate(spoken):
                if count == self.breaks_after:
                    raise ModelFailedError("The script says that the model breaks here.")
                self.before_token()
                yield Delta(word if count == 0 else f" {word}", Usage(read, count + 1))
            done = True
            self.finished += 1
            reason = "stop" if len(spoken) == len(self.words) else "length"
            yield Delta("", Usage(read, len(spoken)), reason)
        finally:
            self.abandoned += not done
            self.on_end()
