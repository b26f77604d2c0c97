"""The options of train.py before anything is built: checked, completed from data YAML and weights, or taken from the
checkpoint of the run that --resume goes on with."""

import os
from argparse import Namespace
from collections.abc import Iterable
from math import inf
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import torch

from engine.inputs import DEFAULT_IMGSZ, check_ranges, data_of_run, flag_of
from models.weights import Checkpoint, read_checkpoint
from utils.autobatch import AUTO
from utils.data_config import DataConfig
from utils.errors import InputError
from utils.files import ROOT, near_files, newest_run
from utils.log import LOGGER
from utils.loggers import check_loggers

DEFAULT_CFG = "models/yolov5n_dynamic.yaml"
DEFAULT_HYP = "data/hyps/hyp.scratch-low.yaml"
MAX_SEED = 2**32 - 1
# what a resume takes from a checkpoint's `training`, and of which kind it must be
SAVED: dict[str, type | tuple[type, ...]] = {
    "epoch": int, "best_epoch": int, "best_fitness": (int, float), "updates": int, "last_step": int, "class_maps": list,
    "model": dict, "optimizer": dict, "scaler": dict, "gradients": dict,
}  # fmt: skip
KEPT_ON_RESUME = ("epochs", "device", "workers", "patience", "loggers")  # the others are those of the run

WHOLE_RANGES = {
    "epochs": (1, inf),
    "batch_size": (AUTO, inf),
    "workers": (0, inf),
    "patience": (0, inf),
    "close_mosaic": (0, inf),
    "imgsz": (32, inf),
    "evolve": (1, inf),
    "save_period": (-1, inf),
    "seed": (0, MAX_SEED),
    "bbox_interval": (-1, inf),
}
RANGES = {**WHOLE_RANGES, "label_smoothing": (0, 1)}
TEXTS = ("weights", "cfg", "data", "hyp", "device", "optimizer", "project", "name", "evolve_storage", "entity")
SWITCHES = (
    "rect", "nosave", "noval", "noplots", "noautoanchor", "image_weights", "multi_scale", "single_cls", "exist_ok",
    "quad", "cos_lr", "deterministic", "amp", "sync_bn",
)  # fmt: skip
OPTIONAL = ("hyp", "imgsz", "evolve", "entity")  # None: not given
CACHES = (None, "ram", "disk")


def checked_options(opt: Namespace) -> Namespace:
    """A copy with every value of the kind that the command line gives: cache=True is "ram", freeze=3 is [3], paths and
    device=0 are texts. Raises InputError for other kinds and for values out of range, in the words of the flag."""
    opt = Namespace(**vars(opt))
    for names, of_kind in ((WHOLE_RANGES, _whole), (TEXTS, _text), (SWITCHES, _switch)):
        for name in names:
            value = getattr(opt, name)
            setattr(opt, name, None if value is None and name in OPTIONAL else of_kind(flag_of(name), value))
    opt.label_smoothing = _number("--label-smoothing", opt.label_smoothing)
    if isinstance(opt.cache, bool):
        opt.cache = "ram" if opt.cache else None
    layers = opt.freeze if isinstance(opt.freeze, Iterable) and not isinstance(opt.freeze, str) else [opt.freeze]
    opt.freeze = [_whole("--freeze", layer) for layer in layers]
    if not isinstance(opt.resume, bool):
        opt.resume = _text("--resume", opt.resume)
    check_ranges(opt, RANGES)
    _check_choices(opt)
    check_loggers(opt.loggers, entity=opt.entity, bbox_interval=opt.bbox_interval)
    return opt


def _whole(flag: str, value: Any) -> int:
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise InputError(f"{flag}: a whole number was expected, got {value!r}")
    return int(value)


def _number(flag: str, value: Any) -> float:
    if not isinstance(value, Real) or isinstance(value, bool):
        raise InputError(f"{flag}: a number was expected, got {value!r}")
    return float(value)


def _text(flag: str, value: Any) -> str:
    kinds = str | os.PathLike | (Integral | torch.device if flag == "--device" else str)
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise InputError(f"{flag}: a text was expected, got {value!r}")
    return str(value)


