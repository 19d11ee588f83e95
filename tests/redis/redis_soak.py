"""Processes that decide over one Redis until they are killed, and a log to work every answer out again.

Redis itself writes the log: the scripts of the soak's processes are the store's own inside a few lines that push what
was asked, when, and what was answered onto a list. A script runs alone, so the list is in the order of the decisions,
and lacks none, whoever is killed. The store takes these scripts for its own, and they are forgotten with the server.
"""

import os
import random
import struct
import sys
import time
from collections import deque
from contextlib import suppress
from functools import cache
from mmap import mmap
from pathlib import Path
from typing import NamedTuple

sys.path.append(str(Path(__file__).parents[1] / "engine"))

from soak import QUOTAS, RENEW, RESERVE, SETTLE, SUBJECTS, settlements, spawn

from flask_ailimit.engine import Charge, StoreError
from flask_ailimit.engine.stores.redis import packing
from flask_ailimit.engine.stores.redis.addresses import parse
from flask_ailimit.engine.stores.redis.connecting import wires_to
from flask_ailimit.engine.stores.redis.links import Link
from flask_ailimit.engine.stores.redis.scripts import Script, load
from flask_ailimit.engine.stores.redis.store import RedisStore

TIMEOUT = 0.25
HANG = 0.6
"""Seconds that the server hangs, now and then: longer than anybody waits."""

ALL = bytes([9]) * 16
"""A subject that many requests have in common."""

PREFIX = "soak"
LOG = b"soak:log"
UNASKED = 2
GATE = -1
"""Where, behind the progress of all slots, stands how many decisions are made before the next disturbance."""

NOTHING_MORE = 2**63

_HEAD = struct.Struct("<BBBqH")
_ASKED = struct.Struct(f"<{packing._HEAD}")
_ITEM = struct.calcsize(f"<{packing._CHARGE}")
_ONE_LEASE = "Iq"
"""What renew is asked besides: how many leases of the count (each request has one), and which."""
_NUMBER_BITS, _RANDOM_BITS = 24, 25

# Whatever of Redis the script uses is used through this; work() is the script itself. The markers are its last keys.
_BEFORE = b"""
local server, asked = redis, {now = {0, 0}}
local subjects = select(3, struct.unpack('<i8i8I2', ARGV[1]))
local redis = setmetatable({call = function(...)
  local command, key = ...
  local answer = server.call(...)
  if command == 'TIME' then asked.now = answer end
  for number = 1, 2 do
    if key and key == KEYS[subjects + number] and not asked[number] then
      -- GET finds what is there, and SET NX writes where nothing is.
      asked[number] = (command == 'GET') == not answer and 1 or 0
    end
  end
  return answer
end}, {__index = server})
local function work()
"""
_AFTER = b"""
end
local answer = work()
local told = type(answer) == 'number' and struct.pack('<i8', answer) or answer
local now_us = asked.now[1] * 1000000 + asked.now[2]
local head = struct.pack('<BBBi8I2', %d, asked[1] or 2, asked[2] or 2, now_us, #ARGV[1])
server.call('RPUSH', '%b', head .. ARGV[1] .. told)
return answer
"""


class Logged(NamedTuple):
    """A script that ran.

    Attributes:
        kind: RESERVE, SETTLE or RENEW.
        is_new: Whether its first marker was not there; None if it has none.
        is_undone: Whether its second marker was not there; None if it has none.
        now_us: When it ran.
        slot: Which of the processes.
        number: Which of its requests.
        lease: The reservation's number.
        details: Of each item of a settlement: when it was taken, what it really cost.
        soft: Of each item of a settlement: the most that is left when it is told of, -1 if it is not.
        answer: What it answered.
    """

    kind: int
    is_new: bool | None
    is_undone: bool | None
    now_us: int
    slot: int
    number: int
    lease: int
    details: list
    soft: list
    answer: bytes


class LoggedLink(Link):
    """Runs the store's scripts inside those that write the log."""

    def _eval(self, script, *rest, **named):
        return super()._eval(_logged(script), *rest, **named)


@cache
def _logged(script):
    first_line, rest = script.text.split(b"\n", 1) if script.text.startswith(b"#!") else (b"", script.text)
    for kind, name in [(RESERVE, "reserve"), (SETTLE, "settle"), (RENEW, "renew")]:
        if rest == load(name).text:
            shebang = first_line and first_line + b"\n"
            return Script.of(shebang + _BEFORE + rest + _AFTER % (kind, LOG))
    return script


def request(slot, number):
    """The charges of this process's so-manieth request, and what each will really have cost."""
    draw = random.Random(slot << 32 | number)
    charges = [
        Charge(subject, quota, draw.choice([1, 200, 5000]) if quota.unit == "tokens" else 1)
        for subject in [draw.choice(SUBJECTS), ALL][: draw.choice([1, 1, 2])]
        for quota in draw.sample(QUOTAS, draw.randint(2, 6))
    ]
    part = draw.choice([0, 0.3, 1, 1.7])
    return charges, [round(c.cost * part) if c.quota.unit == "tokens" else c.cost for c in charges]


