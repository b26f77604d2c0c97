"""A checkpoint in, files of other runtimes out, each proven before it gets its name: what export.py does. Not for how a
format is written (models/export_*.py), nor for how a file is compared (engine/export_proof.py)."""

import shlex
import shutil
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.attention_freezer import frozen_twin
from engine.comparer import SideBySide, side_by_side
from engine.export_images import calibration, images_to_compare, known_data
from engine.export_proof import Proof, prove
from engine.inputs import DEFAULT_IMGSZ, check_ranges, chosen_weights, flag_of, image_sides, whole_strides
from models.backend import Backend
from models.backends import load_backend
from models.export_formats import CHOICES, EXPORTERS, Format
from models.export_metadata import Metadata
from models.export_options import ExportOptions, Suppression
from models.runtime_torch import TorchBackend
from models.weights import inference_model, read_checkpoint
from models.yolo import DetectionModel
from utils.data_config import DataConfig
from utils.errors import InputError
from utils.files import replace_synced
from utils.flags import did_you_mean
from utils.log import LOGGER
from utils.quiet import quiet
from utils.torch_utils import select_device, to_channels_last_

RANGES = {
    "batch_size": (1, inf),
    "opset": (12, 23),  # from what suppression needs to what torch writes
    "topk_per_class": (1, inf),
    "topk_all": (1, inf),
    "conf_thres": (0, 1),
    "iou_thres": (0, 1),
}
DEFAULTS = {"opset": 17, "workspace": 4.0}  # a flag of these counts as given where its value is another one
SUPPRESSION = ("agnostic_nms", "topk_per_class", "topk_all", "iou_thres", "conf_thres")  # flags beside --nms
TOLD_COST = 0.01  # of mAP50-95, from which what 8 bits cost is a warning
REJECTED = "_rejected"  # what the stem of a file ends in that does not find what PyTorch finds
FROZEN = "_frozen"  # and of one whose attention no longer depends on the image


@dataclass(frozen=True)
class Exported:
    """A file or folder that was made.

    Attributes:
        format: as --include calls it.
        megabytes: of the file, or of all in the folder.
        seconds: that the conversion took.
        proof: None where the file cannot be run here, or gives no boxes (--train).
        scores: of the network in PyTorch and of an 8-bit file on the validation split, where that is known.
    """

    format: str
    file: Path
    megabytes: float
    seconds: float
    proof: Proof | None
    scores: SideBySide | None = None

    @property
    def is_proven(self) -> bool:
        """Whether the file was seen to find what PyTorch finds."""
        return self.proof is not None and not (self.proof.faults or self.proof.is_empty)

    @property
    def is_rejected(self) -> bool:
        """Whether the file was seen not to find what PyTorch finds."""
        return self.proof is not None and bool(self.proof.faults)


def run(opt: Namespace) -> list[Exported]:
    """Exports with the options of export.py, each file beside the weights. Raises InputError where the input cannot be
    used, and at the end where a file does not find what PyTorch finds: that one is called <stem>_rejected.

    Differs from v6.1: each file is compared with PyTorch on real images; the default weights are the newest run's best,
    and the default image size is the one that they were trained at;
    a flag that none of the formats reads is an error, one that some don't read a warning.
    """
    formats = chosen_formats(opt)
    check_options(opt, formats)
    job = prepared(opt)
    exported = []
    try:
        for row in formats:
            exported.append(exported_and_proven(row, job))
    finally:
        report(exported, job, data=opt.data)
    faults = [(made.file, "; ".join(made.proof.faults)) for made in exported if made.proof and made.proof.faults]
    if faults:
        raise InputError(f"not what PyTorch finds: {', '.join(f'{file}: {told}' for file, told in faults)}")
    return exported


