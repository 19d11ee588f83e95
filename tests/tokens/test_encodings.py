"""Encoded answers are read while they pass, in bounded memory."""

import contextlib
import gzip
import sys
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from token_streams import COUNTER, SSE, chat

from flask_ailimit.tokens import StreamMeter, Usage
from flask_ailimit.tokens.encodings import PIECE, UndecodableError, decoder_of

BODY = b"".join(chat())


def raw(data):
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


def br(data):
    return pytest.importorskip("brotli").compress(data)


def zstd(data):
    return pytest.importorskip("zstandard").compress(data)


ENCODERS = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "GZIP": gzip.compress,
    "deflate": zlib.compress,
    "Deflate": raw,
    "br": br,
    "zstd": zstd,
    "identity": bytes,
    "deflate, gzip": lambda data: gzip.compress(zlib.compress(data)),
    "gzip,identity,  BR": lambda data: br(gzip.compress(data)),
}


def metered(chunks, encoding, complete=True):
    meter = StreamMeter(SSE, COUNTER, encoding=encoding)
    ended = [meter.feed(chunk) for chunk in chunks]
    return meter.measure(7, complete=complete), ended


@pytest.mark.parametrize("size", [1, 7, 1000, 1 << 20])
@pytest.mark.parametrize(("encoding", "encode"), ENCODERS.items(), ids=ENCODERS)
def test_an_encoded_stream_is_read_in_any_pieces(encoding, encode, size):
    body = encode(BODY)
    measure, ended = metered([body[at : at + size] for at in range(0, len(body), size)], encoding)
    assert measure == (Usage(9, 21, 4), "reported")
    assert ended[-1]


def test_the_other_decoders_of_zstd_and_br_read_the_same(monkeypatch):
    for encoding, encoded, first in (("br", br(BODY), "brotli"), ("zstd", zstd(BODY), "backports.zstd")):
        with monkeypatch.context() as patched:
            patched.setitem(sys.modules, first, None)
            if decoder_of(encoding) is not None:
                assert metered([encoded], encoding)[0] == (Usage(9, 21, 4), "reported")


def test_where_no_decoder_is_installed_the_reservation_stands(monkeypatch):
    for name in ("brotli", "brotlicffi", "zstandard", "backports.zstd", "compression.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    for encoding in ("br", "zstd"):
        assert metered([b"whatever"], encoding)[0] == (None, "reserved")


@pytest.mark.parametrize("encoding", ["compress", "aes128gcm", "gzip, unheard-of", "gzip," * 5 + "gzip"])
def test_an_encoding_that_nobody_knows_leaves_the_reservation(encoding):
    assert metered([BODY], encoding)[0] == (None, "reserved")


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
def test_damaged_data_leaves_the_reservation(encoding):
    body = ENCODERS[encoding](BODY * 3)
    middle = len(body) // 2
    broken = body[:middle] + bytes(255 - byte for byte in body[middle : middle + 20]) + body[middle + 20 :]
    assert metered([broken], encoding)[0] == (None, "reserved")


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
def test_an_answer_that_ends_within_its_encoding_leaves_the_reservation(encoding):
    body = ENCODERS[encoding](b"".join(chat(usage=False)[:-1]))
    assert metered([body[:-9]], encoding)[0] == (None, "reserved")


def test_a_client_that_leaves_an_encoded_stream_pays_for_what_came():
    compressor = zlib.compressobj(wbits=31)
    chunks = [compressor.compress(chunk) + compressor.flush(zlib.Z_SYNC_FLUSH) for chunk in chat()[:4]]
    assert metered(chunks, "gzip", complete=False)[0] == (Usage(7, len("Hello, wörld")), "counted")


def test_gzip_may_have_several_members_and_something_after_them():
    members = b"".join(gzip.compress(chunk) for chunk in chat())
    for rest in (b"", b"\0" * 100, b"rubbish that is no member"):
        assert metered([members + rest], "gzip")[0] == (Usage(9, 21, 4), "reported")


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
def test_a_bomb_is_decoded_in_pieces(encoding):
    bomb = ENCODERS[encoding](b"data: " + b"x" * 50_000_000 + b"\n\n")
    sizes = []
    decoder = decoder_of(encoding)
    tracemalloc.start()
    try:
        decoder.decode(bomb, lambda piece: sizes.append(len(piece)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(sizes) == 50_000_008
    assert max(sizes) <= 4 * PIECE
    assert peak < 20_000_000


@given(st.binary(max_size=400), st.sampled_from(sorted(ENCODERS)))
def test_no_bytes_make_a_decoder_raise_anything_else(data, encoding):
    decoder = decoder_of(encoding)
    if decoder is not None:
        with contextlib.suppress(UndecodableError):
            decoder.decode(data, len)
    assert metered([data], encoding)[0].source in ("reported", "counted", "reserved")