def work(uri, progress, slot, decisions):
    """Decide until so many decisions of this slot are done, by this process and those killed before it."""
    wires = wires_to(parse(uri), {}, timeout=TIMEOUT, connect_timeout=TIMEOUT)
    store = RedisStore(LoggedLink(wires(4), PREFIX), prefix=PREFIX)
    draw, unsettled, parent = random.Random(), deque(maxlen=200), os.getppid()
    while (number := progress[slot]) < decisions and os.getppid() == parent:
        if sum(progress[:GATE]) >= progress[GATE]:
            time.sleep(0.001)
            continue  # Something is to happen first.
        lease = (slot << _NUMBER_BITS | number) << _RANDOM_BITS | draw.getrandbits(_RANDOM_BITS)
        try:
            decision = store.reserve(request(slot, number)[0], lease)
        except StoreError:
            time.sleep(0.01)
            continue  # Nobody knows what became of it; the next one has another lease.
        if decision.allowed:
            unsettled.append((number, decision.at_us, lease))
        progress[slot] = number + 1
        while unsettled and draw.random() < 0.5:
            settled = unsettled.popleft() if draw.random() < 0.9 else unsettled.pop()
            settled, *taken = settled
            store.settle(settlements(request(slot, settled), *taken))
        if unsettled and draw.random() < 0.05:
            renewed, _, lease = draw.choice(unsettled)
            held = [(c, lease) for c in request(slot, renewed)[0] if c.quota.unit == "concurrency"]
            with suppress(StoreError):  # It ends when its time is over.
                store.renew(held)


class Crew:
    """The processes that decide, one for each slot until its part is done."""

    def __init__(self, uri, progress, decisions):
        self._uri, self._progress, self._decisions = uri, progress, decisions
        self._running = {}
        self.killed = 0
        for slot in range(len(progress[:GATE])):
            self._start(slot)

    def __bool__(self):
        return bool(self._running)

    def _start(self, slot):
        if self._progress[slot] < self._decisions:
            self._running[spawn(work, self._uri, self._progress, slot, self._decisions)] = slot

    def kill(self, draw):
        """Kill one, if any is left, and let another one go on in its place."""
        killed = self.killed
        while self._running and self.killed == killed:  # One whose part was done has ended by itself.
            child = draw.choice(list(self._running))
            os.kill(child, 9)
            self._replace(*os.waitpid(child, 0))

    def look(self):
        """Answer whether one had ended, and let another one go on in its place if its part isn't done."""
        child, status = os.waitpid(-1, os.WNOHANG)
        if child:
            self._replace(child, status)
        return bool(child)

    def _replace(self, child, status):
        assert os.waitstatus_to_exitcode(status) in (0, -9)
        self.killed += os.WIFSIGNALED(status)
        self._start(self._running.pop(child))

    def end(self):
        for child in self._running:
            os.kill(child, 9)
            os.waitpid(child, 0)


def soak(server, log, *, processes, decisions, kills, disturbances):
    """Run it, and write the log to a file; answer how many processes were killed."""
    draw = random.Random()
    ask = server.client(decode_responses=False).execute_command

    def hang():
        server.stop_process()
        time.sleep(HANG)
        server.continue_process()

    disturb = [
        lambda: ask("SCRIPT", "FLUSH"),
        lambda: ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"),
        lambda: ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"),
        hang,
    ]
    total = processes * decisions
    with mmap(-1, 8 * (processes + 1)) as shared, log.open("wb") as file:
        progress = memoryview(shared).cast("Q")
        what = [lambda: crew.kill(draw)] * kills + [disturb[number % len(disturb)] for number in range(disturbances)]
        moments = deque(sorted(((draw.randrange(total * 19 // 20), do) for do in what), key=lambda moment: moment[0]))
        progress[GATE] = moments[0][0]
        crew = Crew(server.uri, progress, decisions)
        try:
            while crew:
                while moments and sum(progress[:GATE]) >= moments[0][0]:
                    moments.popleft()[1]()
                progress[GATE] = moments[0][0] if moments else NOTHING_MORE
                if not crew.look() and not drain(ask, file):
                    time.sleep(0.002)  # Leaves the cores to those who decide.
        finally:
            crew.end()
        while drain(ask, file):
            pass
        assert list(progress[:GATE]) == [decisions] * processes
        progress.release()
    return crew.killed


def drain(ask, file):
    """Write what the server has logged to the file; answer whether there was anything."""
    entries = ask("LPOP", LOG, 2000) or []
    for entry in entries:
        file.write(struct.pack("<H", len(entry)) + entry)
    return bool(entries)


def read_log(log):
    with log.open("rb") as file:
        while size := file.read(2):
            yield _read(file.read(*struct.unpack("<H", size)))


def _read(entry):
    kind, first, second, now_us, size = _HEAD.unpack_from(entry)
    asked, answer = entry[_HEAD.size : _HEAD.size + size], entry[_HEAD.size + size :]
    _, lease, _, count = _ASKED.unpack_from(asked)
    details = []
    if kind != RESERVE:
        more = struct.Struct(f"<{packing._SETTLED if kind == SETTLE else _ONE_LEASE}")
        ends = [_ASKED.size + (_ITEM + more.size) * (number + 1) for number in range(count)]
        details = [more.unpack_from(asked, end - more.size) for end in ends]
        lease = details[0][-1]
        assert {detail[-1] for detail in details} == {lease}
    slot, number = divmod(lease >> _RANDOM_BITS, 1 << _NUMBER_BITS)
    is_new, is_undone = (None if each == UNASKED else bool(each) for each in (first, second))
    soft, details = [detail[0] for detail in details], [detail[1:-1] for detail in details]
    return Logged(kind, is_new, is_undone, now_us, slot, number, lease, details, soft, answer)
