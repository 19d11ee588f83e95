"""A prompt of a megabyte: estimated, and counted exactly; English, and text that was made to take long.

Nobody may hold up the other requests of a worker meanwhile, so a second thread ticks beside each and its longest wait
is told.
"""

import json
import threading
import time
from collections.abc import Callable
from functools import partial
from pydoc_data.topics import topics
from statistics import median

import limited_flask as apps
from figures import Figure, Size, here_and_there
from racing import Work, race
from requests_to import caller

from flask_ailimit.tokens import decode_body, estimate_request, open_counter

MEGABYTE = 1_000_000
BARE = "bare Flask request"
TICK = 0.001
STALL_MS = 50.0
"""Our own aim: ten of the interpreter's switch intervals."""

COUNTERS = {"estimated": "estimate", "counted with o200k_base": "o200k_base"}
AIMS_MS = {"estimated": 75.0, "counted with o200k_base": 20.0}
HOSTILE_MS = 500.0


def english(size: Size) -> str:
    """Python's own reference: long enough that nothing repeats for half a megabyte, and on every machine."""
    text = "\n\n".join(topics[name] for name in sorted(topics))
    return (text * 4)[: size.part(MEGABYTE, 2000)]


def hostile(size: Size) -> dict[str, str]:
    """A megabyte of each kind that is hard to split into words, or to decode."""
    length = size.part(MEGABYTE, 2000)
    kinds = {
        "one letter": "a",
        "spaces": " ",
        "dashes": "-",
        "letters and spaces": "a ",
        "digits": "1234567890",
        "capitals in turn": "aB",
        "accents": "\u0301",
        "emoji with joiners": "\U0001f468\u200d\U0001f469\u200d",
        "ideographs": "\u6f22\u5b57\u7e41",
        "half pairs": "\ud800",
        "white space of all kinds": " \t\n\r\u00a0\u2003",
        "contractions": "'s't're've'm'll'd",
    }
    return {
        name: (kind * length)[: length // len(kind[0].encode("utf-8", "surrogatepass"))] for name, kind in kinds.items()
    }


def figures(size: Size) -> list[Figure]:
    """English against the bare request of the same block, then what is hostile, each kind by itself."""
    text = english(size)
    raw = json.dumps({"model": "m", "messages": [{"role": "user", "content": text}], "max_tokens": 256}).encode()
    contestants = {BARE: _bare, **{name: partial(_counting, counter, raw) for name, counter in COUNTERS.items()}}
    wall, processor = race(contestants, size, {BARE: 60, **dict.fromkeys(COUNTERS, 1)}, blocks=size.rounds(1 / 2))
    found = []
    for name in COUNTERS:
        # Microseconds per byte are seconds per megabyte.
        samples, by_the_clock = ([each / len(raw) * 1000 for each in times[name]] for times in (processor, wall))
        remark = f"decoding included; by the clock {median(by_the_clock):.0f} ms/MB"
        of = Figure(f"a prompt of 1 MB of English, {name}", samples, "ms/MB", AIMS_MS[name], remark=remark)
        found += here_and_there(of, processor[BARE])
    return found + [figure for name, counter in COUNTERS.items() for figure in _hostile(name, counter, size)]


def _bare() -> Work:
    return Work(caller(apps.bare()))


def _counting(counter: str, raw: bytes) -> Work:
    count = open_counter(counter)
    return Work(lambda: estimate_request(decode_body(raw), counter=count, default_output_tokens=1024))


def _hostile(name: str, counter: str, size: Size) -> list[Figure]:
    count, taken, stalls = open_counter(counter), {}, {}
    for kind, text in hostile(size).items():
        per = MEGABYTE / len(text.encode("utf-8", "surrogatepass"))
        each = [longest_stall(partial(count, text)) for _ in range(size.rounds(1 / 10, 1))]
        stalls[kind], taken[kind] = [waited * 1000 for waited, _ in each], [spent * 1000 * per for _, spent in each]
    quiet, _ = longest_stall(partial(time.sleep, 0.2))
    worst, longest = (max(of, key=lambda kind: median(of[kind])) for of in (taken, stalls))
    kinds = ", ".join(f"{kind} {median(ms):.0f}" for kind, ms in sorted(taken.items(), key=lambda of: -median(of[1])))
    alone = f"beside {longest}; beside a sleeping thread {quiet * 1000:.1f} ms; the aim is our own"
    return [
        Figure(f"hostile text, {name}, the slowest kind: {worst}", taken[worst], "ms/MB", HOSTILE_MS, remark=kinds),
        Figure(f"hostile text, {name}, longest wait of another thread", stalls[longest], "ms", STALL_MS, remark=alone),
    ]


def longest_stall(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds that a thread which wakes up every millisecond waited for its turn at most, and that the work took.

    The work's are its thread's processor time; the wait is by the clock, and others' use of the machine is in it.
    """
    over, longest, ticking = threading.Event(), 0.0, threading.Event()

    def tick() -> None:
        nonlocal longest
        last = time.perf_counter()
        while not over.is_set():
            time.sleep(TICK)
            now = time.perf_counter()
            longest, last = max(longest, now - last - TICK), now
            ticking.set()

    beside = threading.Thread(target=tick)
    beside.start()
    ticking.wait()
    start = time.thread_time()
    work()
    seconds = time.thread_time() - start
    time.sleep(2 * TICK)  # Let it say how long it waited.
    over.set()
    beside.join()
    return longest, seconds
