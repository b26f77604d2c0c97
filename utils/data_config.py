"""Data YAMLs: read, checked and resolved to paths that exist. Not for the pictures and labels at those paths: that is
utils/labels.py. Nothing that a YAML names is fetched or run; only the built-in digits are made, on first use."""

import difflib
import glob
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from utils.data_archive import unpacked_yaml
from utils.digits import make_digits
from utils.errors import InputError
from utils.files import ROOT, YAML_SUFFIXES, find_file
from utils.label_files import told_search
from utils.log import LOGGER
from utils.plain_yaml import read_yaml

SPLITS = ("train", "val", "test")
KEYS = ("path", *SPLITS, "nc", "names", "download", "hyp", "imgsz")
BUILTIN = "builtin:"
MOST_CLASSES = 100_000
LARGEST_SIDE = 65_536  # pixels
LONGEST_TOLD = 200  # characters of a value
MAKERS = {"builtin:digits": make_digits}  # by what `download` says: functions that make a set in a folder


@dataclass(frozen=True)
class DataConfig:
    """A data YAML, resolved.

    Attributes:
        file: the YAML itself.
        root: the directory of the data, below which relative paths of the splits were found.
        train, val, test: absolute paths of directories, list files or glob patterns; empty where the YAML has none.
        nc, names: how many classes, and the name of each class id from 0 to nc - 1.
        download: the text of that key, for messages alone.
        places: of each path in train, val and test, all paths where it was looked for.
        hyp, imgsz: what --hyp and --imgsz (pixels) are where the flag is not given; None where the YAML has none.
    """

    file: Path
    root: Path
    train: tuple[Path, ...]
    val: tuple[Path, ...]
    test: tuple[Path, ...]
    nc: int
    names: dict[int, str]
    download: str = ""
    places: Mapping[Path, tuple[Path, ...]] = field(default_factory=dict)
    hyp: Path | None = None
    imgsz: int | None = None


# ------------------------------------------------------------------------------------------------------- read the file
def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        content = read_yaml(file)
    except yaml.YAMLError as error:
        raise InputError(f"{file}: not readable as YAML: {error}") from error
    if not isinstance(content, Mapping):
        raise InputError(f"{file}: expected a mapping with the keys {', '.join(KEYS)}, got {type(content).__name__}")
    return dict(content)


def _meant(content: dict[str, Any]) -> dict[str, str]:
    """Unknown key -> the known one that it looks like, among those that the YAML does not have."""
    missing = [key for key in KEYS if key not in content]
    found = {}
    for key in map(str, content.keys() - set(KEYS)):
        close = difflib.get_close_matches(key[:LONGEST_TOLD], missing, n=1)
        if close:
            found[key] = close[0]
    return dict(sorted(found.items()))


def _tell_unread(file: Path, content: dict[str, Any]) -> None:
    """Logs which keys have no effect: a warning for those that look misspelt, a line for all others."""
    meant = _meant(content)
    for key, close in meant.items():
        LOGGER.warning(f"{file}: the key {_told(key)} is unknown and has no effect (did you mean {close}?)")
    others = [str(key) for key in content if key not in KEYS and str(key) not in meant]
    if others:
        LOGGER.info(f"{file}: these keys have no effect here: {_cut(', '.join(others))}")


def _hint(content: dict[str, Any], *keys: str) -> str:
    """The end of a message that one of these keys is missing: which unknown key may be meant for it; or ''."""
    pairs = [(given, close) for given, close in _meant(content).items() if close in keys]
    return "".join(f"; it has {_told(given)} (did you mean {close}?)" for given, close in pairs[:1])


def find_data_yaml(path: str | Path) -> Path:
    """The file at `path`, a YAML or an archive with one, looked for from the working directory, then in the repository
    and its data/. Raises InputError with what was tried, or with the YAMLs in it where it is a folder."""
    folder = ROOT if (ROOT / path).is_file() else ROOT / "data"
    try:
        return find_file(path, folder).resolve()
    except InputError as error:
        if not Path(path).is_dir():
            raise
        held = ", ".join(str(file) for file in sorted(Path(path).iterdir()) if file.suffix.lower() in YAML_SUFFIXES)
        told = f"it has {_cut(held)}" if held else "it has none"
        raise InputError(f"{path} is a folder: expected a data YAML, or a zip archive with one; {told}") from error


