"""A figure: what was measured, how it spreads, and whether it is where it should be. Pure arithmetic."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles

MEETS, MISSES, SHOWN, NOT_MEASURED = "meets", "MISSES", "shown", "not measured"

REFERENCE_REQUEST_US = 48.0
"""A bare Flask request on the machine that the aims in milliseconds and microseconds are meant for."""

REFERENCE = " as on the reference machine"


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        blocks: Rounds in which every contestant has its turn; each gives one sample.
        share: Of the usual amount of work, 1 for a figure to trust, less to see that it runs.
    """

    blocks: int
    share: float = 1.0

    def part(self, usual: int, least: int = 1) -> int:
        """So many in place of the usual number."""
        return max(least, int(usual * self.share))

    def rounds(self, of_blocks: float, least: int = 2) -> int:
        """So many blocks, for a family whose blocks are long."""
        return max(min(least, self.blocks), int(self.blocks * of_blocks))


FULL = Size(30)
TINY = Size(1, 0.01)


@dataclass(frozen=True)
class Figure:
    """One row of the table.

    Attributes:
        name: What is measured, and against what.
        samples: One value per block; none if it could not be measured.
        unit: Of the samples; ``x`` is a ratio.
        aim: Where the median should be at most, or, if ``at_least``, at least. None: the figure is shown only.
        at_least: More is better.
        times: The times behind a ratio, by contestant, in microseconds.
        remark: What one must know to read it.
    """

    name: str
    samples: Sequence[float]
    unit: str = "x"
    aim: float | None = None
    at_least: bool = False
    times: Mapping[str, Sequence[float]] = field(default_factory=dict)
    remark: str = ""

    @property
    def middle(self) -> float:
        """The median over the blocks."""
        return median(self.samples)

    @property
    def middle_half(self) -> tuple[float, float]:
        """The first and the third quartile of the blocks."""
        if len(self.samples) < 2:
            return (self.samples[0], self.samples[0])
        low, _, high = quantiles(self.samples, n=4, method="inclusive")
        return (low, high)

    @property
    def verdict(self) -> str:
        """Whether the median is where the aim says."""
        if not self.samples:
            return NOT_MEASURED
        if self.aim is None:
            return SHOWN
        right = self.middle >= self.aim if self.at_least else self.middle <= self.aim
        return MEETS if right else MISSES

    @property
    def of_aim(self) -> float | None:
        """The median as a part of the aim; up to 1 is where it should be, whichever way the aim points."""
        if self.aim is None or not self.samples or not self.middle:
            return None
        return self.aim / self.middle if self.at_least else self.middle / self.aim


def not_measured(name: str, why: str) -> Figure:
    """A row for what could not be done, so that nobody looks for it."""
    return Figure(name, (), remark=why)


def ratios(over: Iterable[float], under: Iterable[float]) -> list[float]:
    """Block by block: what stood side by side is compared, so that what slowed both down drops out."""
    return [each / other for each, other in zip(over, under, strict=True)]


def added(times: Iterable[float], bare: Iterable[float]) -> list[float]:
    """Block by block, what a contestant took more than the bare request."""
    return [each - other for each, other in zip(times, bare, strict=True)]


def scaled(times: Iterable[float], bare: Iterable[float]) -> list[float]:
    """The times as they would be where a bare request takes :data:`REFERENCE_REQUEST_US`."""
    return [each * REFERENCE_REQUEST_US / yardstick for each, yardstick in zip(times, bare, strict=True)]


def compared(
    name: str,
    ours: str,
    other: str,
    times: tuple[Mapping[str, Sequence[float]], Mapping[str, Sequence[float]]],
    aim: float | None,
    *,
    waits: bool,
    remark: str = "",
) -> Figure:
    """A ratio of two contestants of a race.

    Args:
        name: The row's.
        ours: The contestant over the line.
        other: The one below it.
        times: Wall time and processor time, as a race answers.
        aim: Of the ratio.
        waits: The work waits for a server, so the clock says what it costs; otherwise the processor does.
        remark: What else to know.
    """
    wall, processor = (ratios(each[ours], each[other]) for each in times)
    judged, beside, also = (
        (wall, processor, "of this process's processor time") if waits else (processor, wall, "by the clock")
    )
    seen = times[0] if waits else times[1]
    also = f"{also} {median(beside):.2f} x"
    remark = f"{remark}; {also}" if remark else also
    return Figure(name, judged, "x", aim, times={other: seen[other], ours: seen[ours]}, remark=remark)


def here_and_there(figure: Figure, bare: Sequence[float]) -> list[Figure]:
    """A figure in units of time as it is here, and as it would be on the reference machine.

    The aim is the reference machine's; here it is judged as well, since a machine that is slower may still meet it.
    """
    yardstick = {**figure.times, "bare Flask request": bare}
    here = f"here a bare Flask request takes {median(bare):.0f} us, on the reference machine {REFERENCE_REQUEST_US:.0f}"
    there = Figure(
        figure.name + REFERENCE,
        scaled(figure.samples, bare),
        figure.unit,
        figure.aim,
        figure.at_least,
        remark="scaled by the bare request of the same block; the aim is meant for that machine",
    )
    plain = Figure(
        figure.name,
        figure.samples,
        figure.unit,
        figure.aim,
        figure.at_least,
        yardstick,
        f"{figure.remark}; {here}" if figure.remark else here,
    )
    return [plain, there]
