"""The hyperparameters of a training: read, checked, scaled and written. Not for flags: those are the scripts'."""

import dataclasses
import difflib
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from utils.errors import InputError
from utils.files import atomic_write
from utils.log import LOGGER
from utils.plain_yaml import read_yaml

UNREAD = {"iou_t": "v6.1's files have it, and nothing reads it"}  # keys that are accepted all the same -> why
LONGEST_TOLD = 60  # characters of a wrong key or value
LOOK_ALIKE = str.maketrans("Ool", "001")
OFF = -1  # turns off what has another meaning at 0


def _within(low: float, high: float = math.inf, *, off: bool = False, **default: Any) -> Any:
    """A dataclass field whose value must lie in [low, high], or may be OFF too if `off`. A file must have the key
    unless there is a `default=`."""
    return field(metadata={"low": low, "high": high, "off": off}, **default)


@dataclass(frozen=True, kw_only=True)
class Hyp:
    """One set of hyperparameters, with v6.1's names. Raises InputError for a value that is not finite or out of range.

    The gains `box`, `obj` and `cls` are as in the file; `scaled` gives those for the loss.
    """

    lr0: float = _within(0, 10)
    lrf: float = _within(0, 10)  # the last learning rate is lr0 * lrf
    momentum: float = _within(0, 1)  # SGD's momentum, Adam's beta1
    weight_decay: float = _within(0, 1)
    warmup_epochs: float = _within(0)
    warmup_momentum: float = _within(0, 1)
    warmup_bias_lr: float = _within(0, 10)
    box: float = _within(0)
    cls: float = _within(0)
    cls_pw: float = _within(0)  # weight of the positives in the class BCE
    obj: float = _within(0)
    obj_pw: float = _within(0)  # weight of the positives in the objectness BCE
    anchor_t: float = _within(1)  # a box and an anchor match below this ratio of their sides
    # anchors a level, rounded; None or 0: those of the model YAML
    anchors: float | None = _within(0, 100, default=None)
    fl_gamma: float = _within(0)  # 0 turns the focal loss off
    hsv_h: float = _within(0, 1)
    hsv_s: float = _within(0, 1)
    hsv_v: float = _within(0, 1)
    degrees: float = _within(0, 180)
    translate: float = _within(0, 1)  # fraction of the picture's side
    scale: float = _within(0, 1)
    shear: float = _within(0, 89)  # degrees
    perspective: float = _within(0, 0.01)
    flipud: float = _within(0, 1)  # from here to copy_paste: probabilities
    fliplr: float = _within(0, 1)
    mosaic: float = _within(0, 1)
    mixup: float = _within(0, 1)
    copy_paste: float = _within(0, 1)
    label_smoothing: float = _within(0, 1, default=0.0)  # --label-smoothing sets it, in no file
    temperature: float = _within(1, default=34.0)  # of dynamic layers' attention at the first epoch
    temperature_epochs: float = _within(0, off=True, default=11.0)  # until it is 1; OFF: it stays where it is
    kernel_noise: float = _within(0, off=True, default=0.1)  # of static kernels spread over K; OFF: they are not spread
    nominal_batch: int = _within(1, default=64)  # images an optimizer step sees, by accumulation

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if value is None and item.default is None:
                continue
            _check_number(item, value, where="hyperparameters")

    def scaled(self, *, nl: int, nc: int, imgsz: int) -> "Hyp":
        """A copy with the gains for the loss of a model. The file's gains are for 3 levels, 80 classes and pictures of
        640 px: all are scaled by the number of levels `nl`, cls also by that of classes, obj by the pictures' area."""
        levels = 3 / nl
        return dataclasses.replace(
            self, box=self.box * levels, cls=self.cls * nc / 80 * levels, obj=self.obj * (imgsz / 640) ** 2 * levels
        )


FIELDS = {item.name: item for item in dataclasses.fields(Hyp)}
REQUIRED = tuple(name for name, item in FIELDS.items() if item.default is dataclasses.MISSING)
# Keys that v6.1's files do not have: where one is missing its default is taken, and the log says so.
OURS = ("temperature", "temperature_epochs", "kernel_noise", "nominal_batch")


