"""Timing that a busy machine disturbs little: variants take turns in one process, and medians are compared.

What else runs on a machine slows all variants of a round alike, so a ratio is taken within each round and its median
over the rounds. Not for what is timed: that comes as functions without arguments.
"""

import multiprocessing
import platform
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

import torch

from utils.memory import peak_memory

Times = dict[str, list[float]]  # variant -> seconds a call, one number a round


class Ratio(NamedTuple):
    """A median over the rounds and the two quartiles around it."""

    median: float
    low: float
    high: float


SHORTEST = 0.002  # seconds that a variant runs at a time; shorter calls are repeated, as a clock has jitter


def interleave(
    variants: Mapping[str, Callable[[], object]], *, rounds: int, at_most: float = float("inf"), at_least: int = 3
) -> Times:
    """Seconds a call of each variant in each round. A round runs every variant once; the first of one is the last of
    the next, so that none always follows the same neighbour. Ends early, after `at_least` rounds, when `at_most`
    seconds are over. The first calls, which also tell how often a short call is repeated, are not counted."""
    for call in variants.values():
        call()
    repeats = {name: max(1, round(SHORTEST / _seconds(call, 1))) for name, call in variants.items()}
    times: Times = {name: [] for name in variants}
    order = list(variants)
    started = time.perf_counter()
    for done in range(rounds):
        if done >= at_least and time.perf_counter() - started > at_most:
            break
        for name in order:
            times[name].append(_seconds(variants[name], repeats[name]))
        order.append(order.pop(0))
    return times


def _seconds(call: Callable[[], object], repeats: int) -> float:
    started = time.perf_counter()
    for _ in range(repeats):
        call()
    return max((time.perf_counter() - started) / repeats, 1e-9)


def medians(times: Times) -> dict[str, float]:
    """Seconds a call of each variant, the median over the rounds."""
    return {name: median(seconds) for name, seconds in times.items()}


def ratios(times: Times, reference: str) -> dict[str, Ratio]:
    """How much longer each variant takes than the reference in the same round."""
    base = times[reference]
    return {name: _ratio([a / b for a, b in zip(seconds, base, strict=True)]) for name, seconds in times.items()}


def _ratio(values: list[float]) -> Ratio:
    low, middle, high = quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return Ratio(middle, low, high)


def speed_table(times: Times, reference: str, *, what: str, images: int) -> str:
    """A Markdown table of the variants, a call of which takes so many images: milliseconds a call, images a second, and
    the time against that of the reference, with the middle half of the rounds. what: the head of the first column."""
    lines = [
        f"| {what} | ms | images/s | time / {reference} (middle half of the rounds) | times as fast |",
        "|---|--:|--:|--:|--:|",
    ]
    relative = ratios(times, reference)
    for name, seconds in medians(times).items():
        ratio, cells = relative[name], f"{three_digits(seconds * 1e3)} | {three_digits(images / seconds)}"
        lines.append(f"| {name} | {cells} | {spread(ratio)} | {1 / ratio.median:.2f} |")
    return "\n".join(lines)


def three_digits(number: float) -> str:
    """1234.5 -> 1234, 12.345 -> 12.3, 0.012345 -> 0.0123."""
    return f"{number:.0f}" if number >= 100 else f"{number:#.3g}"


def spread(ratio: Ratio) -> str:
    """The ratio, and in brackets the quartiles around it where they differ."""
    around = "" if ratio.low == ratio.high else f" ({ratio.low:.2f}-{ratio.high:.2f})"
    return f"{ratio.median:.2f}{around}"


class Elsewhere:
    """A function without arguments in a process of its own, which takes turns with others: what a process is set up
    with, such as how it keeps memory, is then a variant too, and its peak of memory can be told.

    make(*arguments) returns the function, in the new process; both must be importable from there.
    """

    def __init__(self, make: Callable[..., Callable[[], object]], *arguments: object) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, arguments), daemon=True)
        self._process.start()
        theirs.close()

    def __call__(self) -> None:
        """Calls the function once."""
        self._pipe.send(True)
        self._pipe.recv()

    def end(self) -> int | None:
        """Ends the process. Returns the most bytes of memory it has taken, None where the system does not tell."""
        self._pipe.send(False)
        peak = self._pipe.recv()
        self._process.join()
        return peak


def _serve(pipe: Connection, make: Callable[..., Callable[[], object]], arguments: tuple[object, ...]) -> None:
    call = make(*arguments)
    while pipe.recv():
        call()
        pipe.send(None)
    pipe.send(peak_memory())


def machine() -> str:
    """What was measured on, in one line: processor, threads, torch."""
    return f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def processor() -> str:
    """The processor's name, as the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
