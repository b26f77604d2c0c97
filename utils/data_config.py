"""Data YAMLs: read, checked and resolved to paths that exist. Not for what stands below those paths (utils/labels.py);
nothing named in a YAML is fetched or run, only the built-in digits are made on first use."""

import glob
import lzma
import secrets
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from utils.digits import make_digits
from utils.errors import InputError
from utils.files import ROOT, find_file
from utils.log import LOGGER
from utils.plain_yaml import read_yaml

SPLITS = ("train", "val", "test")
KEYS = ("path", *SPLITS, "nc", "names", "download", "hyp", "imgsz")
BUILTIN = "builtin:"
MOST_CLASSES = 100_000
MOST_EXPANSION = 100  # of an archive: labels make 5, pictures 1
HARMLESS = 2**26  # bytes that an archive may become whatever its size
BAD_ARCHIVE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, NotImplementedError)
LARGEST_SIDE = 65_536  # pixels
LONGEST_TOLD = 200  # characters of a value
MAKERS = {"builtin:digits": make_digits}


@dataclass(frozen=True)
class DataConfig:
    """A data YAML, resolved. Each split is a tuple of directories, list files or patterns, absolute, empty where the
    YAML has none. names: class id -> name, for 0 to nc-1. download: what the YAML says, for messages alone. hyp and
    imgsz (pixels): the YAML's own defaults for flags that are not given."""

    file: Path
    root: Path
    train: tuple[Path, ...]
    val: tuple[Path, ...]
    test: tuple[Path, ...]
    nc: int
    names: dict[int, str]
    download: str = ""
    hyp: Path | None = None
    imgsz: int | None = None


# ------------------------------------------------------------------------------------------------------- read the file
def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        content = read_yaml(file)
    except yaml.YAMLError as error:
        raise InputError(f"{file}: expected YAML in UTF-8, got {error}") from error
    if not isinstance(content, Mapping):
        raise InputError(f"{file}: expected a mapping with the keys {', '.join(KEYS)}, got {type(content).__name__}")
    unread = [str(key) for key in content if key not in KEYS]
    if unread:
        LOGGER.info(f"{file}: passed over, not among the keys of a data YAML: {_cut(', '.join(unread))}")
    return dict(content)


def _only_folder(folder: Path) -> Path:
    """The folder itself, or the one folder that is all there is in it (but for what macOS adds)."""
    content = [item for item in folder.iterdir() if item.name != "__MACOSX"]
    return content[0] if len(content) == 1 and content[0].is_dir() else folder


def _check_members(handle: zipfile.ZipFile, archive: Path) -> None:
    """Raises InputError for names that lead out of the folder, and where unpacked it would be too large."""
    names = [PurePosixPath(member.filename.replace("\\", "/")) for member in handle.infolist()]
    leading_out = next((name for name in names if name.is_absolute() or ".." in name.parts or ":" in str(name)), None)
    if leading_out is not None:
        raise InputError(f"{archive} was refused: its {_cut(str(leading_out))} would be written outside of its folder")
    size, packed = sum(member.file_size for member in handle.infolist()), archive.stat().st_size
    if size > max(packed * MOST_EXPANSION, HARMLESS):
        raise InputError(f"{archive} was refused: its {packed} bytes would become {size}, as no pictures and labels do")
    free = shutil.disk_usage(archive.parent).free
    if size > free:
        raise InputError(f"{archive}: unpacked it takes {size / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free there")


def _unpack(archive: Path) -> Path:
    """Unpacks x.zip beside itself as x/, unless that is there, and returns the one YAML at its top."""
    folder = archive.with_suffix("")
    if not folder.exists():
        unpacking = archive.with_name(f".{archive.stem}.{secrets.token_hex(4)}.tmp")
        LOGGER.info(f"Unpacking {archive} to {folder}")
        try:
            with zipfile.ZipFile(archive) as handle:
                _check_members(handle, archive)
                unpacking.mkdir()
                handle.extractall(unpacking)
            _only_folder(unpacking).rename(folder)
        except BAD_ARCHIVE as error:
            raise InputError(f"{archive}: expected a zip archive that can be unpacked: {error}") from error
        finally:
            shutil.rmtree(unpacking, ignore_errors=True)
    files = sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")])
    if len(files) != 1:
        raise InputError(f"{archive}: expected one YAML at the top of the archive, got {len(files)}, in {folder}")
    return files[0]