# ------------------------------------------------------------------------------------------------------------- options
def chosen_formats(opt: Namespace) -> list[Format]:
    """The rows that --include names. Raises InputError for others, and where a format's packages are missing."""
    names = list(dict.fromkeys([opt.include] if isinstance(opt.include, str) else opt.include))
    unknown = [name for name in names if name not in EXPORTERS]
    if unknown or not names:
        got = (", ".join(unknown) or "none") + did_you_mean(unknown, {name: name for name in EXPORTERS})
        raise InputError(f"--include: expected one or more of {', '.join(EXPORTERS)}, got {got}")
    formats = [EXPORTERS[name] for name in names]
    for row in formats:
        row.check_packages()
    return formats


def check_options(opt: Namespace, formats: list[Format]) -> None:
    """Raises InputError for values out of range, and for flags that don't go together or that no format reads; warns of
    those that only some of them read."""
    check_ranges(opt, RANGES)
    if opt.imgsz is not None:
        image_sides(opt.imgsz)
    if opt.workspace <= 0:
        raise InputError(f"--workspace: more than 0 GiB were expected, got {opt.workspace:g}")
    if opt.half and opt.int8:
        raise InputError("--half and --int8 are two precisions: give one of them")
    if opt.train and (opt.nms or opt.half or opt.int8 or opt.freeze_attention):
        raise InputError("--train makes a file to be trained on: leave out --nms, --half, --int8, --freeze-attention")
    if not opt.nms and suppression(opt) != Suppression():
        flags = ", ".join(map(flag_of, SUPPRESSION))
        raise InputError(f"{flags} are of the suppression that --nms puts into the file: give --nms too")
    for name in given_choices(opt):
        idle = [row.name for row in formats if name not in row.flags]
        if len(idle) == len(formats):
            readers = [row.name for row in EXPORTERS.values() if name in row.flags]
            raise InputError(f"{flag_of(name)} does nothing for {', '.join(idle)}; it is for {', '.join(readers)}")
        if idle:
            LOGGER.warning(f"{flag_of(name)} does nothing for {', '.join(idle)}")


def given_choices(opt: Namespace) -> list[str]:
    """The flags that not every format reads, of those that were given."""
    return [name for name in CHOICES if getattr(opt, name) != DEFAULTS.get(name, False)]


def suppression(opt: Namespace) -> Suppression:
    """What the flags beside --nms ask for."""
    return Suppression(opt.conf_thres, opt.iou_thres, opt.topk_per_class, opt.topk_all, opt.agnostic_nms)


# ---------------------------------------------------------------------------------------------------------------- work
@dataclass(frozen=True)
class Job:
    """What all formats of a run have in common.

    Attributes:
        stem: path of the files without their suffixes.
        network: in eval mode, fused but for --train.
        images: to compare on.
        data: of the weights or --data, None where it is not known.
    """

    stem: Path
    network: DetectionModel
    options: ExportOptions
    device: torch.device
    images: list[np.ndarray]
    data: DataConfig | None

    def model(self) -> DetectionModel:
        """A fresh copy of the network, which a format's function may change."""
        return deepcopy(self.network)

    def reference(self) -> Backend:
        """The network in PyTorch that files are compared with."""
        return TorchBackend(to_channels_last_(self.model()))


def prepared(opt: Namespace) -> Job:
    """Weights, data and images of a run. Raises InputError where they cannot be used."""
    weights = chosen_weights(opt.weights)
    if len(weights) != 1 or weights[0].suffix != ".pt":
        raise InputError(f"--weights: one .pt file was expected, got {', '.join(map(str, weights))}")
    device = select_device(opt.device)
    checkpoint = read_checkpoint(weights[0])
    network = inference_model(checkpoint, device, fuse=not opt.train)
    told = checkpoint.info.get("opt", {})
    opt = with_image_size(opt, told.get("imgsz"))
    trained_with = {key: told[key] for key in ("data", "single_cls") if key in told}
    data = known_data(opt.data, trained_with, weights[0])
    stem, frozen = weights[0].with_suffix(""), None
    if opt.freeze_attention:
        network, frozen = static_twin(opt, network, data, weights[0])
        stem = stem.with_name(f"{stem.name}{FROZEN}")
    options = export_options(opt, network, {"trained_with": trained_with, "frozen": frozen}, data)
    images = [] if opt.train else images_to_compare(data)
    return Job(stem, network, options, device, images, data)


