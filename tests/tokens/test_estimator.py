import string
import time
from itertools import product
from statistics import median

import pytest
from processor_time import require_done_within
from token_prose import PROSE
from token_texts import HOSTILE, STRUCTURED

from flask_ailimit.tokens import open_counter
from flask_ailimit.tokens.estimator import SLICE
from flask_ailimit.tokens.scripts import common_hangul, common_ideographs, foreign_prices

estimate = open_counter()
MEGABYTES = {
    "dashes": "-" * 1_000_000,
    "letters": "a" * 1_000_000,
    "words": PROSE["english"] * 3200,
    "spaces": " " * 1_000_000,
    "white space": HOSTILE["white space"] * 333,
    "base64": STRUCTURED["base64"] * 370,
    "digits": "1234567890" * 100_000,
    "one-letter words": "a " * 500_000,
    "punctuation": HOSTILE["random punctuation"] * 333,
    "ideographs": HOSTILE["ideographs"] * 111,
    "random BMP": HOSTILE["random BMP"] * 111,
    "emoji": "\U0001f600" * 250_000,
    "accents": "é" * 500_000,
    "zero width": "\u200b" * 333_000,
    "half pairs": "\ud800" * 333_000,
}


@pytest.fixture(scope="module")
def exact():
    pytest.importorskip("toktok")
    return open_counter("o200k_base")


@pytest.mark.parametrize("text", [*PROSE.values(), *STRUCTURED.values()], ids=[*PROSE, *STRUCTURED])
def test_what_people_send_is_estimated_near_its_count(exact, text):
    assert 0.8 <= estimate(text) / exact(text) <= 1.8


def test_the_usual_text_is_not_estimated_half_as_much_again(exact):
    assert median(estimate(text) / exact(text) for text in PROSE.values()) <= 1.5
    assert median(estimate(text) / exact(text) for text in STRUCTURED.values()) <= 1.5


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_is_not_estimated_much_too_low(exact, text):
    assert estimate(text) / exact(text) >= 0.55


@pytest.mark.parametrize("text", [*PROSE.values(), *STRUCTURED.values(), *HOSTILE.values()])
def test_a_quarter_of_the_estimate_is_certain(exact, text):
    assert estimate(text) // 4 <= exact(text)


@pytest.mark.parametrize("length", [1, 2])
def test_no_characters_said_over_and_over_cost_less_than_a_third(exact, length):
    printable = string.ascii_letters + string.digits + string.punctuation + " \n\t"
    repeated = ["".join(characters) * 60 for characters in product(printable, repeat=length)]
    assert min(estimate(text) / exact(text) for text in repeated) >= 0.32


@pytest.mark.parametrize("character", "-=*#_.~!+/ \n\t", ids=ascii)
def test_a_drawn_line_is_not_charged_by_its_length(exact, character):
    for times in (1, 5, 15, 64, 1000):
        assert estimate(character * times) // 4 <= exact(character * times)


@pytest.mark.parametrize("text", ["a", " ", "\n", "\u200b", "\ud800", "\0", "é", "\U0010ffff"], ids=ascii)
def test_no_text_is_free(text):
    assert estimate(text) >= 1


def test_only_the_empty_text_is_free():
    assert estimate("") == 0


@pytest.mark.parametrize("text", [PROSE["english"], PROSE["russian"], PROSE["chinese"]])
def test_a_text_counts_the_same_however_it_is_sliced(text):
    whole = text * (3 * SLICE // len(text))
    assert estimate(whole) == pytest.approx(estimate(text) * (3 * SLICE // len(text)), rel=0.02)


@pytest.mark.parametrize("text", MEGABYTES.values(), ids=MEGABYTES)
def test_a_megabyte_takes_little_time_whatever_is_in_it(text):
    require_done_within(0.5, lambda: estimate(text))


@pytest.mark.parametrize("text", MEGABYTES.values(), ids=MEGABYTES)
def test_time_is_in_proportion_to_length(text):
    def seconds(sample):
        def once():
            started = time.thread_time()
            estimate(sample)
            return time.thread_time() - started

        return min(once() for _ in range(3))

    quarter = text[: len(text) // 4]
    assert seconds(text) < 12 * seconds(quarter)


def test_common_characters_are_those_of_the_national_standards():
    assert len(common_hangul()) == 2350
    assert {"的", "是", "國", "駅"} <= common_ideographs()
    assert "\u4e02" not in common_ideographs()
    assert 3755 < len(common_ideographs()) < 3755 + 5401 + 2965


@pytest.mark.parametrize(("common", "rare"), [("\u7684", "\u4e02"), ("\uac00", "\uac03"), ("\u0995", "\u0984")])
def test_what_no_vocabulary_has_learned_costs_more(common, rare):
    assert estimate(rare * 100) > 1.4 * estimate(common * 100)


def test_every_code_point_beyond_ascii_has_a_price():
    prices = foreign_prices()
    assert len(prices) == 0x110000
    assert all("\x01" <= price <= "\xff" for price in prices[0x80:])
