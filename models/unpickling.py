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
from utils.files import near_files
from utils.unrolled import unrolled

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
LEGACY_PICKLES = 5  # in a file of torch < 1.6: magic number, version, system, content, keys of the storages
UNREADABLE_ARCHIVE = (  # RuntimeError: encrypted, NotImplementedError: packed in a way that Python doesn't know
    zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, OSError, ValueError, MemoryError,
)  # fmt: skip
HARMLESS = 2**20  # bytes that the content of any file may take, however small the file is
NO_WEIGHTS = "it is no whole, plain file of torch.save"
LARGEST_PICKLE = 2**25  # bytes in an archive, of the structure without its tensors: YOLOv5 has 80 kB
MOST_OPCODES = 2_000_000  # of a pickle: YOLOv5 has 34,000
MOST_UNROLLED = 4  # times the size of the file: what its content may take with each reference written out
DEEPEST = 200  # objects in each other: YOLOv5 has 30
UNREADABLE = (  # what torch.load raises on content that is not a file of torch.save
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    MemoryError,
    OSError,
    struct.error,
)


class Inert:
    """What a class or function that a pickle names is replaced by. To call it, or to fill one of its objects, keeps
    what it is given and runs nothing. Each name has a subclass of its own: `type(stand_in).__name__`."""

    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any) -> "Inert":
        self = super().__new__(cls)
        self.args, self.state = args, None
        return self

    def __setstate__(self, state: Any) -> None:
        self.state = state


def load_inert(path: str | Path) -> Any:
    """The content of a file of torch.save, on the CPU, with Inert objects in place of those of its classes. Raises
    InputError where there is no such file, where it can't be read, where its content would be far larger than the file,
    and, before anything is read, where it names a class or function that a YOLOv5 checkpoint has no use for."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"weights: there is no file {path}{near_files(path)}")
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
            content = torch.load(path, map_location="cpu", weights_only=True)
        _check_claims(content, path)
        return content
    except InputError:
        raise
    except UNREADABLE as error:
        # torch's own words would be no help here: at best they advise to read the file unsafely
        raise InputError(f"{path} cannot be read as a file of weights: {NO_WEIGHTS}") from error


def _check_claims(content: Any, path: Path) -> None:
    """Raises InputError where the content is nested too deep to be walked through, or far larger than its file once
    each reference to an object, and each tensor that repeats its values, has memory of its own."""
    size, depth = unrolled(content, _parts, _bytes)
    most = MOST_UNROLLED * path.stat().st_size + HARMLESS
    if size > most or depth > DEEPEST:
        raise InputError(
            f"{path} was refused: what it holds would take more than {most} bytes or levels of nesting beyond {DEEPEST}"
        )


def _parts(value: Any) -> Iterator[Any]:
    """What is directly inside a value."""
    if isinstance(value, Inert):
        yield from (value.args, value.state)
    elif isinstance(value, dict):
        yield from value
        yield from value.values()
    elif isinstance(value, list | tuple | set):
        yield from value


def _bytes(value: Any) -> int:
    """What a value takes without its parts, about."""
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    return len(value) if isinstance(value, str | bytes) else 1


def _stand_in(name: str) -> type[Inert]:
    """An Inert class that torch's unpickler takes for `name`."""
    module, _, qualname = name.rpartition(".")
    return type(qualname, (Inert,), {"__module__": module})


def _globals_in(path: Path) -> set[str]:
    """Dotted names of all classes and functions that the pickles in the file refer to. They are for the message of a
    refusal alone. The guard is torch's restricted unpickler, which resolves no names but those that it is given."""
    with open(path, "rb") as file:
        if file.read(len(ZIP_MAGIC)) == ZIP_MAGIC:
            return _globals_in_archive(path)
        file.seek(0)
        return {name for _ in range(LEGACY_PICKLES) for name in _globals_in_pickle(file, path)}


def _globals_in_archive(path: Path) -> set[str]:
    found: set[str] = set()
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
            if any("/code/" in member for member in members):
                raise InputError(f"{path} is a TorchScript export; a checkpoint (.pt of a training) was expected")
            _check_packed(archive, path)
            for member in (member for member in members if member.endswith(".pkl")):
                found.update(_globals_in_pickle(io.BytesIO(archive.read(member)), path))
    except InputError:
        raise
    except UNREADABLE_ARCHIVE as error:
        raise InputError(f"{path} cannot be read as a file of weights: {NO_WEIGHTS} ({error})") from error
    return found


def _check_packed(archive: zipfile.ZipFile, path: Path) -> None:
    """Raises InputError where an archive's content is larger than its file, which torch's never is, as it compresses
    nothing, and where its pickles are too large."""
    size = path.stat().st_size
    claimed = sum(member.file_size for member in archive.infolist())
    pickles = sum(member.file_size for member in archive.infolist() if member.filename.endswith(".pkl"))
    if claimed > size or pickles > LARGEST_PICKLE:
        raise InputError(
            f"{path} was refused: its {size} bytes would unpack to {claimed}, {pickles} of them without tensors"
        )


def _globals_in_pickle(file: BinaryIO, path: Path) -> Iterator[str]:
    """The names in one pickle, up to its end or to the first byte that makes no sense, which torch.load will tell."""
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if count > MOST_OPCODES:
                raise InputError(f"{path} was refused: its structure has more than {MOST_OPCODES} parts")
            if opcode.name in ("GLOBAL", "INST"):
                yield re.sub(r"^__builtin__\b", "builtins", str(argument)).replace(" ", ".")
    except InputError:
        raise
    except (ValueError, struct.error, EOFError, OverflowError, MemoryError):
        return
