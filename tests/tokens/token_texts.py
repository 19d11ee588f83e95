"""Texts of many kinds, made without a file: what people send, and what somebody sends who wants to pay too little."""

import base64
import codecs
import inspect
import json
import random
import re
import string
import textwrap
import uuid

from token_prose import PROSE

_RANDOM = random.Random(20261122)
_ENGLISH = PROSE["english"] * 6
_VOWELS, _CONSONANTS = "aeiou", "bcdfghjklmnpqrstvwxz"
_RECORDS = [
    {"id": number, "name": f"user{number}", "tags": ["red", "dark"], "score": number / 7, "active": number % 2 == 0}
    for number in range(40)
]

STRUCTURED = {
    "python": inspect.getsource(textwrap)[:6000],
    "json": json.dumps(_RECORDS),
    "indented json": json.dumps(_RECORDS, indent=2),
    "csv": "\n".join(",".join(map(str, record.values())) for record in _RECORDS),
    "markdown": "# Title\n\n* one **bold** item\n* `code` and [a link](https://example.com/page?x=1)\n\n"
    "| name | value |\n| --- | ---: |\n| a | 1.25 |\n\n```sh\nmake test\n```\n" * 8,
    "html": '<div class="card"><h2 id="t1">Title</h2><p>Some <b>bold</b> text.</p></div>\n' * 20,
    "digits": "".join(_RANDOM.choices(string.digits, k=3000)),
    "hex": _RANDOM.randbytes(1500).hex(),
    "uuid": "\n".join(str(uuid.UUID(bytes=_RANDOM.randbytes(16))) for _ in range(80)),
    "base64": base64.b64encode(_RANDOM.randbytes(2000)).decode(),
}


def _choose(characters, count=3000):
    return "".join(_RANDOM.choices(characters, k=count))


def _words(lengths, *alphabets, count=600):
    """Words whose letters come from the alphabets in turn."""
    return " ".join(
        "".join(_RANDOM.choice(alphabets[place % len(alphabets)]) for place in range(_RANDOM.choice(lengths)))
        for _ in range(count)
    )


def _block(first, last, count=3000):
    return "".join(chr(_RANDOM.randint(first, last)) for _ in range(count))


HOSTILE = {
    "random letters": _choose(string.ascii_lowercase),
    "random capitals": _choose(string.ascii_uppercase),
    "random letters of both cases": _choose(string.ascii_letters),
    "random printable": _choose(string.printable),
    "random punctuation": _choose(string.punctuation),
    "spaced punctuation": " ".join(_choose(string.punctuation)),
    **{f"random words of {length}": _words([length], string.ascii_lowercase) for length in (1, 2, 3, 5, 7, 9, 14)},
    **{f"syllables of {length}": _words([length], _CONSONANTS, _VOWELS) for length in (2, 4, 6, 7, 10)},
    "consonants": _words(range(2, 9), _CONSONANTS),
    "vowels": _words(range(2, 9), _VOWELS),
    "rare letters": _choose("jqxz"),
    "titles": _words(range(2, 9), string.ascii_lowercase).title(),
    "spaced letters": " ".join(_ENGLISH),
    "english in capitals": _ENGLISH.upper(),
    "english in changing case": "".join(c.upper() if i % 2 else c for i, c in enumerate(_ENGLISH)),
    "english backwards": _ENGLISH[::-1],
    "english in rot13": codecs.encode(_ENGLISH, "rot13"),
    "english without vowels": re.sub("[aeiou]", "", _ENGLISH),
    "english without spaces": _ENGLISH.replace(" ", ""),
    "english in accents": _ENGLISH.translate(str.maketrans("aeiou", "áêïõù")),
    "english in full width": "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in _ENGLISH),
    "english in mathematics": "".join(chr(0x1D41A + ord(c) - 97) if "a" <= c <= "z" else c for c in _ENGLISH),
    "english with zero widths": "\u200b".join(_ENGLISH),
    "english with marks": "".join(c + _block(0x300, 0x36F, 2) for c in _ENGLISH),
    "dna": _choose("ACGT"),
    "letters and digits": _choose(string.ascii_lowercase + string.digits),
    "a1b2": "".join(map("".join, zip(_choose(string.ascii_lowercase), _choose(string.digits), strict=True))),
    "escapes": "".join(f"\\u{_RANDOM.randrange(65536):04x}" for _ in range(500)),
    "per cent": "".join(f"%{byte:02X}" for byte in _RANDOM.randbytes(1000)),
    "base85": base64.b85encode(_RANDOM.randbytes(2400)).decode(),
    "white space": _choose(" \t\n\r"),
    "spaces": " " * 5000,
    "wide spaces": _choose("\u2000\u2003\u2009\u3000\xa0\u202f"),
    "zero width": _choose("\u200b\u200c\u200d\u2060\ufeff"),
    "direction marks": _choose("\u200e\u200f\u202a\u202e\u2066"),
    "controls": _choose("".join(map(chr, range(32))) + "\x7f"),
    "emoji": _block(0x1F300, 0x1F64F),
    "families": "👨‍👩‍👧‍👦👩🏽‍🚀🏳️‍🌈" * 100,
    "flags": _block(0x1F1E6, 0x1F1FF),
    "tags": _block(0xE0020, 0xE007E),
    "cyrillic": _words(range(2, 9), "абвгдежзийклмнопрстуфхцчшщъыьэюя"),
    "greek": _words(range(2, 9), "αβγδεζηθικλμνξοπρστυφχψω"),
    "hebrew": _words(range(2, 9), "אבגדהוזחטיכלמנסעפצקרשת"),
    "arabic": _words(range(2, 9), "ابتثجحخدذرزسشصضطظعغفقكلمنهوي"),
    "devanagari": _words(range(2, 9), "कखगघचछजझटठडढणतथदधनपफबभमयरलवशषसहािीुूेैोौ्ं"),
    "thai": _block(0x0E01, 0x0E4E),
    "kana": _block(0x3042, 0x3093),
    "ideographs": _block(0x4E00, 0x9FA5),
    "rare ideographs": _block(0x3400, 0x4DB5),
    "ideographs beyond the BMP": _block(0x20000, 0x2A6D6),
    "hangul": _block(0xAC00, 0xD7A3),
    "ethiopic": _block(0x1200, 0x1248),
    "private use": _block(0xE000, 0xF8FF),
    "mathematics": _block(0x2200, 0x22FF),
    "box drawing": _block(0x2500, 0x259F),
    "braille": _block(0x2800, 0x28FF),
    "hieroglyphs": _block(0x13000, 0x1342E),
    "random BMP": _block(0xA0, 0xD7FF),
    "random Unicode": _block(0xE000, 0x10FFFF),
}
