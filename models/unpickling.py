"""Opens .pt files that may come from strangers: tensors and plain data come out, and of every class that a file names
only an inert stand-in. Nothing that stands in the file is run. What the content means is for models/weights.py."""

import io
import pickle
import pickletools
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch

from utils.errors import InputError

# names that torch's own restricted unpickler resolves: tensors and their storages, and containers
PLAIN = re.compile(
    r"torch\.((Float|Half|BFloat16|Double|Long|Int|Short|Char|Byte|Bool)Storage|Size|device)"
    r"|torch\._utils\._rebuild_(tensor_v2|parameter)|collections\.OrderedDict|builtins\.set|_codecs\.encode"
)
# names that get a stand-in: v6's and v7's network, torch's layers, numpy arrays and scalars (a best fitness)
STOOD_IN_FOR = re.compile(
    r"models\.yolo\.(Model|DetectionModel|Detect)|models\.common\.\w+|models\.experimental\.(MixConv2d|CrossConv|Sum)"
    r"|torch\.nn\.modules\.\w+\.\w+|numpy\.(ndarray|dtype|_?core\.multiarray\.(_reconstruct|scalar))"
)
ZIP_MAGIC = b"PK\x03\x04"
LEGACY_PICKLES = 5  # a file of torch < 1.6: magic number, version, system, content, storage keys
NO_WEIGHTS = "it is no whole, plain file of torch.save"
UNREADABLE = (  # what torch.load raises on content that is not a file of torch.save
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    struct.error,
)


class Inert:
    """Stands in for a class or function that a pickle names. Calling, creating or filling it keeps the arguments and
    runs nothing. Subclasses carry the name: `type(stand_in).__name__`."""

    def __new__(cls, *args: Any) -> "Inert":
        self = super().__new__(cls)
        self.args, self.state = args, None
        return self

    def __setstate__(self, state: Any) -> None:
        self.state = state


def load_inert(path: str | Path) -> Any:
    """The content of a file of torch.save on the CPU, with Inert objects for its classes. Raises InputError where there
    is no such file, where it can't be read, and, before anything is read, where it names a class or function that a
    YOLOv5 checkpoint has no use for."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"weights: there is no file {path}")
    names = _globals_in(path)
    refused = sorted(name for name in names if not (PLAIN.fullmatch(name) or STOOD_IN_FOR.fullmatch(name)))
    if refused:
        raise InputError(
            f"{path} was refused: it names {', '.join(refused)}, which is no part of a YOLOv5 v6 or v7 checkpoint; "
            f"nothing in the file has been run"
        )
    stand_ins = [_stand_in(name) for name in names if STOOD_IN_FOR.fullmatch(name)]
    try:
        with torch.serialization.safe_globals([*stand_ins, set]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        # torch's own words would be no help here: at best they advise to read the file unsafely
        raise InputError(f"{path} cannot be read as a file of weights: {NO_WEIGHTS}") from error


def _stand_in(name: str) -> type[Inert]:
    """An Inert class that torch's unpickler takes for `name`."""
    module, _, qualname = name.rpartition(".")
    return type(qualname, (Inert,), {"__module__": module})


def _globals_in(path: Path) -> set[str]:
    """Dotted names of all classes and functions that the pickles in the file refer to. Only tells what to refuse, by
    name: what guards is torch's restricted unpickler, which resolves no other names than those that it is given."""
    with open(path, "rb") as file:
        if file.read(len(ZIP_MAGIC)) == ZIP_MAGIC:
            return _globals_in_archive(path)
        file.seek(0)
        return {name for _ in range(LEGACY_PICKLES) for name in _globals_in_pickle(file)}


def _globals_in_archive(path: Path) -> set[str]:
    found: set[str] = set()
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
            if any("/code/" in member for member in members):
                raise InputError(f"{path} is a TorchScript export; a checkpoint (.pt of a training) was expected")
            for member in (member for member in members if member.endswith(".pkl")):
                found.update(_globals_in_pickle(io.BytesIO(archive.read(member))))
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:  # RuntimeError: encrypted
        raise InputError(f"{path} cannot be read as a file of weights: {NO_WEIGHTS} ({error})") from error
    return found


def _globals_in_pickle(file: BinaryIO) -> Iterator[str]:
    """Names in one pickle, up to its end or to the first byte that is none: torch.load says what is wrong there."""
    try:
        for opcode, argument, _ in pickletools.genops(file):
            if opcode.name in ("GLOBAL", "INST"):
                yield re.sub(r"^__builtin__\b", "builtins", argument).replace(" ", ".")
    except (ValueError, struct.error, EOFError):
        return
