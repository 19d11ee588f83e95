"""What an answer used, added up over the messages in it.

An agent's answer may have several: each has an id of its own, or begins after the event that ended the one before.
Within one, reports are repeated and cumulative, so the largest of each number counts, once.
"""

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from .counter import CERTAIN_SHARE, TokenCounter
from .envelope import is_known, is_ollama, may_report
from .output import json_text, read_event_text
from .payload import DONE, decode, plain_text
from .report import NO_REPORT, Members, find_reports, merged, read_reports
from .report_shapes import Shape
from .tier import find_tier
from .transcript import Transcript

TERMINAL_EVENTS: Final = frozenset(
    {
        "image_edit.completed",
        "image_generation.completed",
        "message-end",
        "message_stop",
        "response.completed",
        "response.failed",
        "response.incomplete",
        "speech.audio.done",
        "transcript.text.done",
    }
)
"""Types of the events that end a message (Anthropic Messages, Cohere, OpenAI Responses, images and audio). Besides
these, ``[DONE]`` (OpenAI's chat and text completions) and ``"done": true`` (Ollama) do. An ``error`` event does not."""

_FIRST_EVENTS: Final = frozenset({"message-start", "message_start", "response.created"})
_FIRST_OF_BEDROCK: Final = "messageStart"

_MOST_MESSAGES = 64
_FEW = 8
OCTETS_A_GUESSED_TOKEN = 2  # Hardly any text has shorter ones; a guess that misses these is no loss.
_OCTETS_A_TOKEN = 1  # No token is shorter.


class Total(NamedTuple):
    """What a message used, or the messages together.

    Attributes:
        input: Reported tokens.
        unknown_input: Whether the first message reported none: then it used what the request was estimated at.
        output: Reported tokens, with those of the text that no report covers.
        kinds: Reported parts of the input and of the output, by the field of :class:`.usage.Usage`.
        tier: The tier of service that the message names; of several messages the last that is named.
        undivided: Reported tokens of which nobody said how many were input and how many output.
        counted: Whether the output is counted, all of it or in part.
    """

    input: int = 0
    unknown_input: bool = True
    output: int = 0
    kinds: Mapping[str, int] = NO_REPORT.kinds
    tier: str = ""
    undivided: int = 0
    counted: bool = False

    def and_later(self, later: "Total") -> "Total":
        """Both together, if ``later`` is a later message's."""
        return Total(
            self.input + later.input,
            self.unknown_input,
            self.output + later.output,
            {kind: self.kinds.get(kind, 0) + later.kinds.get(kind, 0) for kind in {**self.kinds, **later.kinds}},
            later.tier or self.tier,
            self.undivided + later.undivided,
            self.counted or later.counted,
        )


