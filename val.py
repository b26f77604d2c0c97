"""Measure a detector on labelled images: precision, recall, mAP, speed, and the pictures that show where it errs.

    python val.py                                                 the newest run's best.pt on the data it was trained on
    python val.py --weights yolov5n.pt --data my.yaml --imgsz 640
    python val.py --weights best.pt --task test --save-json       the test split, with a COCO results file
    python val.py --task study --weights a.pt                     mAP and speed at image sizes from 256 to 1536
    python val.py --task compare --weights a.pt b.pt              which is better, by how much, and how sure that is

From Python: `import val; metrics = val.run(weights="best.pt", data="my.yaml")`.
"""

import argparse
from collections.abc import Callable
from typing import Any

Add = Callable[..., argparse.Action]  # add_argument of a group
SWITCH = {"action": "store_true"}


def build_parser() -> argparse.ArgumentParser:
    """The flags of YOLOv5's val.py in groups, each with its unit and default; a default of None is filled in from the
    weights or the data YAML and is logged."""
    from utils.flags import FlagParser

    return FlagParser(__doc__, GROUPS)


def _add_measured(add: Add) -> None:
    weights = "checkpoint or exported model; several are an ensemble, or compared (default: the newest run's best.pt)"
    add("--weights", nargs="+", help=weights)
    add("--data", help="data YAML (default: the one the weights were trained on, else data/digits.yaml)")
    task = "split of the data; or on val: speed alone, study of image sizes, compare several --weights (default: val)"
    add("--task", choices=("train", "val", "test", "speed", "study", "compare"), default="val", help=task)
    add("--single-cls", **SWITCH, help="all classes are one (default: as they were in the training)")
    size = "longer side in pixels (default: the data YAML's own, else 640)"
    add("--imgsz", "--img", "--img-size", type=int, help=size)
    add("--batch-size", type=int, default=32, help="pictures a batch (default: 32)")


def _add_detections(add: Add) -> None:
    add("--conf-thres", type=float, default=0.001, help="least confidence, 0 to 1 (default: 0.001)")
    iou = "NMS keeps one of two boxes whose IoU is more, 0 to 1 (default: 0.6)"
    add("--iou-thres", type=float, default=0.6, help=iou)
    add("--max-det", type=int, default=300, help="detections a picture at most (default: 300)")
    add("--augment", **SWITCH, help="test-time augmentation: three sizes, one mirrored (default: off)")


def _add_machine(add: Add) -> None:
    add("--device", default="", help="CUDA device number, cpu or mps (default: the best there is)")
    add("--workers", type=int, default=8, help="loader processes at most; also by CPUs and batch size (default: 8)")
    add("--half", **SWITCH, help="16-bit arithmetic where the device is fast at it (default: 32-bit)")
    add("--dnn", **SWITCH, help="run .onnx files with OpenCV (default: with ONNX Runtime)")


def _add_results(add: Add) -> None:
    add("--project", default="runs/val", help="directory of runs (default: runs/val)")
    add("--name", default="exp", help="directory of this run in it; exp2, exp3, ... where it exists (default: exp)")
    add("--exist-ok", **SWITCH, help="write into project/name even where it exists (default: into a new one)")
    add("--save-txt", **SWITCH, help="detections as label files in labels/ (default: off)")
    add("--save-conf", **SWITCH, help="with their confidence, 0 to 1, as a sixth column (default: without)")
    add("--save-hybrid", **SWITCH, help="labels and detections together as label files in labels/ (default: off)")
    add("--save-json", **SWITCH, help="detections as COCO results, scored where annotations are (default: off)")
    add("--attention", **SWITCH, help="what kernels of dynamic layers do: attention.png and .csv (default: off)")
    add("--verbose", **SWITCH, help="a line for each class (default: only below 50 classes)")


GROUPS: dict[str, Callable[[Add], None]] = {
    "what is measured": _add_measured,
    "detections": _add_detections,
    "machine": _add_machine,
    "what is told and saved, and where": _add_results,
}


def parse_opt(argv: list[str] | None = None) -> argparse.Namespace:
    """The options of a command line (sys.argv where none is given)."""
    return build_parser().parse_args(argv)


def run(
    data: Any = None, weights: Any = None, batch_size: int = 32, imgsz: int | None = None, conf_thres: float = 0.001,
    iou_thres: float = 0.6, task: str = "val", device: str = "", workers: int = 8, single_cls: bool = False,
    augment: bool = False, verbose: bool = False, save_txt: bool = False, save_hybrid: bool = False,
    save_conf: bool = False, save_json: bool = False, project: Any = "runs/val", name: str = "exp",
    exist_ok: bool = False, half: bool = False, dnn: bool = False, max_det: int = 300, attention: bool = False,
):  # fmt: skip
    """Validates, with the flags as arguments. Returns utils.tally.Metrics; of the task study a list of
    engine.size_study.SizePoint, of compare a utils.comparison.Comparison. Raises InputError on unusable input."""
    return _validate(argparse.Namespace(**locals()))


def _validate(opt: argparse.Namespace):
    if opt.task == "compare":
        from engine import comparer

        return comparer.run(opt)
    if opt.task == "study":
        from engine import size_study

        return size_study.run(opt)
    from engine import validation

    return validation.run_speed(opt) if opt.task == "speed" else validation.run(opt)


def main(opt: argparse.Namespace) -> None:
    """Validates, with one message and exit code 1 where the input cannot be used."""
    from utils.errors import readable_errors
    from utils.memory import keep_freed_memory

    keep_freed_memory()
    with readable_errors():
        _validate(opt)


if __name__ == "__main__":
    main(parse_opt())
