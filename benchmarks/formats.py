"""What exported files are worth: size, mAP and latency of each format of one model, side by side.

python -m benchmarks.formats --weights yolov5n.pt --data coco8.yaml --imgsz 640
python -m benchmarks.formats --weights best.pt --data data/digits.yaml --imgsz 128
python -m benchmarks.formats ... --write coco8     # and puts the table into docs/export.md, between the markers coco8

The files go to --folder; mAP is that of val.py on squares of --imgsz, which a file of fixed size takes. Formats whose
packages are not installed, or that no runtime here can run, are told and left out.
"""

import argparse
import logging
import shutil
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import export
from benchmarks.model_cost import forward
from benchmarks.pages import replace_between
from benchmarks.timing import Ratio, interleave, machine, medians, ratios
from engine.export_images import evenly, fitted
from engine.exporter import megabytes
from engine.validation import Subject, build_loader, check_options, common_names, validated
from models.backend import Backend
from models.backends import load_backend
from models.export_formats import export_formats
from utils.data_config import DataConfig, load_data_config
from utils.errors import InputError
from utils.files import ROOT, atomic_write
from utils.images import read_image
from utils.label_files import image_files
from utils.log import LOGGER
from utils.tally import Metrics

PAGE = ROOT / "docs" / "export.md"
PYTORCH = "PyTorch"
HEAD = """\
| | MB | mAP50-95 | mAP50 | latency (ms) | times as fast as PyTorch (middle half of the rounds) |
|---|--:|--:|--:|--:|--:|"""


@dataclass(frozen=True)
class Variant:
    """A row: how a file is made and run. exported: more for export.run; loaded: more for load_backend."""

    label: str
    format: str = ""
    exported: dict[str, Any] = field(default_factory=dict)
    loaded: dict[str, Any] = field(default_factory=dict)


MORE = {  # beside each format as it is
    "": [Variant(f"{PYTORCH} --half", loaded={"half": True})],
    "onnx": [
        Variant("onnx --simplify", "onnx", {"simplify": True}),
        Variant("onnx, run with --dnn (OpenCV)", "onnx", loaded={"dnn": True}),
    ],
    "openvino": [
        Variant("openvino, run with --half", "openvino", loaded={"half": True}),
        Variant("openvino --int8", "openvino", {"int8": True}),
    ],
    "ncnn": [Variant("ncnn --half", "ncnn", {"half": True})],
    "tflite": [Variant("tflite --int8", "tflite", {"int8": True})],
}


def variants(wanted: list[str]) -> Iterator[Variant]:
    """The rows of the wanted formats, or of all that can be made and run here; the others are told."""
    yield Variant(PYTORCH)
    yield from MORE[""]
    for row in export_formats():
        if wanted and row.name not in wanted:
            continue
        try:
            row.check_packages()
            reason = row.why_not_run()
        except InputError as error:
            reason = str(error)
        if reason:
            LOGGER.info(f"{row.name} is left out: {reason}")
            continue
        yield from [Variant(row.name, row.name), *MORE.get(row.name, ())]


def made(variant: Variant, opt: Namespace, folder: Path) -> Path:
    """The variant's file, exported into a folder of its own; of PyTorch the weights themselves."""
    if not variant.format:
        return Path(opt.weights)
    place = folder / variant.label.replace(" ", "_").replace(",", "")
    place.mkdir()
    weights = Path(shutil.copyfile(opt.weights, place / Path(opt.weights).name))
    (result,) = export.run(weights=weights, include=variant.format, imgsz=opt.imgsz, data=opt.data, **variant.exported)
    return result.file


def metrics_of(file: Path, backend: Backend, data: DataConfig, imgsz: int) -> Metrics:
    """What val.py would measure, on squares."""
    backend.fixed_hw = backend.fixed_hw or (imgsz, imgsz)
    options = Namespace(
        task="val", imgsz=imgsz, batch_size=8, workers=0, conf_thres=0.001, iou_thres=0.6, max_det=300,
        single_cls=bool(backend.trained_with.get("single_cls")), verbose=False, save_conf=False, save_txt=False,
        save_hybrid=False,
    )  # fmt: skip
    check_options(options)
    names = common_names(backend, data, weights=file, single_cls=options.single_cls)
    subject = Subject(file, backend, data, names, options)
    return validated(subject, build_loader(subject))


def row(label: str, size: float, metrics: Metrics, seconds: float, slower: Ratio) -> str:
    """One line of the table; slower: time in those of PyTorch."""
    faster = f"{1 / slower.median:.2f} ({1 / slower.high:.2f}-{1 / slower.low:.2f})"
    return f"| {label} | {size:.1f} | {metrics.map:.4f} | {metrics.map50:.4f} | {seconds * 1e3:.1f} | {faster} |"


def table(opt: Namespace, folder: Path) -> str:
    """Exports, validates and times all variants."""
    data = load_data_config(opt.data)
    device = torch.device("cpu")
    files, chosen = {}, []
    for variant in variants(opt.include):
        try:
            files[variant.label] = made(variant, opt, folder)
        except InputError as error:
            LOGGER.warning(f"{variant.label} is left out: {error}")
            continue
        chosen.append(variant)
    backends = {each.label: load_backend(files[each.label], device, **each.loaded) for each in chosen}
    metrics = {label: metrics_of(files[label], backend, data, opt.imgsz) for label, backend in backends.items()}
    picture = read_image(evenly(image_files(data.val), 1)[0])
    images = fitted([picture], (opt.imgsz, opt.imgsz)).contiguous(memory_format=torch.channels_last)
    calls = {label: forward(backend, images) for label, backend in backends.items()}
    times = interleave(calls, rounds=opt.rounds, at_most=opt.seconds, at_least=5)
    latency, slower = medians(times), ratios(times, PYTORCH)
    lines = [row(label, megabytes(files[label]), metrics[label], latency[label], slower[label]) for label in files]
    return "\n".join([HEAD, *lines])


def parse_opt(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True, help="one .pt file")
    parser.add_argument("--data", required=True, help="data YAML, for mAP, the proof and --int8's scales")
    parser.add_argument("--imgsz", type=int, default=640, help="pixels, a multiple of 32")
    parser.add_argument("--include", nargs="+", default=[], help="formats (default: all that can be made and run here)")
    parser.add_argument("--rounds", type=int, default=41, help="rounds of the timing")
    parser.add_argument("--seconds", type=float, default=120, help="the timing ends after this time and 5 rounds")
    parser.add_argument("--folder", help="where the files stay (default: nowhere)")
    parser.add_argument("--write", help="markers in docs/export.md between which the table goes")
    return parser.parse_args(argv)


def main(opt: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(opt.folder or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        LOGGER.setLevel(logging.INFO)
        measured = table(opt, folder)
    name, data = Path(opt.weights).name, Path(opt.data).name
    command = f"python -m benchmarks.formats --weights {name} --data {data} --imgsz {opt.imgsz}"
    text = f"{measured}\n\n{opt.imgsz}x{opt.imgsz}, batch 1, {machine()}: `{command}`"
    LOGGER.info(f"\n{text}")
    if opt.write:
        page = replace_between(PAGE.read_text(encoding="utf-8"), text, page=PAGE, name=opt.write)
        with atomic_write(PAGE) as file:
            file.write(page.encode())


if __name__ == "__main__":
    main(parse_opt())