def with_image_size(opt: Namespace, trained_at: Any) -> Namespace:
    """The options; where --imgsz is not given, with what the weights were trained at, which is said, or 640."""
    if opt.imgsz is not None:
        return opt
    if isinstance(trained_at, int) and trained_at != DEFAULT_IMGSZ:
        LOGGER.info(f"--imgsz {trained_at}, what the weights were trained at")
    return Namespace(**{**vars(opt), "imgsz": trained_at if isinstance(trained_at, int) else DEFAULT_IMGSZ})


def static_twin(
    opt: Namespace, network: DetectionModel, data: DataConfig | None, weights: Path
) -> tuple[DetectionModel, dict[str, Any]]:
    """What --freeze-attention makes of the network, and what that cost. Raises InputError where that cannot be told."""
    if data is None:
        raise InputError("--freeze-attention needs the mean attention over images: name their data YAML with --data")
    imgsz = max(whole_strides(image_sides(opt.imgsz), int(network.stride.max())))
    twin = frozen_twin(network, data, imgsz=imgsz, file=weights)
    return twin.model, twin.facts()


def export_options(
    opt: Namespace, model: DetectionModel, facts: dict[str, Any], data: DataConfig | None
) -> ExportOptions:
    """What the formats' functions are told; facts: more for the files' metadata. Raises InputError where --int8 has no
    images."""
    stride = int(model.stride.max())
    height, width = whole_strides(image_sides(opt.imgsz), stride)
    imgsz_hw = height, width
    nms = suppression(opt) if opt.nms else None
    metadata = Metadata(
        names=model.names,
        stride=stride,
        imgsz=imgsz_hw,
        batch=opt.batch_size,
        dynamic=opt.dynamic,
        nms=asdict(nms) if nms else None,
        train=opt.train,
        **facts,
    )
    if opt.int8:
        next(calibration(data, imgsz_hw))  # now, not after minutes
    return ExportOptions(
        metadata=metadata,
        imgsz_hw=imgsz_hw,
        batch_size=opt.batch_size,
        dynamic=opt.dynamic,
        half=opt.half,
        int8=opt.int8,
        calibration=partial(calibration, data, imgsz_hw) if opt.int8 else None,
        nms=nms,
        train=opt.train,
        simplify=opt.simplify,
        opset=opt.opset,
        optimize=opt.optimize,
        inplace=opt.inplace,
        workspace=opt.workspace,
        verbose=opt.verbose,
    )


def exported_and_proven(row: Format, job: Job) -> Exported:
    """One format: written into a folder beside its place, compared, moved to its place with the proof beside it."""
    name, options = f"{job.stem.name}{row.suffix}", options_for(row, job.options)
    LOGGER.info(f"\n{row.name}: exporting {name}")
    with folder_beside(job.stem) as folder:
        started = time.perf_counter()
        file = row.export(job.model(), folder / name, options)
        seconds = time.perf_counter() - started
        proof = proof_of(row, file, job, options)
        scores = scores_of(file, job) if proof and options.int8 else None
        made = Exported(row.name, job.stem.with_name(name), megabytes(file), seconds, proof, scores)
        if made.is_rejected:
            made = replace(made, file=job.stem.with_name(f"{job.stem.name}{REJECTED}{row.suffix}"))
        is_older_there = made.file.exists()
        replace_synced(file, made.file)
    if is_older_there:  # perhaps of other flags: they are not in the name
        LOGGER.info(f"{made.file.name} replaces an older one")
    if proof:
        proof.write(proof_file(made.file), scores_told(scores))
    return made


def options_for(row: Format, options: ExportOptions) -> ExportOptions:
    """The options without those that the format does not read, so that the file's metadata is true."""
    unread: dict[str, Any] = {name: False for name in ("half", "int8", "dynamic", "train") if name not in row.flags}
    if "nms" not in row.flags:
        unread["nms"] = None
    facts = {name: value for name, value in unread.items() if name in ("dynamic", "train", "nms")}
    return replace(options, **unread, metadata=replace(options.metadata, **facts))


