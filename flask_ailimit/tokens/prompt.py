"""The text of a prompt, and what is in it besides text."""

from itertools import chain
from typing import Any, Final

from .output import is_media, json_text
from .shapes import (
    DATA,
    ENCRYPTED,
    FOLDED_PART_ROLES,
    JSON,
    MEDIA,
    MEDIA_KINDS,
    PART_ROLES,
    SETTING,
    TEXT,
    TEXT_SOURCES,
    fold,
)

IMAGE_TOKENS: Final = 1600
"""For an image, a file or a sound, whose size is not looked at. Our choice: the most that an image costs with Claude
(Anthropic's "Vision" page: width x height / 750, scaled down to some 1600), and more than the 1105 of gpt-4o's largest
(OpenAI's "Images and vision" page: 85 + 170 for each of six tiles)."""

LOW_DETAIL_IMAGE_TOKENS: Final = 85
"""For an image with ``detail: low`` (OpenAI's "Images and vision" page, gpt-4o)."""

# Our choice. Base64 of text that is not packed has some five; of what is encrypted nobody knows how well it is packed.
_ENCRYPTED_CHARACTERS_A_TOKEN = 2

_NUMBERS = frozenset({int, float, bool})
_TEXT_BESIDE_MEDIA = frozenset(("content", "context", "name", "text", "title"))


