"""Train a YOLOv5 detector, static or with dynamic convolution.

    python train.py                                               the built-in digits, models/yolov5n_dynamic.yaml
    python train.py --cfg models/yolov5_dynamic.yaml --data my.yaml         from scratch
    python train.py --weights yolov5n.pt --data my.yaml --imgsz 320         from trained weights
    python train.py --resume                                      go on with the run below runs/ that was saved last

From Python: `import train; train.run(data="my.yaml", weights="yolov5n.pt", epochs=30)`.
"""

import argparse
from collections.abc import Callable
from typing import Any

Add = Callable[..., argparse.Action]  # add_argument of a group
SWITCH = {"action": "store_true"}
ON_OFF = {"action": argparse.BooleanOptionalAction, "default": True}
NOT_GIVEN = object()


def build_parser() -> argparse.ArgumentParser:
    """The flags of YOLOv5's train.py in groups, each with its unit and default; a default of None is filled in from the
    data YAML, and the log says so."""
    from utils.flags import FlagParser

    return FlagParser(__doc__, GROUPS)


def _add_model(add: Add) -> None:
    add("--weights", default="", help="start weights, a .pt file (default: none, from scratch)")
    add("--cfg", default="", help="model YAML (default: the one in the weights, else models/yolov5n_dynamic.yaml)")
    resumed = "go on with the newest run, or with this last.pt or run directory (default: a new run)"
    add("--resume", nargs="?", const=True, default=False, help=resumed)
    frozen = "N: the first N layers stay as they are; several numbers: these layers (default: 0, none)"
    add("--freeze", nargs="+", type=int, default=[0], help=frozen)
    add("--noautoanchor", **SWITCH, help="keep the anchors, however badly they fit the labels (default: refit them)")


def _add_data(add: Add) -> None:
    add("--data", default="data/digits.yaml", help="data YAML (default: data/digits.yaml, the built-in digits)")
    add("--single-cls", **SWITCH, help="all classes are one (default: as the data YAML has them)")
    add("--rect", **SWITCH, help="batches of like aspect ratio; no mosaic, no shuffle (default: square pictures)")
    add("--image-weights", **SWITCH, help="draw pictures by class weight x (1 - mAP)^2 (default: each once an epoch)")
    cached = "keep decoded pictures in ram (a bare --cache) or on disk (default: neither)"
    add("--cache", nargs="?", const="ram", choices=("ram", "disk"), help=cached)


def _add_schedule(add: Add) -> None:
    add("--epochs", type=int, default=300, help="passes over the training set (default: 300)")
    batch = "pictures a step, over all devices; -1: as many as the memory holds (default: 16)"
    add("--batch-size", type=int, default=16, help=batch)
    add("--hyp", help="hyperparameter YAML (default: the data YAML's own, else data/hyps/hyp.scratch-low.yaml)")
    add("--optimizer", choices=("SGD", "Adam", "AdamW"), default="SGD", help="what moves the weights (default: SGD)")
    add("--cos-lr", **SWITCH, help="the learning rate falls along a cosine (default: along a line)")
    add("--label-smoothing", type=float, default=0.0, help="epsilon of the class targets, 0 to 1 (default: 0)")
    patience = "epochs without a better fitness after which to stop; 0: never stop (default: 100)"
    add("--patience", type=int, default=100, help=patience)


def _add_pictures(add: Add) -> None:
    size = "longer side in pixels, a multiple of the largest stride (default: the data YAML's own, else 640)"
    add("--imgsz", "--img", "--img-size", type=int, help=size)
    add("--multi-scale", **SWITCH, help="another size each step, within 50 %% of --imgsz (default: always --imgsz)")
    add("--quad", **SWITCH, help="four pictures stitched into one, in half of the cases (default: none stitched)")
    closed = "epochs at the end without mosaic, mixup and copy-paste (default: 0)"
    add("--close-mosaic", type=int, default=0, help=closed)


