"""What an exported file tells of its network: stride, class names, sizes. Written by models/export_*.py, read by
models/runtime_*.py with suspicion, as files come from strangers. Not for the network itself."""

import ast
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from utils.errors import InputError

LONGEST = 1_000_000  # characters of one text: Objects365 has 5,000
MOST_CLASSES = 100_000
LARGEST_STRIDE = 1024  # pixels
LARGEST_SIDE = 65_536  # pixels
MOST_FACTS, LONGEST_FACT = 30, 4096  # of a mapping of small facts: how many, and characters of one of them
LONGEST_PATH = 4096  # characters
DEFAULT_STRIDE = 32
LITERAL = re.compile(
    r"""[\s\[\]{}(),:]|-?[0-9][0-9.]*|True|False|None|'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL
)


@dataclass(frozen=True)
class Metadata:
    """Facts that stand in an exported file.

    Attributes:
        names: class names by class number, 0 to nc - 1; empty where a file does not tell.
        stride: pixels; image sides are multiples of it.
        imgsz: (height, width) in pixels that was exported; None where a file does not tell.
        batch: images at a time.
        dynamic: batch, height and width are free.
        task: always detect.
        nms: the settings of the suppression inside the file (models.export_options.Suppression), None without one.
        train: the file gives the heads' raw maps.
        frozen: of a static twin of a dynamic network, what freezing the attention cost (engine/attention_freezer.py).
        trained_with: what is known of the training: data (path of the data YAML), single_cls.
    """

    names: dict[int, str]
    stride: int = DEFAULT_STRIDE
    imgsz: tuple[int, int] | None = None
    batch: int = 1
    dynamic: bool = False
    task: str = "detect"
    nms: dict[str, Any] | None = None
    train: bool = False
    frozen: dict[str, Any] | None = None
    trained_with: dict[str, Any] = field(default_factory=dict)

    def as_texts(self) -> dict[str, str]:
        """A text for each fact, for formats that keep pairs of texts. `names` is written as a Python dict, which
        YOLOv5 from v6.1 on reads too."""
        texts = {key: json.dumps(value) for key, value in asdict(self).items()}
        return {**texts, "names": repr(self.names), "task": self.task}

    def as_json(self) -> str:
        """One text, for formats that keep one, and for a file beside the network."""
        return json.dumps(asdict(self))

    def named(self, nc: int, file: Path) -> dict[int, str]:
        """The class names for a network with that many classes: class0, class1, ... where the file tells none. Raises
        InputError where it tells another number of them."""
        names = self.names or {cls: f"class{cls}" for cls in range(nc)}
        if len(names) != nc:
            raise InputError(f"{file}: it predicts {nc} classes, but names {len(names)} of them")
        return names


# -------------------------------------------------------------------------------------------------------------- reading
def from_file(file: Path) -> Metadata:
    """As from_json, of the file that some formats have beside the network; no facts where there is no such file."""
    if not file.is_file():
        return Metadata({})
    with open(file, "rb") as stream:
        return from_json(stream.read(LONGEST + 1), file)


def from_json(text: str | bytes, file: Path) -> Metadata:
    """The inverse of as_json, and v6.1's config.txt of TorchScript. Raises InputError for what is neither."""
    if len(text) > LONGEST:
        raise InputError(f"{file}: its metadata has more than {LONGEST} characters")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: its metadata cannot be read: {_short(error)}") from error
    if not isinstance(content, Mapping):
        raise InputError(f"{file}: its metadata should be a mapping, got {type(content).__name__}")
    return from_values(content, file)


def from_texts(texts: Mapping[str, str], file: Path) -> Metadata:
    """The inverse of as_texts; also what YOLOv5 v6.1 and later write. Facts that it does not know are passed over.
    Raises InputError for one that it knows with a value that it should not have."""
    known = Metadata.__dataclass_fields__
    return from_values({key: _value(text, key, file) for key, text in texts.items() if key in known}, file)


def from_values(content: Mapping[str, Any], file: Path) -> Metadata:
    """Metadata from parsed values. What is missing has its default. Raises InputError that names a wrong one."""
    found: dict[str, Any] = {}
    shape = content.get("shape")  # v6.1's TorchScript: (batch, channels, height, width)
    if isinstance(shape, (list, tuple)) and len(shape) == 4 and "imgsz" not in content:
        content = {**content, "imgsz": shape[2:], "batch": shape[0]}
    for key, read in READERS.items():
        value = content.get(key)
        if value is None:
            continue
        try:
            found[key] = read(value)
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise InputError(f"{file}: its metadata has a wrong {key}: {_short(error)}") from error
    return Metadata(**{"names": {}, **found})


def _value(text: Any, key: str, file: Path) -> Any:
    """The value that a text stands for: JSON, or the literals of Python that v6.1 writes. Nothing of it is run."""
    if not isinstance(text, str) or len(text) > LONGEST:
        raise InputError(f"{file}: its metadata has a wrong {key}: a text was expected")
    if key == "task":
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    if not _is_literal(text):
        raise InputError(f"{file}: its metadata has a wrong {key}: {text[:60]!r} is no value")
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise InputError(f"{file}: its metadata has a wrong {key}: {text[:60]!r} is no value") from error


def _is_literal(text: str) -> bool:
    """Whether a text is made of brackets, numbers, True, False, None and quoted texts alone, and of no more of them
    than names need: Python takes minutes to read an f-string that nobody would write."""
    if text.count(",") > MOST_CLASSES:
        return False
    place = 0
    while place < len(text):
        token = LITERAL.match(text, place)
        if token is None:
            return False
        place = token.end()
    return True


def _names(value: Any) -> dict[int, str]:
    """A list or a mapping, whose keys may be texts as JSON has them."""
    pairs = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else None
    if pairs is None or len(value) > MOST_CLASSES:
        raise ValueError(f"a list or mapping of at most {MOST_CLASSES} names was expected, got {type(value).__name__}")
    names = {_whole(int(cls)): name for cls, name in pairs}
    if sorted(names) != list(range(len(value))) or not all(isinstance(name, str) for name in names.values()):
        raise ValueError("texts for the classes 0, 1, ... were expected")
    return {cls: names[cls] for cls in sorted(names)}


def _whole(value: Any, low: int = 0, high: int = 1_000_000) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value):
        raise ValueError(f"a whole number was expected, got {str(value)[:60]!r}")
    if not low <= value <= high:
        raise ValueError(f"{low} to {high} was expected, got {value}")
    return int(value)


