"""Measure a detector on labelled images: precision, recall, mAP, speed, and the pictures that show where it errs.

    python val.py                                                 the newest run's best.pt on the data it was trained on
    python val.py --weights yolov5n.pt --data my.yaml --imgsz 640
    python val.py --weights best.pt --task test --save-json       the test split, with a COCO results file
    python val.py --task compare --weights a.pt b.pt              which is better, by how much, and how sure that is

From Python: `import val; metrics = val.run(weights="best.pt", data="my.yaml")`.
"""

import argparse
from typing import Any


def build_parser() -> argparse.ArgumentParser:
    """The flags of YOLOv5's val.py; a default of None is filled in from the weights or the data YAML and is logged."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", help="data YAML (default: the one the weights were trained on, else data/digits.yaml)")
    add("--weights", nargs="+", help="checkpoint, .pt (default: the newest run's best.pt); several for --task compare")
    add("--batch-size", type=int, default=32, help="pictures a batch (default: 32)")
    add(
        "--imgsz",
        "--img",
        "--img-size",
        type=int,
        help="longer side in pixels (default: the data YAML's own, else 640)",
    )
    add("--conf-thres", type=float, default=0.001, help="least confidence of a detection, 0 to 1 (default: 0.001)")
    add(
        "--iou-thres",
        type=float,
        default=0.6,
        help="NMS keeps one of two boxes whose IoU is more, 0 to 1 (default: 0.6)",
    )
    add("--max-det", type=int, default=300, help="detections a picture at most (default: 300)")
    add(
        "--task",
        choices=("train", "val", "test", "compare"),
        default="val",
        help="split of the data, or compare: several --weights on val, with intervals (default: val)",
    )
    add("--device", default="", help="CUDA device number, cpu or mps (default: the best there is)")
    add("--workers", type=int, default=8, help="loader processes at most; also by CPUs and batch size (default: 8)")
    add(
        "--single-cls",
        action="store_true",
        help="all classes are one (default: as the data YAML has them, or as they were trained)",
    )
    add("--verbose", action="store_true", help="a line for each class (default: only below 50 classes)")
    add("--save-txt", action="store_true", help="detections as label files in labels/ (default: off)")
    add("--save-conf", action="store_true", help="with their confidence, 0 to 1, as a sixth column (default: without)")
    add(
        "--save-json",
        action="store_true",
        help="detections as a COCO results file, scored where annotations are (default: off)",
    )
    add(
        "--attention", action="store_true", help="what kernels of dynamic layers do: attention.png, .csv (default: off)"
    )
    add("--project", default="runs/val", help="directory of runs (default: runs/val)")
    add("--name", default="exp", help="directory of this run in it; exp2, exp3, ... where it exists (default: exp)")
    add(
        "--exist-ok", action="store_true", help="write into project/name even where it exists (default: into a new one)"
    )
    add("--half", action="store_true", help="16-bit arithmetic where the device is fast at it (default: 32-bit)")
    return parser


def parse_opt(argv: list[str] | None = None) -> argparse.Namespace:
    """The options of a command line (sys.argv where none is given)."""
    return build_parser().parse_args(argv)


def run(
    data: Any = None, weights: Any = None, batch_size: int = 32, imgsz: int | None = None, conf_thres: float = 0.001,
    iou_thres: float = 0.6, task: str = "val", device: str = "", workers: int = 8, single_cls: bool = False,
    verbose: bool = False, save_txt: bool = False, save_conf: bool = False, save_json: bool = False,
    project: Any = "runs/val", name: str = "exp", exist_ok: bool = False, half: bool = False, max_det: int = 300,
    attention: bool = False,
):  # fmt: skip
    """Validates, with the flags as arguments. Returns engine.validator.Metrics, of the task compare a
    utils.comparison.Comparison; raises InputError on unusable input."""
    return _validate(argparse.Namespace(**locals()))


def _validate(opt: argparse.Namespace):
    if opt.task == "compare":
        from engine import comparer

        return comparer.run(opt)
    from engine import validator

    return validator.run(opt)


def main(opt: argparse.Namespace) -> None:
    """Validates, with one message and exit code 1 where the input cannot be used."""
    from utils.errors import readable_errors

    with readable_errors():
        _validate(opt)


if __name__ == "__main__":
    main(parse_opt())
