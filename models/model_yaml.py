"""Model YAMLs: finding, reading and checking them. Not for building the network: that is models/yolo.py."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from utils.errors import InputError
from utils.files import ROOT, near_files
from utils.log import LOGGER
from utils.plain_yaml import read_yaml

REQUIRED = ("nc", "depth_multiple", "width_multiple", "anchors", "backbone", "head")
OPTIONAL = ("ch",)
MOST_CLASSES = 100_000
LARGEST = 65_536  # of numbers in rows: channels, kernel sizes, ...
MOST_REPEATS = 1_000
LARGEST_MULTIPLE = 100
MOST_ANCHORS = 100  # a level
LONGEST_TOLD = 100  # characters of a value
MODEL_FOLDERS = (Path(), ROOT, ROOT / "models", ROOT / "models" / "hub")
ANCHOR_SETS = ROOT / "models" / "hub" / "anchors.yaml"


@contextmanager
def naming(cfg: str | Path | dict[str, Any]) -> Iterator[None]:
    """Puts the path of a model YAML before the message of an InputError from inside. For a content that came as a dict
    there is no path to tell: whoever read it adds that."""
    try:
        yield
    except InputError as error:
        raise error if isinstance(cfg, dict) else InputError(f"{cfg}: {error}") from error


def find_model_yaml(cfg: str | Path) -> Path:
    """The file as given, else in the repository, its models/ or models/hub/. Raises InputError, with these places and
    the shipped YAMLs that are called nearly so."""
    for folder in MODEL_FOLDERS:
        if (folder / cfg).is_file():
            return folder / cfg
    places = ", ".join(dict.fromkeys(str(folder.resolve()) for folder in MODEL_FOLDERS))
    told = f"no model YAML {cfg}" if Path(cfg).is_absolute() else f"no model YAML {cfg}; looked for it in {places}"
    raise InputError(f"{told}{near_files(cfg, *MODEL_FOLDERS[2:])}")


def read_model_yaml(cfg: str | Path | dict[str, Any]) -> dict[str, Any]:
    """The content of a model YAML, given by its path or as a dict, as a new dict. All REQUIRED keys are there and of
    usable types; otherwise it raises InputError."""
    if isinstance(cfg, dict):
        where, content = "the model description", deepcopy(cfg)
    else:
        path = find_model_yaml(cfg)
        where = str(path)
        try:
            content = read_yaml(path)
        except yaml.YAMLError as error:
            raise InputError(f"{where} is no readable YAML: {error}") from error
    _check(content, where)
    return content


def _check(content: Any, where: str) -> None:
    if not isinstance(content, dict):
        raise InputError(f"{where}: expected keys {', '.join(REQUIRED)}, got {type(content).__name__}")
    missing = [key for key in REQUIRED if key not in content]
    if missing:
        raise InputError(f"{where}: missing {', '.join(missing)}")
    if "activation" in content:  # v7.0's key: to build the model without it would give wrong results
        raise InputError(f"{where}: activation={_told(content['activation'])} is not supported, only SiLU is")
    for key in content.keys() - {*REQUIRED, *OPTIONAL}:
        LOGGER.warning(f"{where}: the key {_told(key)} is not read")
    _check_numbers(content, where)
    for key in ("backbone", "head"):
        _check_rows(content[key], f"{where}: {key}")
    content["anchors"] = check_anchors(content["anchors"], where)


def _check_numbers(content: dict[str, Any], where: str) -> None:
    for key, most in (("nc", MOST_CLASSES), ("ch", LARGEST)):
        value = content.get(key, 1)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            raise InputError(f"{where}: {key} must be a whole number from 1 to {most}, got {_told(value)}")
    for key in ("depth_multiple", "width_multiple"):
        if not isinstance(content[key], int | float) or not 0 < content[key] <= LARGEST_MULTIPLE:
            raise InputError(
                f"{where}: {key} must be a positive number up to {LARGEST_MULTIPLE}, got {_told(content[key])}"
            )


def _check_rows(rows: Any, where: str) -> None:
    wrong = [row for row in rows if not _is_row(row)] if isinstance(rows, list) else [rows]
    if wrong:
        raise InputError(
            f"{where} must be a list of rows [from, number, module, args], number up to {MOST_REPEATS}, other numbers "
            f"up to {LARGEST}, got {_told(wrong[0])}"
        )


def _is_row(row: Any) -> bool:
    types = (int | list, int, str, list)
    if not isinstance(row, list) or len(row) != 4 or not all(map(isinstance, row, types)):
        return False
    return row[1] <= MOST_REPEATS and all(map(_is_argument, row[3]))


def _is_argument(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_argument, value))
    return not isinstance(value, int | float) or abs(value) <= LARGEST


def _told(value: Any) -> str:
    return "a huge number" if isinstance(value, int) and abs(value) > LARGEST**4 else repr(value)[:LONGEST_TOLD]


def named_anchors(name: str, where: str) -> list[list[float]]:
    """The anchors of that name in models/hub/anchors.yaml. Raises InputError, with the names there are, for another."""
    known = read_yaml(ANCHOR_SETS)
    if name not in known:
        raise InputError(f"{where}: no anchors are called {_told(name)}; known are {', '.join(known)}")
    return known[name]


def check_anchors(anchors: Any, where: str) -> list[list[float]] | int:
    """Anchors as a model description has them: one flat list of (width, height) pairs in pixels a level, all equally
    long, or the number of anchors a level.

    anchors: such lists, the name of a set of them, or that number, which is a float in hyperparameter files and then
    rounded. Raises InputError for anything else.
    """
    if isinstance(anchors, str):
        anchors = named_anchors(anchors, where)
    if isinstance(anchors, int | float) and 0.5 < anchors <= MOST_ANCHORS:
        return round(anchors)
    flat = isinstance(anchors, list) and anchors and all(isinstance(level, list) and level for level in anchors)
    lengths = {len(level) for level in anchors} if flat else set()
    if len(lengths) != 1 or lengths.pop() % 2:
        raise InputError(
            f"{where}: anchors must be a number, or equally long lists of w, h pairs, got {_told(anchors)}"
        )
    if not all(isinstance(side, int | float) and 0 <= side <= LARGEST for level in anchors for side in level):
        raise InputError(f"{where}: anchors must be numbers of pixels, got {_told(anchors)}")
    return anchors


def completed(
    cfg: str | Path | dict[str, Any], ch: int, nc: int | None, anchors: list[list[float]] | float | None
) -> dict[str, Any]:
    """The content of a model YAML with its own `ch` or, where it has none, the given one, and with nc and anchors in
    place of its own where they are given. Raises InputError as read_model_yaml does, and for anchors that are none."""
    content = read_model_yaml(cfg)
    content.setdefault("ch", ch)
    if nc and nc != content["nc"]:
        LOGGER.info(f"Overriding the model YAML's nc={content['nc']} with nc={nc}")
        content["nc"] = nc
    if anchors:
        LOGGER.info(f"Overriding the model YAML's anchors with {anchors}")
        content["anchors"] = check_anchors(anchors, "the anchors given")
    return content


def class_names(names: list[str] | dict[int, str] | None, nc: int) -> dict[int, str]:
    """{class number: name}. Without names, the numbers as text are the names. Raises InputError where there are not
    nc of them."""
    if names is None:
        return {index: str(index) for index in range(nc)}
    named = dict(names) if isinstance(names, dict) else dict(enumerate(names))
    if len(named) != nc:
        raise InputError(f"names: expected {nc} class names, got {len(named)}: {list(named.values())}")
    return named
