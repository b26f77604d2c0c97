"""What dynamic convolution costs: parameters, GFLOPs and latency of the static, dynamic and dyconv models, n to x.

python -m benchmarks.model_cost               # shows the table: some minutes
python -m benchmarks.model_cost --write       # and puts it into docs/dynamic.md
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.timing import Ratio, interleave, machine, medians, ratios
from models.model_yaml import ROOT
from models.summary import Summary, model_summary
from models.yolo import DetectionModel
from utils.errors import InputError
from utils.files import atomic_write
from utils.log import LOGGER
from utils.torch_utils import to_channels_last_

PAGE = ROOT / "docs" / "dynamic.md"
START, END = "<!-- cost table -->", "<!-- /cost table -->"
KINDS = {"static": "", "dynamic": "_dynamic", "dyconv": "_dyconv"}  # what the model YAML's name ends in
HEAD = """\
| model | parameters (M) | GFLOPs | latency (ms) | latency / static (middle half of the rounds) |
|---|--:|--:|--:|--:|"""


def fused_model(size: str, kind: str) -> DetectionModel:
    """The model as it is used for inference, with random weights."""
    return to_channels_last_(DetectionModel(ROOT / "models" / f"yolov5{size}{KINDS[kind]}.yaml").eval().fuse())


def forward(model: DetectionModel, image: torch.Tensor) -> Callable[[], object]:
    """A function without arguments that runs the model on the image (1, 3, H, W)."""

    def run() -> None:
        with torch.inference_mode():
            model(image)

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
    spread = f"{relative.median:.2f}"
    if relative.low != relative.high:
        spread += f" ({relative.low:.2f}-{relative.high:.2f})"
    return f"| {name} | {summary.parameters / 1e6:.2f} | {gflops} | {seconds * 1e3:.0f} | {spread} |"


def replace_between(text: str, table: str, page: Path) -> str:
    """The page's text with the table in place of what stands between the two markers. Raises InputError without
    them."""
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise InputError(f"expected a line {START} and after it a line {END} in {page}")
    return f"{before}{START}\n{table}\n{END}{after}"


def write_table(table: str, page: Path) -> None:
    """Puts the table between the markers of the page."""
    text = replace_between(page.read_text(encoding="utf-8"), table, page)
    with atomic_write(page) as file:
        file.write(text.encode("utf-8"))
    LOGGER.info(f"\nwritten into {page}")


def parse_opt(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list("nsmlx"), choices=list("nsmlx"), help="model sizes")
    parser.add_argument("--imgsz", type=int, default=640, help="pixels, a multiple of 32")
    parser.add_argument("--rounds", type=int, default=41, help="rounds a model size")
    parser.add_argument("--seconds", type=float, default=40, help="a size ends early after this time and 5 rounds")
    parser.add_argument("--write", action="store_true", help="put the table into docs/dynamic.md")
    return parser.parse_args(argv)


def main(opt: argparse.Namespace) -> None:
    lines = [HEAD]
    LOGGER.info(HEAD)
    for size in opt.models:
        rows = size_rows(size, opt.imgsz, rounds=opt.rounds, seconds=opt.seconds)
        LOGGER.info("\n".join(rows))
        lines += rows
    note = (
        f"Batch 1, {opt.imgsz}x{opt.imgsz}, fused, eager, float32, channels_last, in turns in one process: "
        f"medians. {machine()}. `python -m benchmarks.model_cost --write`"
    )
    LOGGER.info(f"\n{note}")
    if opt.write:
        write_table("\n".join([*lines, "", note]), PAGE)


if __name__ == "__main__":
    torch.manual_seed(0)
    main(parse_opt())
