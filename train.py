"""Train a YOLOv5 detector, static or with dynamic convolution.

    python train.py                                               the built-in digits, models/yolov5n_dynamic.yaml
    python train.py --cfg models/yolov5_dynamic.yaml --data my.yaml         from scratch
    python train.py --weights yolov5n.pt --data my.yaml --imgsz 320         from trained weights
    python train.py --resume                                      go on with the run below runs/ that was saved last

From Python: `import train; train.run(data="my.yaml", weights="yolov5n.pt", epochs=30)`.
"""

import argparse
from typing import Any

NOT_GIVEN = object()


def build_parser() -> argparse.ArgumentParser:
    """The flags of YOLOv5's train.py; a default of None is filled in from the data YAML, and the log says so."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    switch = {"action": argparse.BooleanOptionalAction}
    add("--weights", default="", help="start weights (.pt); empty: from scratch")
    add("--cfg", default="", help="model YAML; empty: the one in the weights, else models/yolov5n_dynamic.yaml")
    add("--data", default="data/digits.yaml", help="data YAML (default: the built-in handwritten digits)")
    add("--hyp", help="hyperparameter YAML (default: the data YAML's own, else data/hyps/hyp.scratch-low.yaml)")
    add("--epochs", type=int, default=300, help="passes over the training set (default 300)")
    add("--batch-size", type=int, default=16, help="images a step (default 16)")
    add("--imgsz", "--img", "--img-size", type=int, help="side in pixels (default: the data YAML's own, else 640)")
    add("--rect", action="store_true", help="rectangular batches sorted by aspect ratio: no mosaic, no shuffle")
    add("--resume", nargs="?", const=True, default=False, help="go on with the newest run, or with this last.pt or run")
    add("--nosave", action="store_true", help="save the last epoch only")
    add("--noval", action="store_true", help="validate the last epoch only")
    add("--noplots", action="store_true", help="make no pictures")
    add("--noautoanchor", action="store_true", help="keep the anchors, however badly they fit the labels")
    add(
        "--cache",
        nargs="?",
        const="ram",
        choices=("ram", "disk"),
        help="keep decoded images in ram (default) or on disk",
    )
    add("--image-weights", action="store_true", help="draw images by class weight x (1 - mAP)^2")
    add("--device", default="", help="0 or cpu or mps; empty: the best there is")
    add("--multi-scale", action="store_true", help="vary the image size by +/- 50 %% from batch to batch")
    add("--single-cls", action="store_true", help="treat all classes as one")
    add("--optimizer", choices=("SGD", "Adam", "AdamW"), default="SGD", help="(default SGD)")
    add("--workers", type=int, default=8, help="loader processes at most (default 8; capped by CPUs and batch size)")
    add("--project", default="runs/train", help="the run is saved to project/name")
    add("--name", default="exp", help="the run is saved to project/name; exp, exp2, exp3, ...")
    add("--exist-ok", action="store_true", help="write into project/name even where it exists")
    add("--quad", action="store_true", help="four images stitched into one at twice the size, for half of the batches")
    add("--cos-lr", action="store_true", help="cosine learning rate schedule (default: linear)")
    add("--label-smoothing", type=float, default=0.0, help="epsilon of label smoothing, 0 to 1 (default 0)")
    add("--patience", type=int, default=100, help="stop after so many epochs without a better fitness; 0: never")
    add("--freeze", nargs="+", type=int, default=[0], help="10: the first ten layers stay as they are; 0 1 2: these")
    add("--save-period", type=int, default=-1, help="also save epochN.pt every so many epochs (default -1: never)")
    add("--seed", type=int, default=0, help="of every random draw (default 0)")
    add("--deterministic", default=True, help="the same numbers in every run with the same seed (default on)", **switch)
    add("--amp", default=True, help="16-bit arithmetic where the device is fast at it (default on)", **switch)
    add("--close-mosaic", type=int, default=0, help="no mosaic, mixup and copy-paste in the last N epochs (default 0)")
    return parser


def parse_opt(argv: list[str] | None = None) -> argparse.Namespace:
    """The options, with `given`: the sorted names of those on the command line (--resume honours only some of them)."""
    parser = build_parser()
    defaults = vars(parser.parse_args([]))
    marked = argparse.Namespace(**dict.fromkeys(defaults, NOT_GIVEN))
    given = {key: value for key, value in vars(parser.parse_args(argv, marked)).items() if value is not NOT_GIVEN}
    return argparse.Namespace(**{**defaults, **given}, given=sorted(given))


def run(**kwargs: Any):
    """Trains with the flags as keyword arguments (`imgsz=320`, `batch_size=8`, `exist_ok=True`, ...).
    Returns engine.validator.Metrics of the best checkpoint. Raises InputError on an unknown name or unusable input."""
    opt = parse_opt([])
    unknown = sorted(set(kwargs) - set(vars(opt)))
    if unknown:
        from utils.errors import InputError

        raise InputError(f"train.run got unknown arguments {unknown}; it takes those of `python train.py --help`")
    vars(opt).update(kwargs, given=sorted(kwargs))
    return _train(opt)


def _train(opt: argparse.Namespace):
    from engine.trainer import train

    return train(opt)


def main(opt: argparse.Namespace) -> None:
    """Trains, with one message and exit code 1 where the input cannot be used."""
    from utils.errors import readable_errors

    with readable_errors():
        _train(opt)


if __name__ == "__main__":
    main(parse_opt())
