"""Finds files, numbers the directories of runs, and writes files so that none is left half. Not for what stands in the
files."""

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import IO

from utils.errors import InputError

ROOT = Path(__file__).resolve().parents[1]  # of the repository
YAML_SUFFIXES = (".yaml", ".yml")


def increment_path(path: str | Path, exist_ok: bool = False, mkdir: bool = False) -> Path:
    """The path itself where it is free or `exist_ok`, else the path with a number: of exp, exp2, exp3, ... the one
    above the highest in use. A file keeps its suffix (log.txt, log2.txt). `mkdir` also makes the directory: the next
    one where another process made it at the same moment. Raises InputError where a file is in the way."""
    path = Path(path)
    while True:
        chosen = path if exist_ok or not path.exists() else _next_numbered(path)
        if not mkdir:
            return chosen
        with contextlib.suppress(FileExistsError):
            chosen.mkdir(parents=True, exist_ok=exist_ok)
            return chosen
        if exist_ok:
            raise InputError(f"a directory was expected at {chosen}, and a file is there")


def _next_numbered(path: Path) -> Path:
    stem, suffix = (path.stem, path.suffix) if path.is_file() else (path.name, "")
    numbered = re.compile(re.escape(stem) + r"(\d+)" + re.escape(suffix))
    taken = [int(match[1]) for sibling in path.parent.iterdir() if (match := numbered.fullmatch(sibling.name))]
    return path.with_name(f"{stem}{max([1, *taken]) + 1}{suffix}")


@contextmanager
def atomic_write(path: str | Path, *, sync: bool = True) -> Iterator[IO[bytes]]:
    """A binary file to write to, which becomes `path` at the end of the block, whole or not at all: a neighbouring
    temporary file is written and then renamed. On an exception the old file stays and the temporary one goes. An
    OSError (no space, ...) names the file.

    sync: waits until the file is on the disk, so that a power cut, too, leaves the old or the new one whole. That takes
    milliseconds. Without it only a power cut can harm: files of the last seconds may then be empty or missing.
    """
    target = Path(os.path.realpath(path))  # unlike resolve() it takes links in a circle, which are replaced
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        _remove(temporary)
        if error.errno is not None and error.filename in (None, str(temporary)):
            raise OSError(error.errno, error.strerror, str(target)) from error  # a write that fails names no file
        raise
    except BaseException:
        _remove(temporary)
        raise
    if sync:
        _sync(target.parent)


def _remove(temporary: Path) -> None:
    with contextlib.suppress(OSError):  # of a disk that can be read only: the first error is the one to tell
        temporary.unlink(missing_ok=True)


def replace_synced(source: Path, target: Path) -> None:
    """Renames a file or folder after everything in it has reached the disk; what had the name before is removed. After
    a power cut a file is the old or the new one, whole.

    A folder cannot take the place of another in one step. The older one waits beside it as .<name>.old while the new
    one gets the name: it comes back if that fails or is interrupted, and after a kill or a power cut with the next
    call."""
    for file in [source, *(source.rglob("*") if source.is_dir() else [])]:
        _sync(file)
    older = target.with_name(f".{target.name}.old")
    _settle(older, target)
    try:
        if target.is_dir():
            target.rename(older)
        source.replace(target)
    finally:
        _settle(older, target)
    _sync(target.parent)


def _settle(older: Path, target: Path) -> None:
    """Ends a replacement, however far it came: the older folder is removed if there is a target, else becomes it."""
    if not target.exists():
        if older.exists():
            older.rename(target)
    elif older.is_symlink():
        older.unlink()
    else:
        shutil.rmtree(older, ignore_errors=True)


def _sync(path: Path) -> None:
    """Makes what a file holds, or the names in a directory, survive a power cut. Windows cannot do that for what is not
    open for writing: there it is left to the file system."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def newest_run(root: str | Path, pattern: str) -> Path | None:
    """The file anywhere below `root` that matches the glob pattern and was written last; None where there is none."""
    return max(Path(root).rglob(pattern), key=lambda file: file.stat().st_mtime, default=None)


def find_file(name: str | Path, *roots: str | Path) -> Path:
    """The file at `name`, else at `name` under one of the roots, else, for a name without directories, the one file of
    that name anywhere below them. Raises InputError where none is found (with what was tried) or several are."""
    direct = list(dict.fromkeys([Path(name), *(Path(root) / name for root in roots)]))  # an absolute name stays itself
    for candidate in direct:
        if candidate.is_file():
            return candidate
    below = []
    if Path(name).name == str(name):
        below = sorted({found for root in roots for found in Path(root).rglob(str(name)) if found.is_file()})
    if len(below) == 1:
        return below[0]
    if below:
        raise InputError(f"several files are called {name}: {', '.join(map(str, below))}; give the path of one")
    raise InputError(f"there is no file {name}; tried {', '.join(map(str, direct))}{near_files(name, *roots)}")


def near_files(asked: str | Path, *folders: str | Path) -> str:
    """The end of a message about a file that is not there: " (did you mean a.yaml, b.yaml?)" with up to three files
    that are called nearly so, "" if there is none. Looked at are files of the same kind beside it, which are named with
    their path, and directly in the folders, which are named without, as they are found so."""
    asked = Path(asked)
    suffixes = YAML_SUFFIXES if asked.suffix.lower() in ("", *YAML_SUFFIXES) else (asked.suffix.lower(),)
    shown = {file.stem.lower(): file.name for folder in folders for file in _files_in(Path(folder), suffixes)}
    shown |= {file.stem.lower(): str(file) for file in _files_in(asked.parent, suffixes)}
    near = [shown[stem] for stem in get_close_matches(asked.stem.lower(), shown, n=3)]
    return f" (did you mean {', '.join(near)}?)" if near else ""


def _files_in(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Those with one of the suffixes; none where the folder cannot be read, or where its name is no path."""
    with contextlib.suppress(OSError, ValueError):
        return sorted(file for file in folder.iterdir() if file.suffix.lower() in suffixes and file.is_file())
    return []