def _switch(flag: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise InputError(f"{flag}: True or False was expected, got {value!r}")
    return value


def _check_choices(opt: Namespace) -> None:
    if opt.cache not in CACHES:
        raise InputError(f"--cache: ram or disk was expected, got {opt.cache!r}")
    if not opt.freeze:
        raise InputError("--freeze: at least one number was expected; 0 freezes nothing")
    if opt.image_weights and opt.rect:
        raise InputError("--image-weights draws images at random, --rect needs their order: use one of them")
    if opt.batch_size == 0:
        raise InputError(f"--batch-size: 1 or more, or {AUTO} (as many as the memory holds) was expected, got 0")
    if opt.quad and opt.batch_size % 4 and opt.batch_size != AUTO:
        raise InputError(f"--quad: --batch-size must be a multiple of 4, got {opt.batch_size}")


def check_writable(directory: Path, flag: str) -> None:
    """Raises InputError, in the words of the flag, where `directory` cannot be made or written to."""
    there = next(folder for folder in (directory.absolute(), *directory.absolute().parents) if folder.exists())
    if not there.is_dir():
        raise InputError(f"{flag}: the run would be saved in {directory}, but {there} is a file")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{flag}: the run would be saved in {directory}, but {there} cannot be written to")


def fill_defaults(opt: Namespace, data: DataConfig) -> Namespace:
    """A copy in which what was not given is set: model, hyperparameters, image size; says what the data YAML set. Files
    of data and hyperparameters are named so that they are found from every directory."""
    opt = Namespace(**vars(opt))
    if not (opt.cfg or opt.weights):
        opt.cfg = DEFAULT_CFG
        LOGGER.info(f"Neither --cfg nor --weights given: training {opt.cfg} from scratch")
    from_data = {"hyp": data.hyp and str(data.hyp), "imgsz": data.imgsz}
    for name, value in from_data.items():
        if getattr(opt, name) is None and value is not None:
            setattr(opt, name, value)
            LOGGER.info(f"--{name} {value} taken from {data.file}")
    opt.hyp = str(find_hyp(opt.hyp or DEFAULT_HYP))
    opt.imgsz = opt.imgsz or DEFAULT_IMGSZ
    opt.data = _absolute_data(opt.data, data)
    return opt


def find_hyp(name: str) -> Path:
    """The absolute path of a hyperparameter YAML, looked for from the working directory, in the repository and in its
    data/hyps/. Raises InputError with what was tried."""
    tried = [folder / name for folder in (Path(), ROOT, ROOT / "data" / "hyps")]
    found = next((path for path in tried if path.is_file()), None)
    if found is None:
        near = near_files(name, ROOT / "data" / "hyps")
        raise InputError(f"--hyp: there is no file {name}; tried {', '.join(dict.fromkeys(map(str, tried)))}{near}")
    return found.resolve()


def _absolute_data(given: str, data: DataConfig) -> str:
    """The path of the data YAML. Where --data names a .zip it is the archive's: the YAML that was unpacked from it does
    not lead back there."""
    archive = Path(given)
    if archive.suffix.lower() == ".zip":
        return str(archive.resolve()) if archive.is_file() else given
    return str(data.file)


def resume_options(opt: Namespace) -> tuple[Namespace, Checkpoint | None]:
    """With --resume the options and the checkpoint of the run that goes on, else those given and None. Raises
    InputError where there is nothing to go on with."""
    if not opt.resume:
        return opt, None
    file = _resumed_file(opt.resume)
    run_dir = _run_directory(file)
    checkpoint = read_checkpoint(file)
    if not checkpoint.training:
        raise InputError(f"--resume: {file} holds weights alone; a last.pt of a run of ours was expected")
    _check_training(file, checkpoint.training)
    if not isinstance(checkpoint.info.get("hyp") or {}, dict):
        raise InputError(f"--resume: {file} was expected to hold hyperparameters as a mapping from their names")
    options = saved_options(opt, checkpoint.info.get("opt"), file)
    options.update(resume=str(file), save_dir=str(run_dir))
    kept = {name: getattr(opt, name) for name in opt.given if name in KEPT_ON_RESUME}
    # --exist-ok is honoured in any case: a run goes on in its own directory
    ignored = sorted(set(opt.given) - {*KEPT_ON_RESUME, "resume", "exist_ok"})
    if ignored:
        LOGGER.warning(f"--resume takes these from {file}, what was given is ignored: {', '.join(ignored)}")
    remedy = "put a data YAML of that name into the working directory"
    options.update(kept, given=opt.given, data=data_of_run(options["data"], file, remedy=remedy))
    if not _lacks_its_end(file):
        _check_unfinished(file, checkpoint.training, epochs=options["epochs"], patience=options["patience"])
    LOGGER.info(f"Resuming {file} at epoch {checkpoint.training['epoch'] + 1}")
    return Namespace(**options), checkpoint


def saved_options(opt: Namespace, saved: Any, file: Path) -> dict[str, Any]:
    """The options of a run as a file has them, those that an older run did not know from `opt`. Raises InputError where
    they are of other kinds than the command line gives: the file may be a stranger's."""
    if not isinstance(saved, dict) or not all(isinstance(name, str) for name in saved):
        raise InputError(f"--resume: {file} was expected to hold a run's options, a mapping from their names")
    try:
        return vars(checked_options(Namespace(**{**vars(opt), **saved})))
    except (InputError, TypeError) as error:
        raise InputError(f"--resume: {file} holds options that cannot be used: {error}") from error


def _check_training(file: Path, training: Any) -> None:
    """Raises InputError where what a resume needs is missing in a checkpoint or of another kind."""
    held = training if isinstance(training, dict) else {}
    for name, kind in SAVED.items():
        if not isinstance(held.get(name), kind) or isinstance(held[name], bool):
            got = type(held.get(name)).__name__
            raise InputError(f"--resume: {file} is no checkpoint to go on with: its training's {name} is {got}")


def _resumed_file(resume: str | bool) -> Path:
    """The checkpoint that --resume means: the newest, the one given, or last.pt of the run given."""
    file = newest_run("runs", "last.pt") if isinstance(resume, bool) else Path(resume)
    if file is None:
        raise InputError("--resume: no last.pt was found below runs/; start a training, or give the file's path")
    if file.is_dir():
        file = file / "weights" / "last.pt"
    if not file.is_file():
        raise InputError(f"--resume: there is no file {file}; a run's weights/last.pt or its directory was expected")
    return file


def _run_directory(file: Path) -> Path:
    """The directory of the run that a checkpoint lies in. Raises InputError where it lies elsewhere: the training would
    write there."""
    weights = file.parent.resolve()
    if weights.name != "weights" or not (weights.parent / "opt.yaml").is_file():
        raise InputError(
            f"--resume: {file} does not lie in a run's directory, as <run>/weights/<name>.pt with <run>/opt.yaml; "
            "put it back there, or start a new run from it with --weights"
        )
    return weights.parent


def _lacks_its_end(file: Path) -> bool:
    """Whether a run whose epochs may all be done was stopped before its best.pt was stripped and validated."""
    best = file.parent / "best.pt"
    return best.is_file() and read_checkpoint(best).training is not None


def _check_unfinished(file: Path, training: dict[str, Any], *, epochs: int, patience: int) -> None:
    """Raises InputError where a run has had its epochs, or `patience` epochs without a better fitness."""
    done = training["epoch"] + 1
    if done >= epochs:
        raise InputError(f"--resume: {file} is finished ({done} epochs); --epochs N with more of them extends it")
    idle = training["epoch"] - training["best_epoch"]
    validated = training["best_fitness"] >= 0  # without that nothing is known of its fitness
    if validated and patience and idle >= patience:
        raise InputError(
            f"--resume: {file} stopped early: no better fitness in {idle} epochs, the patience is {patience}; "
            f"--patience N with more than {idle} (or 0: never stop) extends it"
        )