def _add_machine(add: Add) -> None:
    add("--device", default="", help="CUDA device number, cpu or mps (default: the best there is)")
    add("--workers", type=int, default=8, help="loader processes at most; also by CPUs and batch size (default: 8)")
    add("--sync-bn", **SWITCH, help="batch statistics over all processes, on GPUs (default: of each its own)")
    add("--amp", **ON_OFF, help="16-bit arithmetic where the device is fast at it (default: on)")
    add("--seed", type=int, default=0, help="number that every random draw follows from, 0 to 4294967295 (default: 0)")
    add("--deterministic", **ON_OFF, help="the same seed gives the same numbers in every run (default: on)")


def _add_results(add: Add) -> None:
    add("--project", default="runs/train", help="directory of runs (default: runs/train)")
    add("--name", default="exp", help="directory of this run in it; exp2, exp3, ... where it exists (default: exp)")
    add("--exist-ok", **SWITCH, help="write into project/name even where it exists (default: into a new one)")
    add("--nosave", **SWITCH, help="save after the last epoch only (default: after each)")
    add("--save-period", type=int, default=-1, help="epochs between copies epochN.pt; -1: no copies (default: -1)")
    add("--noval", **SWITCH, help="validate after the last epoch only (default: after each)")
    add("--noplots", **SWITCH, help="no pictures (default: of labels, batches and results)")


def _add_loggers(add: Add) -> None:
    services = ("tensorboard", "wandb", "mlflow")
    chosen = "records beside results.csv; none behind it: results.csv alone (default: tensorboard)"
    add("--loggers", nargs="*", choices=services, default=["tensorboard"], help=chosen)
    add("--entity", help="W&B team or user that the run belongs to (default: W&B's own setting)")
    shown = "epochs from one showing of boxes at W&B to the next; 0: never (default: -1, a tenth of --epochs)"
    add("--bbox_interval", "--bbox-interval", type=int, default=-1, help=shown)


def _add_search(add: Add) -> None:
    searched = "search hyperparameters in so many trainings; a bare --evolve: 300 (default: no search)"
    add("--evolve", nargs="?", type=int, const=300, help=searched)
    add("--evolve-storage", default="", help="database URL of the search (default: SQLite in its directory)")


GROUPS: dict[str, Callable[[Add], None]] = {
    "what is trained": _add_model,
    "data": _add_data,
    "schedule": _add_schedule,
    "pictures": _add_pictures,
    "machine": _add_machine,
    "what is saved, and where": _add_results,
    "loggers": _add_loggers,
    "search of hyperparameters": _add_search,
}


def parse_opt(argv: list[str] | None = None) -> argparse.Namespace:
    """The options, with `given`: the sorted names of those on the command line (--resume honours only some of them)."""
    parser = build_parser()
    defaults = vars(parser.parse_args([]))
    marked = argparse.Namespace(**dict.fromkeys(defaults, NOT_GIVEN))
    given = {key: value for key, value in vars(parser.parse_args(argv, marked)).items() if value is not NOT_GIVEN}
    return argparse.Namespace(**{**defaults, **given}, given=sorted(given))


def run(callbacks: Any = None, **kwargs: Any):
    """Trains with the flags as keyword arguments (`imgsz=320`, `batch_size=8`, `exist_ok=True`, ...). callbacks: a
    utils.callbacks.Callbacks with your own listeners.
    Returns engine.validator.Metrics of the best checkpoint. Raises InputError on an unknown name or unusable input."""
    opt = parse_opt([])
    unknown = sorted(set(kwargs) - set(vars(opt)))
    if unknown:
        from utils.errors import InputError
        from utils.flags import did_you_mean

        meant = did_you_mean(unknown, {name: name for name in vars(opt)})
        raise InputError(f"train.run got unknown arguments {unknown}{meant}; it takes those of train.py --help")
    vars(opt).update(kwargs, given=sorted(kwargs))
    return _train(opt, callbacks)


def _train(opt: argparse.Namespace, callbacks: Any = None):
    if opt.evolve is not None:
        from engine.evolver import evolve

        return evolve(opt, callbacks)
    from engine.trainer import train

    return train(opt, callbacks)


def main(opt: argparse.Namespace) -> None:
    """Trains, with one message and exit code 1 where the input cannot be used."""
    from utils.errors import readable_errors
    from utils.memory import keep_freed_memory

    keep_freed_memory()
    with readable_errors():
        _train(opt)


if __name__ == "__main__":
    main(parse_opt())