# ------------------------------------------------------------------------------------------------------ check the keys
def _text(file: Path, key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise InputError(f"{file}: {key}: expected a text, got {_told(value)}")
    return value


def _told(value: Any) -> str:
    return _cut(repr(value))


def _cut(text: str) -> str:
    return text[:LONGEST_TOLD]


def _whole_number(file: Path, key: str, value: Any, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise InputError(f"{file}: {key}: expected a whole number from 1 to {most}, got {_told(value)}")
    return value


def _sources(file: Path, key: str, value: Any) -> tuple[str, ...]:
    """The one path or the list of paths that a split has; none where the key is missing or empty."""
    if value in (None, ""):
        return ()
    listed = value if isinstance(value, list) else [value]
    return tuple(_text(file, key, item) for item in listed)


def _names(file: Path, value: Any, nc: int | None) -> dict[int, str]:
    """Class names by id, from a list or a mapping; class0, class1, ... where there are none."""
    if value is None and nc is not None:
        return {i: f"class{i}" for i in range(nc)}
    if not isinstance(value, list | Mapping) or not value:
        raise InputError(f"{file}: names: expected a list or a mapping of class names, got {_told(value)}")
    names = dict(enumerate(value)) if isinstance(value, list) else dict(value)
    expected = list(range(len(names) if nc is None else nc))
    if len(names) != len(expected):
        raise InputError(f"{file}: names: expected as many as nc={nc}, got {len(names)}")
    if set(names) != set(expected):
        wrong = next(key for key in names if key not in expected)
        raise InputError(f"{file}: names: expected the class ids 0 to {len(expected) - 1}, got {_told(wrong)}")
    for name in names.values():
        if not isinstance(name, str | int | float) or isinstance(name, bool):
            hint = "YAML takes a bare yes, no, on or off for true or false: put it in quotes"
            raise InputError(f"{file}: names: expected texts, got {_told(name)} ({hint})")
    return {i: str(names[i]) for i in expected}


# --------------------------------------------------------------------------------------------------- resolve the paths
@contextmanager
def _usable_paths(file: Path) -> Iterator[None]:
    """Raises InputError for paths that the system refuses to look up: too long, with a NUL, of an unknown ~user."""
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"{file}: one of its paths cannot exist on this system: {_cut(str(reason))}") from error


def _exists(path: Path) -> bool:
    """Whether there is something at the path, or at least one match where it is a pattern."""
    if path.exists() or not glob.has_magic(str(path)):
        return path.exists()
    with told_search(str(path)):
        return any(True for _ in glob.iglob(str(path), recursive=True))  # noqa: PTH207 (the pattern is a whole path)


def _places(file: Path, path: str) -> list[Path]:
    """Where a relative path of this YAML may lie: beside the YAML, in the working directory, in the repository."""
    bases = (file.parent, Path.cwd(), ROOT)
    return list(dict.fromkeys((base / Path(path).expanduser()).resolve() for base in bases))


def _resolved(root: Path, sources: tuple[str, ...]) -> tuple[Path, ...]:
    return tuple(root / Path(source).expanduser() for source in sources)


def _all_there(root: Path, sources: tuple[str, ...]) -> bool:
    return bool(sources) and all(map(_exists, _resolved(root, sources)))


def _choose_root(places: list[Path], splits: dict[str, tuple[str, ...]]) -> Path | None:
    """The first place that has all of train and val; else the first that has all of any one split; else None."""
    needed = splits["train"] + splits["val"]
    whole = [root for root in places if _all_there(root, needed)]
    partly = [root for root in places if any(_all_there(root, sources) for sources in splits.values())]
    return next(iter(whole + partly), None)


def _what_to_do(download: str, place: Path) -> str:
    if download.startswith(("http://", "https://")):
        return f"download {download} and unpack it to {place}; nothing is fetched by itself"
    if download in MAKERS:
        return f"{place} is there but lacks it: remove that folder, and it is made anew"
    if download:
        return "its `download` is no address of an archive, and programs in a YAML are not run: get the data by hand"
    return "correct `path`, or put the data there"


def _find_root(file: Path, splits: dict[str, tuple[str, ...]], places: list[Path], download: str) -> Path:
    """The directory of the data, made first where it is a built-in set that is not there yet."""
    root = _choose_root(places, splits)
    if root is None and download in MAKERS:
        LOGGER.info(f"Making the built-in data in {places[0]} (once, takes seconds)")
        root = _choose_root([MAKERS[download](places[0])], splits)
    if root is None:
        key = next(split for split in ("val", "train", "test") if splits[split])
        tried = ", ".join(str(path) for place in places for path in _resolved(place, splits[key]))
        raise InputError(
            f"{file}: {key}: nothing is there; tried {tried}. What to do: {_what_to_do(download, places[0])}"
        )
    return root


def _looked_for(places: list[Path], sources: tuple[str, ...]) -> dict[Path, tuple[Path, ...]]:
    """Each path of a split below the first of the places -> itself and those below the others."""
    found = [_resolved(place, sources) for place in places]
    return {paths[0]: tuple(dict.fromkeys(paths)) for paths in zip(*found, strict=True)}


def need_splits(data: DataConfig, *splits: str) -> None:
    """Raises InputError, with YAML, key and all places that were tried, where something that one of these splits names
    is not there. To be called before what takes long. A split that the YAML does not have passes."""
    with _usable_paths(data.file):
        for split in splits:
            for gone in (path for path in getattr(data, split) if not _exists(path)):
                raise InputError(f"{data.file}: {split}: nothing is there; {_where_to_look(data, split, gone)}")


def _where_to_look(data: DataConfig, split: str, gone: Path) -> str:
    elsewhere = [path for path in data.places[gone] if _exists(path)]
    if elsewhere:
        return f"tried {gone}, as the other splits are in {data.root}; it is at {elsewhere[0]}: correct `path`"
    again = _what_to_do(data.download, data.root) if data.download in MAKERS else ""
    what = again or f"correct `{split}`, or put the data there"
    return f"tried {', '.join(map(str, data.places[gone]))}. What to do: {what}"


def _find_hyp(file: Path, value: Any) -> Path | None:
    if value is None:
        return None
    places = _places(file, _text(file, "hyp", value))
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise InputError(f"{file}: hyp: no such file; tried {', '.join(map(str, places))}")
    return found


def load_data_config(path: str | Path) -> DataConfig:
    """The data YAML at `path`, or in the zip archive there (unpacked beside it), checked and with its paths found.

    Makes a built-in set on first use. Raises InputError with file and key where a key is missing or wrong, and with all
    places that were tried where no split exists.

    Differs from v6.1: `path` is looked for beside the YAML, then in the working directory, then in the repository;
    `download` is never fetched or run; `nc` may be left out where `names` are given; names may be a mapping.
    """
    found = find_data_yaml(path)
    file = unpacked_yaml(found) if found.suffix.lower() == ".zip" else found
    content = _read_yaml(file)
    _tell_unread(file, content)
    splits = {split: _sources(file, split, content.get(split)) for split in SPLITS}
    if not any(splits.values()):
        got = _cut(", ".join(map(str, content))) + _hint(content, *SPLITS)
        raise InputError(f"{file}: expected at least one of the keys {', '.join(SPLITS)}, got {got}")
    if content.get("nc") is None and content.get("names") is None:
        raise InputError(f"{file}: expected the key names, or at least nc, got neither{_hint(content, 'names', 'nc')}")
    nc = None if content.get("nc") is None else _whole_number(file, "nc", content["nc"], MOST_CLASSES)
    names = _names(file, content.get("names"), nc)
    download = _text(file, "download", content.get("download") or "").strip()
    if download.startswith(BUILTIN) and download not in MAKERS:
        raise InputError(f"{file}: download: expected an address or one of {', '.join(MAKERS)}, got {_cut(download)}")
    # an archive holds its data beside its YAML, whatever `path` was where it was packed
    path_key = "" if file != found else _text(file, "path", content.get("path") or "")
    with _usable_paths(file):
        places = _places(file, path_key)
        root = _find_root(file, splits, places, download)
        looked_for = [_looked_for([root, *places], sources) for sources in splits.values()]
        resolved = {split: _resolved(root, sources) for split, sources in splits.items()}
        hyp = _find_hyp(file, content.get("hyp"))
    return DataConfig(
        file=file,
        root=root,
        **resolved,
        nc=len(names),
        names=names,
        download=download,
        places={path: tried for split in looked_for for path, tried in split.items()},
        hyp=hyp,
        imgsz=None if content.get("imgsz") is None else _whole_number(file, "imgsz", content["imgsz"], LARGEST_SIDE),
    )
