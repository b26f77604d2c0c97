"""What dynamic convolution costs: parameters, GFLOPs and latency of the static, dynamic and dyconv models, n to x.

python -m benchmarks.model_cost               # shows the table: some minutes
python -m benchmarks.model_cost --write       # and puts it into docs/dynamic.md and dynamic.zh-CN.md
"""

import argparse
from collections.abc import Callable

import torch

from benchmarks.pages import write_table
from benchmarks.timing import Ratio, interleave, machine, medians, ratios, spread
from models.summary import Summary, model_summary
from models.yolo import DetectionModel
from utils.files import ROOT
from utils.log import LOGGER
from utils.torch_utils import to_channels_last_

TABLE = "cost table"  # its markers' name in the pages
KINDS = {"static": "", "dynamic": "_dynamic", "dyconv": "_dyconv"}  # what the model YAML's name ends in
HEAD = """\
| model | parameters (M) | GFLOPs | latency (ms) | latency / static (middle half of the rounds) |
|---|--:|--:|--:|--:|"""


def fused_model(size: str, kind: str) -> DetectionModel:
    """The model as it is used for inference, with random weights."""
    return to_channels_last_(DetectionModel(ROOT / "models" / f"yolov5{size}{KINDS[kind]}.yaml").eval().fuse())


def forward(network: Callable[[torch.Tensor], object], images: torch.Tensor) -> Callable[[], object]:
    """A function without arguments that runs the network on the images (B, 3, H, W)."""

    def run() -> None:
        with torch.inference_mode():
            network(images)

    return run


def size_rows(size: str, imgsz: int, *, rounds: int, seconds: float) -> list[str]:
    """The three rows of one model size."""
    models = {kind: fused_model(size, kind) for kind in KINDS}
    image = torch.rand(1, 3, imgsz, imgsz).contiguous(memory_format=torch.channels_last)
    variants = {kind: forward(model, image) for kind, model in models.items()}
    times = interleave(variants, rounds=rounds, at_most=seconds, at_least=5)
    latency, relative = medians(times), ratios(times, "static")
    names = {kind: f"yolov5{size}{ending}" for kind, ending in KINDS.items()}
    return [cost_row(names[k], model_summary(models[k], imgsz), latency[k], relative[k]) for k in KINDS]


def cost_row(name: str, summary: Summary, seconds: float, relative: Ratio) -> str:
    """One row of the table. Where thop is missing its GFLOPs stay empty."""
    gflops = "" if summary.gflops is None else f"{summary.gflops:.1f}"
    return f"| {name} | {summary.parameters / 1e6:.2f} | {gflops} | {seconds * 1e3:.0f} | {spread(relative)} |"


def parse_opt(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list("nsmlx"), choices=list("nsmlx"), help="model sizes")
    parser.add_argument("--imgsz", type=int, default=640, help="pixels, a multiple of 32")
    parser.add_argument("--rounds", type=int, default=41, help="rounds a model size")
    parser.add_argument("--seconds", type=float, default=40, help="a size ends early after this time and 5 rounds")
    parser.add_argument("--write", action="store_true", help="put the table into docs/dynamic.md, in both languages")
    return parser.parse_args(argv)


def main(opt: argparse.Namespace) -> None:
    lines = [HEAD]
    LOGGER.info(HEAD)
    for size in opt.models:
        rows = size_rows(size, opt.imgsz, rounds=opt.rounds, seconds=opt.seconds)
        LOGGER.info("\n".join(rows))
        lines += rows
    note = f"{opt.imgsz}x{opt.imgsz}, {machine()}: `python -m benchmarks.model_cost --write`"
    LOGGER.info(f"\n{note}")
    if opt.write:
        write_table("\n".join([*lines, "", note]), name=TABLE)


if __name__ == "__main__":
    torch.manual_seed(0)
    main(parse_opt())
