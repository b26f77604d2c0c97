"""The weights that were published with YOLOv5 v6.1: finds them where people keep them, or downloads them where a model
is asked for by name. Not for reading them: models/weights.py."""

import re
from pathlib import Path

import torch

from utils.downloads import fetch, shown
from utils.errors import InputError
from utils.files import ROOT

RELEASE = "https://github.com/ultralytics/yolov5/releases/download/v6.1"
MAX_BYTES = 500_000_000  # the largest, yolov5x6, has 282 MB
NAME = re.compile(r"yolov5[nsmlx]6?\.pt")


def is_official(file: Path) -> bool:
    """Whether the file has the name of one of the published files."""
    return NAME.fullmatch(file.name) is not None


def address_of(file: Path) -> str:
    """Where the published file of that name is downloaded from."""
    return f"{RELEASE}/{file.name}"


def official_weights(name: str) -> Path:
    """The file <name>.pt of a published model (yolov5n to yolov5x6): in the working directory, the repository or
    torch.hub's directory of checkpoints. If it is in none of them, it is downloaded to the last, which the log says.
    Raises InputError, with where to put the file by hand, where that fails.

    Differs from v6.1: not downloaded into the working directory.
    """
    file, kept = f"{name}.pt", Path(torch.hub.get_dir()) / "checkpoints"
    for folder in (Path(), ROOT, kept):
        if (folder / file).is_file():
            return folder / file
    address = address_of(kept / file)
    kept.mkdir(parents=True, exist_ok=True)
    try:
        return fetch(address, kept / file, max_bytes=MAX_BYTES)
    except InputError as error:
        raise InputError(
            f"{file} is neither in {Path.cwd()} nor in {ROOT} nor in {kept}, and could not be had: {error}. "
            f"Download {shown(address)} by other means and put it into one of these directories"
        ) from error
