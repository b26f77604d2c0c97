"""Model YAMLs: finding, reading and checking them. Not for building the network: that is models/yolo.py."""

import math
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from utils.errors import InputError
from utils.files import ROOT
from utils.log import LOGGER

REQUIRED = ("nc", "depth_multiple", "width_multiple", "anchors", "backbone", "head")
OPTIONAL = ("ch",)
ANCHOR_SETS = ROOT / "models" / "hub" / "anchors.yaml"


def find_model_yaml(cfg: str | Path) -> Path:
    """The file as given, else below the repository, models/ or models/hub/. Raises InputError with what was tried."""
    tried = [folder / cfg for folder in (Path(), ROOT, ROOT / "models", ROOT / "models" / "hub")]
    for path in tried:
        if path.is_file():
            return path
    raise InputError(f"no model YAML {cfg}; looked for {', '.join(str(path) for path in tried)}")


def read_model_yaml(cfg: str | Path | dict[str, Any]) -> dict[str, Any]:
    """The content of a model YAML (path or dict) as a new dict, with REQUIRED keys present and of usable types. Raises
    InputError otherwise."""
    if isinstance(cfg, dict):
        where, content = "the model description", deepcopy(cfg)
    else:
        path = find_model_yaml(cfg)
        where = str(path)
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
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
        raise InputError(f"{where}: activation={content['activation']!r} is not supported, only SiLU is")
    for key in content.keys() - {*REQUIRED, *OPTIONAL}:
        LOGGER.warning(f"{where}: the key {key!r} is not read")
    if not isinstance(content["nc"], int) or content["nc"] < 1:
        raise InputError(f"{where}: nc must be a whole number of at least 1, got {content['nc']!r}")
    for key in ("depth_multiple", "width_multiple"):
        if not isinstance(content[key], int | float) or not content[key] > 0:
            raise InputError(f"{where}: {key} must be a positive number, got {content[key]!r}")
    for key in ("backbone", "head"):
        if not isinstance(content[key], list) or not all(_is_row(row) for row in content[key]):
            raise InputError(f"{where}: {key} must be a list of rows [from, number, module, args]")
    content["anchors"] = check_anchors(content["anchors"], where)


def _is_row(row: Any) -> bool:
    types = (int | list, int, str, list)
    return isinstance(row, list) and len(row) == 4 and all(map(isinstance, row, types))


def named_anchors(name: str, where: str) -> list[list[float]]:
    """A set of models/hub/anchors.yaml. Raises InputError with the known names."""
    known = yaml.safe_load(ANCHOR_SETS.read_text(encoding="utf-8"))
    if name not in known:
        raise InputError(f"{where}: no anchors are called {name!r}; known are {', '.join(known)}")
    return known[name]


def check_anchors(anchors: Any, where: str) -> list[list[float]] | int:
    """Anchors as a list of levels, each a flat list of as many (width, height) pairs, pixels, which may be given by the
    name of a set; or the number of anchors a level (a float, as in hyperparameter files, is rounded). Raises InputError
    otherwise."""
    if isinstance(anchors, str):
        anchors = named_anchors(anchors, where)
    if isinstance(anchors, int | float) and round(anchors) >= 1:
        return round(anchors)
    flat = isinstance(anchors, list) and anchors and all(isinstance(level, list) and level for level in anchors)
    lengths = {len(level) for level in anchors} if flat else set()
    if len(lengths) != 1 or lengths.pop() % 2:
        raise InputError(f"{where}: anchors must be a number, or equally long lists of w, h pairs, got {anchors!r}")
    if not all(
        isinstance(side, int | float) and math.isfinite(side) and side >= 0 for level in anchors for side in level
    ):
        raise InputError(f"{where}: anchors must be numbers of pixels, got {anchors!r}")
    return anchors


def completed(
    cfg: str | Path | dict[str, Any], ch: int, nc: int | None, anchors: list[list[float]] | float | None
) -> dict[str, Any]:
    """The content of a model YAML with `ch` (where the YAML does not name its own), and nc and anchors replaced where
    they are given. Raises InputError as `read_model_yaml`."""
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
    """{class: name} from a list or a dict, or the class numbers as text where there are none. Raises InputError where
    they are not nc."""
    if names is None:
        return {index: str(index) for index in range(nc)}
    named = dict(names) if isinstance(names, dict) else dict(enumerate(names))
    if len(named) != nc:
        raise InputError(f"expected {nc} class names, got {len(named)}: {list(named.values())}")
    return named