class Message:
    """One message of an answer: its reports, and the text in it."""

    def __init__(self, counter: TokenCounter) -> None:
        self.id: str | None = None
        self.ended = False
        self.transcript = Transcript(counter)
        self._finished: set[object] = set()
        exact = getattr(counter, "exact", False)
        self._share = 1 if exact else CERTAIN_SHARE
        self._octets_a_token = _OCTETS_A_TOKEN if exact else OCTETS_A_GUESSED_TOKEN
        self._reports: dict[Shape, Members] = {}
        self._last = NO_REPORT
        self._tier = ""
        self._characters_then = 0

    @property
    def empty(self) -> bool:
        """Whether nothing was reported or said."""
        return not self._reports and not self.transcript.characters

    def report(self, found: dict[Shape, Members]) -> None:
        """Take a report, which stands for all that was said so far."""
        for shape, members in found.items():
            self._reports[shape] = merged(self._reports.get(shape, {}), members)
        self._last = read_reports(found)
        if self._last.output or self._last.total:
            self.transcript.mark()
        self._characters_then = self.transcript.characters

    def name_tier(self, tier: str) -> None:
        """Take the tier of service that an event names. The last one counts: the first may be what was asked for."""
        self._tier = tier or self._tier

    def goes_on_after_its_end(self, candidates: list[dict[str, Any]]) -> bool:
        """Whether one of Gemini's candidates has finished already in this message: then these are another one's."""
        again = any(candidate.get("index", 0) in self._finished for candidate in candidates)
        return again and self.id is None

    def finish(self, candidates: list[dict[str, Any]]) -> None:
        """Note which of Gemini's candidates finish with this event."""
        self._finished |= {candidate.get("index", 0) for candidate in candidates if candidate.get("finishReason")}

    def total(self, *, final: bool) -> Total:
        """What it used so far. ``final`` says that nothing more of it comes, so that a zero is believed."""
        return self._numbers(final=final)._replace(tier=self._tier)

    def _numbers(self, *, final: bool) -> Total:
        said = read_reports(self._reports)
        # A zero is believed if nothing was said after it.
        last = self._last if final and self.transcript.characters == self._characters_then else NO_REPORT
        given = said.input or last.input
        made = said.output or last.output
        total = said.total or last.total
        if given is None and made is None and total is not None:
            return self._undivided(total)._replace(kinds=said.kinds)
        if not made:
            seen = self.transcript.tokens() if made is None else self._floor(0)
            return Total(given or 0, given is None, seen, said.kinds, counted=seen > 0)
        since = self.transcript.tokens_since() if self.transcript.characters_since else 0
        output = max(made + since, self._floor(made + since))
        return Total(given or 0, given is None, output, said.kinds, counted=output > made)

    def _undivided(self, total: int) -> Total:
        if not self.transcript.characters:
            return Total(
                total, unknown_input=False
            )  # Only what generates nothing, such as embeddings, reports nothing else.
        since = self.transcript.tokens_since() if self.transcript.characters_since else 0
        made = max(since, self._floor(total + since))
        left = max(total + since - made, 0)
        return Total(unknown_input=False, output=made, undivided=left, counted=since > 0 or made > total)

    def _floor(self, output: int) -> int:
        """The least that the text seen may have been, if that may be more than ``output``."""
        if output * self._share * self._octets_a_token >= self.transcript.octets:
            return 0
        try:
            return self.transcript.tokens() // self._share
        except Exception:  # noqa: BLE001  an app's own counter; the report stands without it
            return 0


