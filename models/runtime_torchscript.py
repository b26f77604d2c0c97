"""TorchScript files as a backend. Not for writing them: models/export_torchscript.py."""

from pathlib import Path
from zipfile import BadZipFile, ZipFile

import torch
from torch import Tensor

from models.export_metadata import LONGEST, from_json
from models.export_torchscript import METADATA_NAME
from models.exported import LONGEST_MESSAGE, ExportedBackend, check_is_file, one_line
from utils.errors import InputError
from utils.quiet import quiet

LARGEST_CODE = 2**27  # bytes, unpacked


class TorchScriptBackend(ExportedBackend):
    """A file of torch.jit, ours or v6.1's, run on the device. Raises InputError where it is no such file, or takes no
    images."""

    def __init__(self, file: Path, device: torch.device) -> None:
        check_is_file(file)
        _check_packed(file)
        extra = {METADATA_NAME: ""}
        try:
            with quiet():  # torch would like torch.export
                self.program = torch.jit.load(str(file), map_location=device, _extra_files=extra).eval()
        except (RuntimeError, ValueError, UnicodeError, EOFError) as error:
            raise InputError(f"{file}: torch cannot read it as TorchScript: {one_line(error)}") from error
        metadata = from_json(extra[METADATA_NAME] or "{}", file)
        is_fixed = not metadata.dynamic and metadata.imgsz is not None
        super().__init__(
            file,
            metadata,
            device,
            fixed_hw=metadata.imgsz if is_fixed else None,
            fixed_batch=metadata.batch if is_fixed else None,
        )

    def _run(self, images: Tensor) -> Tensor:
        try:
            output = self.program(images)
        except RuntimeError as error:
            shape = tuple(images.shape)
            raise InputError(f"{self.file}: TorchScript fails on images {shape}: {_reason(error)}") from error
        first = output[0] if isinstance(output, (tuple, list)) and output else output
        if not isinstance(first, Tensor):
            raise InputError(f"{self.file}: it should give a tensor of predictions, got {type(first).__name__}")
        return first


def _reason(error: RuntimeError) -> str:
    """The last line of a message, which says what failed; those above it say where in the program."""
    return " ".join(str(error).strip().split("\n")[-1].split())[:LONGEST_MESSAGE] or one_line(error)


def _check_packed(file: Path) -> None:
    """Raises InputError where an archive would become far larger than it is. torch packs the code alone."""
    try:
        with ZipFile(file) as archive:
            members = archive.infolist()
    except (BadZipFile, ValueError, NotImplementedError, EOFError) as error:
        raise InputError(f"{file}: torch cannot read it as TorchScript: {one_line(error)}") from error
    size, claimed = file.stat().st_size, sum(member.file_size for member in members)
    if claimed > size + LARGEST_CODE:
        raise InputError(f"{file} was refused: its {size} bytes would unpack to {claimed}, as no network's do")
    told = sum(member.file_size for member in members if member.filename.endswith(f"extra/{METADATA_NAME}"))
    if told > LONGEST:
        raise InputError(f"{file}: its metadata has more than {LONGEST} characters")
