"""Times the formulations of models/dynamic_ops.py against each other for the layers of real models, and says whether
the one that is taken by default is the fastest or within 5 % of it.

    python -m benchmarks.dynamic_conv                                        # sizes n, s, l: a few minutes
    python -m benchmarks.dynamic_conv --models n --batches 16 --rounds 31    # a part of it, in more rounds
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import torch

from benchmarks.timing import interleave, machine, medians, ratios
from models.dynamic_ops import dynamic_conv2d, fitting_formulation
from utils.log import LOGGER
from utils.torch_utils import supports_bf16_cpu

WIDTHS = {"n": 0.25, "s": 0.5, "m": 0.75, "l": 1.0, "x": 1.25}  # width_multiple
KERNELS = 4
TOLERANCE = 1.05  # the default may take this much longer than the fastest
# "stacked" computes K times as much: it is there for traces, which nothing else fits, and not timed
CANDIDATES = {1: ("matmul", "grouped", "loop"), 3: ("grouped", "loop")}


@dataclass(frozen=True)
class Place:
    """A dynamic convolution in a model: channels at width 1, and pixels of the image for one of its own."""

    name: str
    side: int
    c1: int
    c2: int
    stride: int


PLACES = (
    Place("layer 10", 1, 1024, 512, 32),
    Place("layer 14", 1, 512, 256, 16),
    Place("C3Dy at 8", 3, 512, 512, 32),
    Place("C3Dy at 6", 3, 256, 256, 16),
)


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    model: str
    place: Place
    imgsz: int
    batch: int
    bfloat16: bool  # autocast and channels_last, as in training; otherwise float32 in plain order
    backward: bool

    def __str__(self) -> str:
        place, width = self.place, WIDTHS[self.model]
        pixels = self.imgsz // place.stride
        layer = (
            f"{self.model} {place.name} | {place.side}x{place.side} {int(place.c1 * width)}->{int(place.c2 * width)}"
        )
        layout = "bfloat16, channels_last" if self.bfloat16 else "float32"
        return f"{layer} | {pixels}x{pixels} | {self.batch} | {layout} | {'both' if self.backward else 'forward'}"


def cases(models: list[str], batches: list[int], sizes: list[int]) -> Iterator[Case]:
    """Every combination; bfloat16 only where the CPU computes it itself."""
    types = (False, True) if supports_bf16_cpu() else (False,)
    for model, place, imgsz, batch, bfloat16, backward in product(models, PLACES, sizes, batches, types, (False, True)):
        yield Case(model, place, imgsz, batch, bfloat16, backward)


def calls(case: Case) -> tuple[dict[str, Callable[[], object]], str]:
    """A function without arguments for each candidate, and the name of the default among them."""
    place, width, pixels = case.place, WIDTHS[case.model], case.imgsz // case.place.stride
    c1, c2 = int(place.c1 * width), int(place.c2 * width)
    layout = torch.channels_last if case.bfloat16 else torch.contiguous_format
    kind = torch.bfloat16 if case.bfloat16 else torch.float32  # what the layer before hands over
    x = torch.randn(case.batch, c1, pixels, pixels, dtype=kind).contiguous(memory_format=layout)
    weight = torch.randn(KERNELS, c2, c1, place.side, place.side) / (c1 * place.side**2) ** 0.5
    attention = torch.randn(case.batch, KERNELS).softmax(1)
    leaves = [tensor.requires_grad_(case.backward) for tensor in (x, weight, torch.randn(KERNELS, c2), attention)]

    def run(formulation: str) -> None:
        with torch.set_grad_enabled(case.backward), torch.autocast("cpu", torch.bfloat16, enabled=case.bfloat16):
            out = dynamic_conv2d(*leaves, padding=place.side // 2, formulation=formulation)
        if case.backward:
            torch.autograd.grad(out, leaves, torch.ones_like(out))

    candidates = CANDIDATES[place.side]
    return {name: lambda name=name: run(name) for name in candidates}, fitting_formulation(x, weight)


def time_case(case: Case, rounds: int, seconds: float) -> tuple[str, float]:
    """The row of the table, and how much longer the default takes than the fastest."""
    functions, default = calls(case)
    times = interleave(functions, rounds=rounds, at_most=seconds)
    relative = {name: ratio.median for name, ratio in ratios(times, default).items()}
    excess = 1 / min(relative.values())
    cells = [f"{relative[name]:.2f}" if name in relative else "" for name in CANDIDATES[1]]
    verdict = "" if excess <= TOLERANCE else f"{min(relative, key=relative.get)} is faster"
    row = f"| {case} | {default} | {medians(times)[default] * 1e3:.2f} | {' | '.join(cells)} | {verdict} |"
    return row, excess


def parse_opt(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["n", "s", "l"], choices=list(WIDTHS), help="model sizes")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 16], help="batch sizes")
    parser.add_argument("--imgsz", nargs="+", type=int, default=[320, 640], help="image sizes, pixels")
    parser.add_argument("--rounds", type=int, default=15, help="rounds a row")
    parser.add_argument("--seconds", type=float, default=1.0, help="a row ends early after this time and 3 rounds")
    return parser.parse_args(argv)


def main(opt: argparse.Namespace) -> None:
    LOGGER.info(f"{machine()}; milliseconds of the default, and times as multiples of the default's\n")
    columns = f"layer | kernel | map | batch | type | pass | default | ms | {' | '.join(CANDIDATES[1])} | verdict"
    LOGGER.info(f"| {columns} |\n|{'---|' * (columns.count('|') + 1)}")
    excesses = []
    for case in cases(opt.models, opt.batches, opt.imgsz):
        row, excess = time_case(case, opt.rounds, opt.seconds)
        LOGGER.info(row)
        excesses.append(excess)
    good = sum(excess <= TOLERANCE for excess in excesses)
    LOGGER.info(
        f"\nThe default is the fastest or within 5 % of it in {good} of {len(excesses)} rows; "
        f"at worst it takes {max(excesses):.2f} times as long as the fastest."
    )


if __name__ == "__main__":
    torch.manual_seed(0)
    main(parse_opt())