class Prompt:
    """What of a request a model reads.

    Attributes:
        texts: The texts, in order.
        token_ids: How many tokens were sent as numbers.
        flat: The price of pictures, sounds and files.
    """

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.token_ids = 0
        self.flat = 0

    def add(self, value: object) -> None:
        """Add a text, token ids, a message, a part, or a list of such."""
        # A stack and not recursion, because JSON may be nested deeper than Python's stack. The last is read first.
        stack = [value]
        while stack:
            node: Any = stack.pop()
            if isinstance(node, str):
                self.texts.append(node)
            elif not node:
                continue
            elif isinstance(node, dict):
                self._add_part(node, stack)
            elif isinstance(node, list):
                if type(node[0]) in _NUMBERS and _NUMBERS.issuperset(map(type, node)):
                    self.token_ids += len(node)
                else:
                    self.token_ids += sum(type(each) in _NUMBERS for each in node)
                    stack.extend(reversed(node))

    def add_json(self, value: object) -> None:
        """Add what a model is given as JSON: a schema, the arguments of a call."""
        if isinstance(value, str):
            self.texts.append(value)
        elif value and isinstance(value, dict | list):
            self.texts.append(json_text(value))

    def add_own(self, value: object) -> None:
        """Add what stands under a name that no API has: there a text that is a medium has the price of one."""
        stack = [value]
        while stack:
            node: Any = stack.pop()
            if _is_own_medium(node):
                self.flat += IMAGE_TOKENS
            elif isinstance(node, list):
                self.flat += IMAGE_TOKENS * sum(map(_is_own_medium, node))
                self.add([each for each in node if not (isinstance(each, list) or _is_own_medium(each))])
                stack.extend(each for each in reversed(node) if isinstance(each, list))
            else:
                self.add(node)

    def add_own_json(self, value: object, shortest: int = 0) -> None:
        """The same for what is written as JSON, which is free if it has no more characters than ``shortest``."""
        rest, media = _without_media(value)
        self.flat += IMAGE_TOKENS * media
        written = json_text(rest if media else value)
        if len(written) > shortest:
            self.texts.append(written)

    def add_media(self, value: object, price: int = IMAGE_TOKENS) -> None:
        """Add what stands where an API has pictures, sounds or files: a text that can be none of them is a text."""
        stack: list[object] = []
        self.flat += price * self._media_in(value, stack)
        self.add(stack)

    def _add_part(self, part: dict[Any, Any], stack: list[Any]) -> None:
        kind = part.get("type")
        is_medium = kind is not None and _is_medium(part, kind)
        media = own = 0
        found: list[Any] = []
        for name, value in part.items():
            if not value or value is True:
                continue
            role = PART_ROLES.get(name) or FOLDED_PART_ROLES.get(fold(str(name)))
            if role is SETTING:
                continue
            if role is TEXT:
                found.append(value)
            elif role is MEDIA or (role is DATA and is_medium):
                media += self._media_in(value, found)
            elif role is JSON:
                self.add_json(value)
            elif isinstance(value, str) and (role is ENCRYPTED or (role is DATA and kind == "redacted_thinking")):
                self._add_encrypted(value)
            else:
                own += self._add_own_member(value, found)
        if is_medium and not (media or own or found):
            media = 1
        self.flat += media * _price(part) + own * IMAGE_TOKENS if media or own else 0
        stack.extend(reversed(found))

    def _add_own_member(self, value: object, found: list[Any]) -> int:
        """How many media are in a member of a part that no API has. What may be parts or text goes to ``found``."""
        if _is_own_medium(value):
            return 1
        if isinstance(value, list) and _has_parts(value):
            kept = [each for each in value if not _is_own_medium(each)]
            found.append(kept)
            return len(value) - len(kept)
        if isinstance(value, str) or _has_parts(value):
            found.append(value)
        elif isinstance(value, dict | list):
            self.add_own_json(value)
        return 0

    def _add_encrypted(self, value: str) -> None:
        if value.isascii() and " " not in value:
            self.flat += min(-(-len(value) // _ENCRYPTED_CHARACTERS_A_TOKEN), IMAGE_TOKENS)
        else:
            self.texts.append(value)

    def _media_in(self, value: object, texts: list[Any]) -> int:
        """How many media are in a value. What in it is text goes to ``texts``."""
        media = 0
        for each in value if isinstance(value, list) else [value]:
            found = False
            stack: list[Any] = [each]
            while stack:
                node = stack.pop()
                if isinstance(node, str):
                    # Base64, a data URL, an address or an id: none of them has a space.
                    if node.isascii() and " " not in node:
                        found = found or bool(node)
                    else:
                        texts.append(node)
                elif isinstance(node, list):
                    stack.extend(node)
                elif isinstance(node, dict):
                    kind = node.get("type")
                    if isinstance(kind, str) and kind in TEXT_SOURCES:  # It may be a list, which is in no set.
                        texts.append(node)
                        continue
                    for name, inner in node.items():
                        if PART_ROLES.get(name) is not SETTING:
                            (texts if name in _TEXT_BESIDE_MEDIA else stack).append(inner)
            media += found
        return media


def _is_own_medium(value: object) -> bool:
    return isinstance(value, str) and is_media(value)


def _without_media(value: object) -> tuple[object, int]:
    """The value without the media in it, as lists in which names and members alternate, and how many there were."""
    root: list[Any] = []
    stack: list[tuple[Any, list[Any]]] = [([value], root)]
    media = 0
    while stack:
        source, target = stack.pop()
        for each in source:
            if isinstance(each, dict | list):
                inner: list[Any] = []
                target.append(inner)
                # Of an object that has two members of a name both count.
                stack.append((chain.from_iterable(each.items()) if isinstance(each, dict) else each, inner))
            elif _is_own_medium(each):
                media += 1
            else:
                target.append(each)
    return root, media


def _has_parts(value: object) -> bool:
    """Whether a member that we don't know holds parts, in which there may be media."""
    if isinstance(value, list):
        return all(isinstance(each, str) or (isinstance(each, dict) and "type" in each) for each in value)
    return isinstance(value, dict) and "type" in value


def _is_medium(part: dict[Any, Any], kind: object) -> bool:
    if not isinstance(kind, str) or kind not in MEDIA_KINDS:
        return False
    # Of two types another reader takes the other.
    return type(part) is dict or all(value in MEDIA_KINDS for name, value in part.items() if name == "type")


def _price(image: dict[str, Any]) -> int:
    nested = image.get("image_url")
    detail = nested.get("detail") if isinstance(nested, dict) else image.get("detail")
    return LOW_DETAIL_IMAGE_TOKENS if detail == "low" and type(image) is dict else IMAGE_TOKENS