class Messages:
    """Takes the payloads of an answer in their order, and knows at any time what its messages used together.

    Args:
        counter: Counts the text that no report covers.
        believes_reports: Whether reports are looked at.
    """

    def __init__(self, counter: TokenCounter, *, believes_reports: bool) -> None:
        self._counter = counter
        self._believes = believes_reports
        self._current = Message(counter)
        self._messages = [self._current]
        self._by_id: dict[str, Message] = {}
        self._mark: bytes | None = None
        self._folded: Total | None = None
        self._error: Exception | None = None

    @property
    def ended(self) -> bool:
        """Whether the last message has ended, and nothing was said after it."""
        return self._current.ended

    @property
    def said_anything(self) -> bool:
        """Whether there was any text."""
        return self._folded is not None or any(message.transcript.characters for message in self._messages)

    def take_all(self, payloads: list[bytes]) -> None:
        """Take the next payloads. Many plain ones are searched together, because every stream is mostly these."""
        if len(payloads) > _FEW and self._are_plain(payloads):
            self._current.transcript.add_all(payloads)
            return
        # What is not plain is at the beginning or at the end of most streams.
        first, middle, last = payloads[:_FEW], payloads[_FEW:-_FEW], payloads[max(_FEW, len(payloads) - _FEW) :]
        for payload in first:
            self._take(payload)
        if middle and self._are_plain(middle):
            self._current.transcript.add_all(middle)
        elif middle:
            half = len(middle) // 2
            self.take_all(middle[:half])
            self.take_all(middle[half:])
        for payload in last:
            self._take(payload)

    def take_plain(self, chunks: list[bytes]) -> bool:
        """Take chunks of one event each that only add text, without cutting them. Answers whether they are such."""
        if not self._are_plain(chunks):
            return False
        joined = b"".join(chunks)
        if b"\r" in joined or not joined.count(b"\n\n") == joined.count(b"\ndata: ") + joined.startswith(
            b"data: "
        ) == len(chunks):
            return False
        text = plain_text(chunks, joined)
        if text is None:
            return False
        self._current.transcript.add_text(text)
        return True

    def _take(self, payload: bytes) -> None:
        if (
            self._current.ended
            or not self._believes
            or b"oken" in payload  # In the names of all reports but Ollama's last line, which is "done".
            or b'"done"' in payload
            or b'"messageStart"' in payload
            or (b'"id"' in payload and (self._mark is None or self._mark not in payload))
            or (b'"type"' in payload and b'_delta"' not in payload and b'.delta"' not in payload)
            or payload == DONE
        ):
            self._look_at(payload)
        else:
            self._current.transcript.add(payload)

    def _are_plain(self, payloads: list[bytes]) -> bool:
        """Whether all of these add text to the message and do nothing else."""
        if self._current.ended or not self._believes:
            return False
        if self._mark is None and b'"id"' in payloads[0]:
            return False
        joined = b"\n".join(payloads)
        if b"oken" in joined or b'"done"' in joined or b'"messageStart"' in joined or DONE in joined:
            return False
        ids = joined.count(b'"id"')
        if ids and (self._mark is None or joined.count(self._mark) < ids):
            return False
        kinds = joined.count(b'"type"')
        return not kinds or joined.count(b'_delta"') + joined.count(b'.delta"') >= kinds

    def take_unfinished(self, payload: bytes) -> None:
        """Take a payload that lacks its end mark, if it lacks nothing else."""
        if payload == DONE or isinstance(decode(payload), dict):
            self._look_at(payload)

    def take_text(self, text: str) -> None:
        """Take text that is not in payloads."""
        self._current.transcript.add_text(text)

    def take_event(self, event: dict[str, Any]) -> None:
        """Take one event that is decoded already."""
        known = is_known(event)
        text = read_event_text(event) if self._believes or known else json_text(event)
        found = find_reports(event) if self._believes and (known or may_report(event)) else {}
        kind = event.get("type")
        if kind == "message_start":
            # Anthropic's first report is of the input; its few tokens of output are those of the text that follows.
            found = {shape: _without(members, shape.of_output) for shape, members in found.items()}
        elif event.get("object") == "thread.run.step":
            found = {}  # The run reports them once more.
        candidates = _candidates_of(event)
        begins = (
            (isinstance(kind, str) and kind in _FIRST_EVENTS)
            or _FIRST_OF_BEDROCK in event
            or (bool(text) and self._current.goes_on_after_its_end(candidates))
        )
        self._turn_to(_id_of(event), begins=begins, speaks=bool(text), reports=bool(found))
        self._current.finish(candidates)
        if text:
            self._current.transcript.add_text(text)
        if found:
            self._current.report(found)
        if found or (known and self._believes):
            self._current.name_tier(find_tier(event))
        if _ends(event):
            self._current.ended = True

    def take_document(self, text: str, found: dict[Shape, Members], *, whole: bool, tier: str = "") -> None:
        """Take an answer that is one JSON document: what it says, and what it reports."""
        self._current.transcript.add_whole(text)
        self._current.name_tier(tier)
        if found:
            self._current.report(found)
        self._current.ended = whole

    def total(self, *, complete: bool) -> Total:
        """What the messages used together. ``complete`` says that nothing more comes.

        Raises:
            Exception: Whatever the counter raised on a text that no report covers.
        """
        if self._error is not None:
            raise self._error
        total = self._folded
        for message in self._messages:
            if not message.empty:
                each = message.total(final=complete or message.ended or message is not self._current)
                total = each if total is None else total.and_later(each)
        return total or Total()

    def _look_at(self, payload: bytes) -> None:
        if payload == DONE:
            self._current.ended = True
            return
        event = decode(payload)
        if isinstance(event, dict):
            self.take_event(event)
        elif event:
            self._turn_to(None, begins=False, speaks=True, reports=False)
            self._current.transcript.add_text(event)

    def _turn_to(self, message_id: str | None, *, begins: bool, speaks: bool, reports: bool) -> None:
        """Make the message current that an event belongs to."""
        current = self._current
        if message_id is None:
            if (current.ended and (speaks or reports or begins)) or (begins and not current.empty):
                self._begin(None)
            return
        older = self._by_id.get(message_id)
        if older is not None and not (older.ended and (speaks or begins)):
            self._current = older
        elif older is not None or current.ended or current.id is not None:
            self._begin(message_id)
        else:
            self._name(message_id)

    def _begin(self, message_id: str | None) -> None:
        self._current = Message(self._counter)
        self._messages.append(self._current)
        self._mark = None
        if message_id is not None:
            self._name(message_id)
        if len(self._messages) > _MOST_MESSAGES:
            self._fold(self._messages.pop(0))

    def _name(self, message_id: str) -> None:
        self._current.id = message_id
        self._by_id[message_id] = self._current
        self._mark = json.dumps(message_id, ensure_ascii=False).encode("utf-8", "replace")

    def _fold(self, message: Message) -> None:
        """Keep of an old message only what it used, so that memory stays bounded."""
        if message.id is not None and self._by_id.get(message.id) is message:
            del self._by_id[message.id]
        if message.empty:
            return
        try:
            total = message.total(final=True)
        except Exception as error:  # noqa: BLE001  an app's own counter; a stream must not break for it
            self._error = error
            return
        self._folded = total if self._folded is None else self._folded.and_later(total)