def load_hyp(source: str | Path | Mapping[str, Any]) -> Hyp:
    """Hyperparameters from a YAML file or a mapping.

    Keys of OURS may be missing: the log says which defaults are taken. Raises InputError, with file and key, for an
    unknown or missing key, and for a value that is no finite number or out of range.

    Differs from v6.1: keys and values are checked; `iou_t` is accepted without effect, and the log says so.
    """
    where, given = ("hyperparameters", source) if isinstance(source, Mapping) else (str(source), _read(Path(source)))
    for key in UNREAD.keys() & given.keys():
        LOGGER.info(f"{where}: {key} has no effect ({UNREAD[key]})")
    values = {key: value for key, value in given.items() if key not in UNREAD}
    _check_keys(values, where)
    for key, value in values.items():
        if not (value is None and key == "anchors"):
            _check_number(FIELDS[key], value, where)
    defaulted = [key for key in OURS if key not in values]
    if defaulted:
        taken = ", ".join(f"{key}: {FIELDS[key].default:g}" for key in defaulted)
        LOGGER.info(f"{where}: not given, so these defaults are taken: {taken}")
    return Hyp(**values)


def hyp_yaml(hyp: Hyp) -> str:
    """The text of a YAML file that `load_hyp` reads back to an equal Hyp."""
    values = {key: value for key, value in dataclasses.asdict(hyp).items() if value is not None}
    if not hyp.label_smoothing:
        del values["label_smoothing"]
    return yaml.safe_dump(values, sort_keys=False)


def save_hyp(hyp: Hyp, path: str | Path) -> None:
    """Writes a YAML file that `load_hyp` reads back to an equal Hyp."""
    with atomic_write(path) as stream:
        stream.write(hyp_yaml(hyp).encode())


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"hyperparameters: a YAML file was expected, but there is no file {path}")
    try:
        given = read_yaml(path)
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not readable as YAML: {error}") from error
    if not isinstance(given, dict):
        raise InputError(f"{path}: `key: number` lines were expected, got {type(given).__name__}")
    return given


def _check_keys(values: Mapping[str, Any], where: str) -> None:
    """Raises InputError for the first unknown key, else for all that are missing."""
    for key in values:
        if key not in FIELDS:
            close = _near_keys(str(key)[:LONGEST_TOLD])
            hint = f"did you mean {' or '.join(close)}?" if close else f"known are {', '.join(FIELDS)}"
            raise InputError(f"{where}: unknown hyperparameter {_told(key)}; {hint}")
    missing = [key for key in REQUIRED if key not in values]
    if missing:
        raise InputError(f"{where}: missing hyperparameter{'s' * (len(missing) > 1)} {', '.join(missing)}")


def _near_keys(key: str) -> list[str]:
    """Up to three keys that are written nearly so, first one that differs in characters that look alike, as lro does
    from lr0."""
    near = difflib.get_close_matches(key, FIELDS, n=3)
    return sorted(near, key=lambda name: name.translate(LOOK_ALIKE) != key.translate(LOOK_ALIKE))


def _check_number(item: dataclasses.Field[Any], value: Any, where: str) -> None:
    """Raises InputError unless the value is a finite number (a whole one for an int field) in the field's range, or OFF
    where the field may be that."""
    low, high, off = (item.metadata[key] for key in ("low", "high", "off"))
    kind = "whole number" if item.type is int else "number"
    expected = f"a {kind} " + (f"from {low:g} to {high:g}" if high < math.inf else f"of {low:g} or more")
    expected += f", or {OFF}" if off else ""
    got = f"{where}: {item.name} must be {expected}, got {_told(value)}"
    if isinstance(value, bool) or not isinstance(value, int if item.type is int else (int, float)):
        raise InputError(got + _exponent_hint(value))
    if not low <= value <= min(high, sys.float_info.max) and not (off and value == OFF):
        raise InputError(got)


def _told(value: Any) -> str:
    """The value as text, cut where it is long. Python refuses to write out whole numbers of more than 4,300 digits."""
    return "a huge number" if isinstance(value, int) and value.bit_length() > 1000 else repr(value)[:LONGEST_TOLD]


def _exponent_hint(value: Any) -> str:
    """What to write instead, where YAML has taken a number such as 1e-3 for text; else ''."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return ""
    return f" (YAML takes this for text: write {number} with a decimal point)" if isinstance(value, str) else ""
