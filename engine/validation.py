"""What val.py does: one model on one split, with its pictures and files; or its speed alone. Not for the loop over
batches (engine/validator.py), other image sizes (engine/size_study.py) or several models (engine/comparer.py)."""

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Any

from engine.attention_report import AttentionReport
from engine.inputs import DEFAULT_IMGSZ, check_ranges, chosen_weights, data_of_run, flag_of, network_size
from engine.validator import validate
from models.backend import Backend
from models.backends import load_backend
from models.runtime_torch import TorchBackend
from utils.callbacks import Callbacks
from utils.coco import CocoResults, CocoScore, find_annotations
from utils.data_config import SPLITS, DataConfig, load_data_config, need_splits
from utils.dataloaders import Loader, create_dataloader
from utils.errors import InputError
from utils.files import increment_path
from utils.log import LOGGER
from utils.outputs import label_lines
from utils.tally import ImageResult, Metrics
from utils.torch_utils import select_device

TASKS = (*SPLITS, "speed", "study", "compare")
DEFAULT_DATA = "data/digits.yaml"
RANGES = {
    "batch_size": (1, inf),
    "workers": (0, inf),
    "max_det": (1, inf),
    "imgsz": (32, inf),
    "conf_thres": (0, 1),
    "iou_thres": (0, 1),
}
FILES = ("save_txt", "save_conf", "save_hybrid", "save_json", "attention")  # flags that write files
DEFAULTS = {"conf_thres": 0.001, "iou_thres": 0.6, "half": False}  # of val.py
SPEED = {"conf_thres": 0.25, "iou_thres": 0.45, "half": True}  # what --task speed sets: a detector's everyday use


@dataclass(frozen=True)
class Subject:
    """What is validated: a network, the data, the class names that both have, and the options that fit them."""

    file: Path
    backend: Backend
    data: DataConfig
    names: dict[int, str]
    opt: Namespace


def run(opt: Namespace) -> Metrics:
    """One validation from the options of val.py, with its pictures and files in a new directory.
    Raises InputError where the input cannot be used.

    Differs from v6.1: the data defaults to what the weights were trained on; classes are called as the data calls them;
    --half keeps the weights and decodes boxes in float32; COCO's score stands beside our own mAP, not in its place;
    weights of a training with --single-cls are validated with it.
    """
    check_options(opt)
    subject = prepared(opt)
    attention = attention_report(subject)
    loader = build_loader(subject)
    run_dir = increment_path(Path(opt.project) / opt.name, opt.exist_ok, mkdir=True)
    loader.dataset.index.write_findings(run_dir, opt.task)
    callbacks, coco = Callbacks(), None
    if opt.save_hybrid:
        LOGGER.warning("--save-hybrid adds the labels to the detections: the figures below tell nothing of the model")
    if attention:
        callbacks.register_all(attention)
    if opt.save_txt or opt.save_hybrid:
        callbacks.register("on_val_image_end", LabelFiles(run_dir / "labels", with_conf=opt.save_conf).write)
    if opt.save_json:
        coco = CocoResults(subject.names, find_annotations(subject.data.root, opt.task))
        callbacks.register("on_val_image_end", lambda result: coco.add(result.path, result.detections))
    metrics = validated(subject, loader, callbacks=callbacks, save_dir=run_dir, save_hybrid=opt.save_hybrid)
    if attention:
        attention.write(run_dir)
    if coco:
        metrics = replace(metrics, coco=save_and_score(coco, run_dir / f"{subject.file.stem}_predictions.json"))
    LOGGER.info(f"{speed_line(metrics, loader)}\nResults saved to {run_dir}")
    return metrics


def run_speed(opt: Namespace) -> Metrics:
    """--task speed: how long the stages take on the val split, in 16 bits where the device is fast at it, at the
    thresholds of everyday use where others are not given. Writes nothing."""
    refuse_flags(opt, FILES, "beside --task speed, which writes nothing")
    check_options(opt)
    everyday = {name: value for name, value in SPEED.items() if getattr(opt, name) == DEFAULTS[name]}
    subject = prepared(Namespace(**{**vars(opt), **everyday, "task": "val"}))
    loader = build_loader(subject)
    metrics = validated(subject, loader)
    LOGGER.info(speed_line(metrics, loader))
    return metrics


def prepared(opt: Namespace) -> Subject:
    """The network and the data that the options name. Raises InputError where they don't fit each other."""
    files = chosen_weights(opt.weights)
    device = select_device(opt.device)
    backend = load_backend(files, device, half=opt.half, augment=opt.augment, dnn=opt.dnn)
    data = load_data_config(opt.data or trained_on(backend, files[0]) or DEFAULT_DATA)
    need_splits(data, opt.task)
    opt = with_single_cls(opt, [(files[0], backend)], data)
    names = common_names(backend, data, weights=files[0], single_cls=opt.single_cls)
    return Subject(files[0], backend, data, names, opt)


def validated(subject: Subject, loader: Loader, **options: Any) -> Metrics:
    """validate() with the thresholds of the options; with a save_dir also pictures."""
    opt = subject.opt
    return validate(
        subject.backend,
        loader,
        names=subject.names,
        conf_thres=opt.conf_thres,
        iou_thres=opt.iou_thres,
        max_det=opt.max_det,
        single_cls=opt.single_cls,
        plots="save_dir" in options,
        verbose=opt.verbose or len(subject.names) < 50,
        **options,
    )


