"""The fields of a detection request as values. Not for the options of serve.py: engine/server.py."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from engine.service_limits import ServiceError, quoted

MOST_DETECTIONS = 3000
SWITCH = {"true": True, "1": True, "on": True, "false": False, "0": False, "off": False}


@dataclass(frozen=True)
class DetectOptions:
    """conf, iou: thresholds, 0 to 1. classes: numbers or names, None for all. model: an id, "" for the first. max_det:
    the most detections of a picture. attention: whether to tell that of dynamic layers."""

    conf: float = 0.25
    iou: float = 0.45
    classes: tuple[str, ...] | None = None
    model: str = ""
    max_det: int = 300
    attention: bool = False


def parse_fields(fields: Mapping[str, str]) -> DetectOptions:
    """The options of a form; an empty field counts as left out. Raises ServiceError: 400 for a value that is none, 422
    for a field that there isn't."""
    if unknown := [name for name in fields if name not in PARSERS]:
        known = ", ".join(["pictures", *PARSERS])
        raise ServiceError(422, f"the fields {known} were expected, got {quoted(unknown[0])}")
    given = {name: value.strip() for name, value in fields.items()}
    values: dict[str, Any] = {name: PARSERS[name](name, value) for name, value in given.items() if value}
    return DetectOptions(**values)


def _share(name: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:  # NaN is neither
        raise ServiceError(400, f"{name}: a number from 0 to 1 was expected, got {quoted(value)}")
    return number


def _count(name: str, value: str) -> int:
    number = int(value) if value.isascii() and value.isdecimal() and len(value) < 10 else 0
    if not 1 <= number <= MOST_DETECTIONS:
        raise ServiceError(400, f"{name}: a number from 1 to {MOST_DETECTIONS} was expected, got {quoted(value)}")
    return number


def _switch(name: str, value: str) -> bool:
    if value.lower() not in SWITCH:
        raise ServiceError(400, f"{name}: true or false was expected, got {quoted(value)}")
    return SWITCH[value.lower()]


def _classes(_name: str, value: str) -> tuple[str, ...] | None:
    return tuple(item.strip() for item in value.split(",") if item.strip()) or None


def _text(_name: str, value: str) -> str:
    return value


PARSERS: dict[str, Callable[[str, str], Any]] = {
    "conf": _share,
    "iou": _share,
    "classes": _classes,
    "model": _text,
    "max_det": _count,
    "attention": _switch,
}