def proof_of(row: Format, file: Path, job: Job, options: ExportOptions) -> Proof | None:
    """The comparison with PyTorch, told in the log; None, with a warning, where there is nothing to compare. options:
    with which the file was made."""
    reason = "with --train it gives no boxes" if options.train else row.why_not_run()
    if reason:
        LOGGER.warning(f"{file.name} is not compared with PyTorch: {reason}")
        return None
    precision = "half" if options.half else "int8" if options.int8 else "float32"
    with quiet():  # what is said of files that people bring
        exported = load_backend(file, job.device)
    proof = prove(job.reference(), exported, job.images, size_hw=options.imgsz_hw, precision=precision, nms=options.nms)
    LOGGER.info(proof.table())
    return proof


def scores_of(file: Path, job: Job) -> SideBySide | None:
    """What 8 bits cost in mAP, told in the log; None, with a warning, where there are no labelled images."""
    try:
        if job.data is None:
            raise InputError("no data are known: name their YAML with --data")
        with quiet():
            exported = load_backend(file, job.device)
        imgsz = max(job.options.imgsz_hw)
        scores = side_by_side(job.reference(), exported, job.data, imgsz=imgsz, file=job.stem)
    except InputError as error:
        LOGGER.warning(f"What 8 bits cost in mAP is not measured: {error}")
        return None
    tell = LOGGER.warning if scores.change.map.value < -TOLD_COST else LOGGER.info
    tell(f"{file.name}: {scores.sentence('PyTorch', '8 bits')}")
    return scores


def scores_told(scores: SideBySide | None) -> dict[str, float]:
    """For the proof's file."""
    if scores is None:
        return {}
    return {"map_pytorch": scores.first.map, "map": scores.second.map, "map_difference": scores.change.map.value}


# --------------------------------------------------------------------------------------------------------------- files
@contextmanager
def folder_beside(stem: Path) -> Iterator[Path]:
    """A folder that is gone at the end, on the disk where the files will be."""
    folder = Path(tempfile.mkdtemp(prefix=f".{stem.name}_", dir=stem.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def proof_file(file: Path) -> Path:
    """Where the proof of a file is: yolov5n.onnx.proof.json."""
    return file.with_name(f"{file.name}.proof.json")


def megabytes(file: Path) -> float:
    """Of a file, or of all in a folder."""
    files = file.rglob("*") if file.is_dir() else [file]
    return sum(each.stat().st_size for each in files if each.is_file()) / 1e6


def report(exported: list[Exported], job: Job, *, data: str | Path) -> None:
    """Tells what was made, and the commands that use it. data: as --data gave it."""
    for made in exported:
        state = "REJECTED" if made.is_rejected else "proven" if made.is_proven else "not compared"
        LOGGER.info(f"{made.file}: {made.megabytes:.1f} MB, {made.seconds:.1f} s, {state}")
    usable = [made.file for made in exported if made.is_proven]
    if usable:
        for title, command in next_commands(usable[0], job, data).items():
            LOGGER.info(f"{f'{title}:':<10}{shlex.join(command)}")


def next_commands(file: Path, job: Job, data: str | Path) -> dict[str, list[str]]:
    """What can be done with the file: {title: command}. val.py is left out where it does not take the file: without
    data, and for a size that is fixed and no square."""
    height, width = job.options.imgsz_hw
    weights = ["--weights", str(file), "--imgsz"]
    size = [str(height)] if height == width else [str(height), str(width)]
    commands = {"Detect": ["python", "detect.py", *weights, *size]}
    if job.data and (height == width or job.options.dynamic):
        named = ["--data", str(data)] if data else []  # else the file tells val.py what its weights were trained on
        commands["Validate"] = ["python", "val.py", *weights, str(max(height, width)), *named]
    return commands
