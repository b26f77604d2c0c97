"""How long does non-maximum suppression take at worst?

python -m benchmarks.nms                # half a minute
python -m benchmarks.nms --device 0

Random boxes in one image of 640 pixels, all of them candidates: scattered, where most are kept, and crowded around few
objects, where most are suppressed. Suppression looks at the 30,000 most confident at most, so that its time is bounded.
"""

import argparse
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.timing import interleave, machine, medians, three_digits
from utils.log import LOGGER
from utils.nms import non_max_suppression
from utils.torch_utils import select_device, time_sync

COUNTS = (100, 1_000, 10_000, 30_000, 100_000)
OBJECTS = 20  # that the crowded boxes are around
NC = 80
SETTINGS = {
    "detect.py": {"conf_thres": 0.25, "iou_thres": 0.45, "max_det": 1000},
    "val.py": {"conf_thres": 0.001, "iou_thres": 0.6, "max_det": 300, "multi_label": True},
}


def predictions(count: int, *, crowded: bool) -> Tensor:
    """(1, count, 5 + NC), each with one class above every threshold."""
    rng = torch.Generator().manual_seed(0)
    rows = torch.zeros(count, 5 + NC)
    if crowded:
        objects = torch.rand(OBJECTS, 4, generator=rng) * torch.tensor((500.0, 500.0, 80.0, 80.0)) + 60
        rows[:, :4] = objects[torch.randint(OBJECTS, (count,), generator=rng)]
        rows[:, :4] += torch.randn(count, 4, generator=rng) * 3
    else:
        rows[:, :4] = torch.rand(count, 4, generator=rng) * torch.tensor((640.0, 640.0, 60.0, 60.0)) + 3
    rows[:, 4] = torch.rand(count, generator=rng) * 0.5 + 0.5
    rows[torch.arange(count), 5 + torch.randint(NC, (count,), generator=rng)] = 0.9
    return rows[None]


def suppression(setting: str, count: int, *, crowded: bool, device: torch.device) -> Callable[[], object]:
    """A function without arguments that suppresses that many candidates."""
    pred = predictions(count, crowded=crowded).to(device)

    def run() -> None:
        non_max_suppression(pred, **SETTINGS[setting])
        time_sync(device)

    return run


def parse_opt(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or a CUDA device number")
    parser.add_argument("--counts", nargs="+", type=int, default=list(COUNTS), help="candidates")
    parser.add_argument("--rounds", type=int, default=9, help="rounds")
    parser.add_argument("--seconds", type=float, default=20, help="ends early after this time and 3 rounds")
    return parser.parse_args(argv)


def main(opt: argparse.Namespace) -> None:
    device = select_device(opt.device)
    cases = [(setting, crowded) for setting in SETTINGS for crowded in (False, True)]
    variants = {
        f"{setting} {crowded} {count}": suppression(setting, count, crowded=crowded, device=device)
        for setting, crowded in cases
        for count in opt.counts
    }
    seconds = medians(interleave(variants, rounds=opt.rounds, at_most=opt.seconds))
    LOGGER.info(f"| thresholds of | boxes | {' | '.join(f'{count:,}' for count in opt.counts)} |")
    LOGGER.info("|---|---|" + "--:|" * len(opt.counts))
    for setting, crowded in cases:
        cells = (three_digits(1e3 * seconds[f"{setting} {crowded} {count}"]) for count in opt.counts)
        LOGGER.info(f"| {setting} | {'crowded' if crowded else 'scattered'} | {' | '.join(cells)} |")
    LOGGER.info(f"\nMilliseconds an image, by candidates. {machine()}")


if __name__ == "__main__":
    main(parse_opt())