def may_end(chunk: bytes) -> bool:
    """Whether a terminal may be in a chunk of whole events. A quick look, because every chunk gets it."""
    if b"[DONE]" in chunk or b'done"' in chunk:
        return True
    if b'"type"' not in chunk:
        return False
    return b'_stop"' in chunk or b"plete" in chunk or b'.failed"' in chunk or b'message-end"' in chunk


def ends_message(payload: bytes) -> bool:
    """Whether a payload, which may lack its end mark, ends a message."""
    if payload == DONE:
        return True
    if b'"done"' not in payload and b'"type"' not in payload:
        return False
    event = decode(payload)
    return isinstance(event, dict) and _ends(event)


def _ends(event: dict[str, Any]) -> bool:
    kind = event.get("type")
    return (isinstance(kind, str) and kind in TERMINAL_EVENTS) or (event.get("done") is True and is_ollama(event))


def _without(members: Members, names: frozenset[str]) -> Members:
    return {name: number for name, number in members.items() if name not in names}


def _candidates_of(event: dict[str, Any]) -> list[dict[str, Any]]:
    """Gemini's candidates in an event, each with a number of its own for its index."""
    found = event.get("candidates")
    listed = found if isinstance(found, list) else []
    return [each for each in listed if isinstance(each, dict) and isinstance(each.get("index", 0), int)]


def _id_of(event: dict[str, Any]) -> str | None:
    """The id of the message that an event belongs to, where an API gives it one."""
    kind = event.get("type")
    found: object = event.get("responseId")
    if isinstance(event.get("choices"), list) or kind in ("message-start", "message"):
        found = event.get("id")
    elif kind == "message_start" and isinstance(event.get("message"), dict):
        found = event["message"].get("id")
    elif isinstance(kind, str) and kind.startswith("response.") and isinstance(event.get("response"), dict):
        found = event["response"].get("id")
    return found if isinstance(found, str) and found else None