def refuse_flags(opt: Namespace, names: Sequence[str], why: str) -> None:
    """Raises InputError for a flag that was given, of those that the task does not read."""
    for name in names:
        if getattr(opt, name):
            raise InputError(f"{flag_of(name)}: leave it out {why}")


def check_options(opt: Namespace) -> None:
    """Raises InputError for values out of range, in the words of the flag."""
    if opt.task not in TASKS:
        raise InputError(f"--task: one of {', '.join(TASKS)} was expected, got {opt.task!r}")
    check_ranges(opt, RANGES)
    if opt.save_conf and not (opt.save_txt or opt.save_hybrid):
        raise InputError("--save-conf adds a column to the files of --save-txt: give both")


def attention_report(subject: Subject) -> AttentionReport | None:
    """What --attention asks for. Raises InputError where there are no kernels to look at, or several networks."""
    if not subject.opt.attention:
        return None
    if not isinstance(subject.backend, TorchBackend):
        raise InputError(f"--attention looks into one network in PyTorch: one .pt was expected, got {subject.file}")
    return AttentionReport(subject.backend.model, subject.names)


def trained_on(backend: Backend, file: Path) -> str | None:
    """The data YAML that the weights in `file` were trained on, where they tell, and says so. Raises InputError where
    it is not here, nor one of its name."""
    stored = backend.trained_with.get("data")
    if not stored:
        return None
    data = data_of_run(stored, file, remedy="name the data YAML with --data")
    LOGGER.info(f"--data {data}, from {file}")
    return data


def with_single_cls(opt: Namespace, weights: Sequence[tuple[Path, Backend]], data: DataConfig) -> Namespace:
    """The options, with --single-cls where one of the weights was trained with it and the data has more classes; says
    so."""
    merged = [file for file, backend in weights if backend.trained_with.get("single_cls")]
    if opt.single_cls or not merged or data.nc == 1:
        return opt
    LOGGER.info(f"--single-cls is what {merged[0]} was trained with: the {data.nc} classes of {data.file} count as one")
    return Namespace(**{**vars(opt), "single_cls": True})


def common_names(backend: Backend, data: DataConfig, *, weights: Path, single_cls: bool) -> dict[int, str]:
    """Class names of the data, which must be as many as the network's; one name with single_cls."""
    if single_cls:
        return {0: "item"}
    if backend.nc != data.nc:
        raise InputError(
            f"{weights} knows {backend.nc} classes, but {data.file} has {data.nc}: name the data that it was trained "
            f"on with --data"
        )
    differing = [cls for cls in range(backend.nc) if backend.names[cls] != data.names[cls]]
    if differing:
        first = differing[0]
        LOGGER.warning(
            f"{len(differing)} of {backend.nc} classes have other names in {weights} than in {data.file}, such as "
            f"class {first}: {backend.names[first]!r}, {data.names[first]!r}. They are compared by number."
        )
    return data.names


def build_loader(subject: Subject, imgsz: int | None = None) -> Loader:
    """Loader of the split that --task names, in rectangular batches where the network takes them. Says what the data
    YAML set. imgsz: pixels, in place of --imgsz."""
    opt, data, backend = subject.opt, subject.data, subject.backend
    paths = getattr(data, opt.task)
    if not paths:
        raise InputError(f"--task {opt.task}: {data.file} has no key `{opt.task}`")
    wanted = imgsz or opt.imgsz
    if wanted is None and data.imgsz:
        LOGGER.info(f"--imgsz {data.imgsz} taken from {data.file}")
    height, width = network_size(wanted or data.imgsz or DEFAULT_IMGSZ, backend)
    if height != width:
        raise InputError(f"{subject.file} takes {height} x {width} pixels alone: val.py needs a square or a free size")
    return create_dataloader(
        paths,
        imgsz=height,
        batch_size=opt.batch_size,
        stride=backend.stride,
        nc=data.nc,
        rect=backend.fixed_hw is None,
        pad=0.5,
        single_cls=opt.single_cls,
        workers=opt.workers,
        prefix=f"{opt.task}: ",
    )


class LabelFiles:
    """Writes the detections of each image as a label file, `cls x y w h [conf]`, normalised."""

    def __init__(self, folder: Path, *, with_conf: bool) -> None:
        self.folder, self.with_conf = folder, with_conf
        self._written: set[str] = set()
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, result: ImageResult) -> None:
        """A row a detection; no file for an image without any, nor one of an earlier run (--exist-ok)."""
        lines = label_lines(result.detections.numpy(), result.size_hw, with_confidence=self.with_conf)
        file = self.folder / f"{Path(result.path).stem}.txt"
        if lines:
            file.write_text("\n".join(lines) + "\n", encoding="utf-8")
            self._written.add(file.name)
        elif file.name not in self._written:  # an image of the same name in another folder may have one
            file.unlink(missing_ok=True)


def save_and_score(coco: CocoResults, file: Path) -> CocoScore | None:
    """Writes the results file, and scores it where annotations and the package for it are there, else says why not."""
    coco.save(file)
    LOGGER.info(f"{len(coco.rows)} detections written to {file}")
    try:
        return coco.score()
    except InputError as error:
        LOGGER.warning(f"Not scored by COCO's rules: {error}")
        return None


def speed_line(metrics: Metrics, loader: Loader) -> str:
    """The mean times of the stages."""
    times = "{:.1f} ms preprocess, {:.1f} ms inference, {:.1f} ms NMS an image".format(*metrics.speed_ms)
    return f"Speed: {times} at batch size {loader.batch_size} and {loader.dataset.imgsz} pixels"