def _positive(value: Any) -> int:
    return _whole(value, low=1)


def _stride(value: Any) -> int:
    return _whole(value, 1, LARGEST_STRIDE)


def _sides(value: Any) -> tuple[int, int]:
    sides = list(value) if isinstance(value, (list, tuple)) else [value] * 2
    if len(sides) != 2:
        raise ValueError(f"height and width were expected, got {len(sides)} numbers")
    return _whole(sides[0], 1, LARGEST_SIDE), _whole(sides[1], 1, LARGEST_SIDE)


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"true or false was expected, got {str(value)[:60]!r}")
    return value


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"a mapping was expected, got {type(value).__name__}")
    return {str(key): item for key, item in value.items()}


def _facts(value: Any) -> dict[str, Any]:
    """A mapping that is told in the log: a few numbers, truths and short texts."""
    facts = _mapping(value)
    if len(facts) > MOST_FACTS:
        raise ValueError(f"a mapping of at most {MOST_FACTS} facts was expected, got {len(facts)}")
    for item in (*facts, *facts.values()):
        if not isinstance(item, (str, int, float, type(None))) or len(str(item)) > LONGEST_FACT:
            raise ValueError(f"numbers, truths and texts of {LONGEST_FACT} characters at most were expected")
    return facts


def _trained_with(value: Any) -> dict[str, Any]:
    facts = _mapping(value)
    for key, kind in (("data", str), ("single_cls", bool)):
        if not isinstance(facts.get(key, kind()), kind):
            raise ValueError(f"its {key} is {type(facts[key]).__name__}")
    if len(facts.get("data", "")) > LONGEST_PATH:
        raise ValueError(f"its data is longer than {LONGEST_PATH} characters")
    return {key: facts[key] for key in ("data", "single_cls") if key in facts}


def _detect(value: Any) -> str:
    if value != "detect":
        raise ValueError(f"detect was expected, got {str(value)[:60]!r}")
    return value


READERS = {
    "names": _names,
    "stride": _stride,
    "imgsz": _sides,
    "batch": _positive,
    "dynamic": _truth,
    "task": _detect,
    "nms": _facts,
    "train": _truth,
    "frozen": _facts,
    "trained_with": _trained_with,
}


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