def find_data_yaml(path: str | Path) -> Path:
    """The file at `path`, a YAML or an archive with one, looked for from the working directory, then in the repository
    and its data/. Raises InputError with what was tried."""
    from_repository = ROOT / path
    found = find_file(path, *([ROOT] if from_repository.is_file() else [ROOT / "data"]))
    return found.resolve()


# ------------------------------------------------------------------------------------------------------ check the keys
def _text(file: Path, key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise InputError(f"{file}: {key}: expected a text, got {_told(value)}")
    return value


def _told(value: Any) -> str:
    return _cut(repr(value))


def _cut(text: str) -> str:
    return text[:LONGEST_TOLD]


def _natural(file: Path, key: str, value: Any, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise InputError(f"{file}: {key}: expected a whole number from 1 to {most}, got {_told(value)}")
    return value


def _sources(file: Path, key: str, value: Any) -> tuple[str, ...]:
    listed = value if isinstance(value, list) else [] if value in (None, "") else [value]
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
            raise InputError(
                f"{file}: names: expected texts, got {_told(name)} (YAML reads yes, no, on and off as truth: quote)"
            )
    return {i: str(names[i]) for i in expected}


# --------------------------------------------------------------------------------------------------- resolve the paths
@contextmanager
def _usable_paths(file: Path) -> Iterator[None]:
    """Turns what the system says of paths that can't exist (too long, a NUL, nobody's home) into an InputError."""
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"{file}: it holds a path that no system can have: {_cut(str(reason))}") from error


def _exists(path: Path) -> bool:
    if path.exists() or not glob.has_magic(str(path)):
        return path.exists()
    return any(True for _ in glob.iglob(str(path), recursive=True))  # noqa: PTH207 (the pattern holds the whole path)


def _places(file: Path, path: str) -> list[Path]:
    """Where a relative path of this YAML may lie: beside the YAML, in the working directory, in the repository."""
    bases = (file.parent, Path.cwd(), ROOT)
    return list(dict.fromkeys((base / Path(path).expanduser()).resolve() for base in bases))


def _resolved(root: Path, sources: tuple[str, ...]) -> tuple[Path, ...]:
    return tuple(root / Path(source).expanduser() for source in sources)


def _all_there(root: Path, sources: tuple[str, ...]) -> bool:
    return bool(sources) and all(map(_exists, _resolved(root, sources)))


def _choose_root(places: list[Path], splits: dict[str, tuple[str, ...]]) -> Path | None:
    """The first place with all of train and val; without one, the first where a split is whole; else None."""
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


def _find_root(file: Path, splits: dict[str, tuple[str, ...]], path: str, download: str) -> Path:
    """The directory of the data, made first where it is a built-in set that is not there yet."""
    places = _places(file, path)
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
    file = _unpack(found) if found.suffix.lower() == ".zip" else found
    content = _read_yaml(file)
    splits = {split: _sources(file, split, content.get(split)) for split in SPLITS}
    if not any(splits.values()):
        raise InputError(
            f"{file}: expected at least one of the keys {', '.join(SPLITS)}, got {_cut(', '.join(map(str, content)))}"
        )
    if content.get("nc") is None and content.get("names") is None:
        raise InputError(f"{file}: expected the key names, or at least nc, got neither")
    nc = None if content.get("nc") is None else _natural(file, "nc", content["nc"], MOST_CLASSES)
    names = _names(file, content.get("names"), nc)
    download = _text(file, "download", content.get("download") or "").strip()
    if download.startswith(BUILTIN) and download not in MAKERS:
        raise InputError(f"{file}: download: expected an address or one of {', '.join(MAKERS)}, got {_cut(download)}")
    path_key = "" if file != found else _text(file, "path", content.get("path") or "")  # an archive has its data in it
    with _usable_paths(file):
        root = _find_root(file, splits, path_key, download)
        resolved = {split: _resolved(root, sources) for split, sources in splits.items()}
        hyp = _find_hyp(file, content.get("hyp"))
    return DataConfig(
        file=file,
        root=root,
        **resolved,
        nc=len(names),
        names=names,
        download=download,
        hyp=hyp,
        imgsz=None if content.get("imgsz") is None else _natural(file, "imgsz", content["imgsz"], LARGEST_SIDE),
    )
