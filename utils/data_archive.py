"""A data set in a zip archive: unpacked beside it, within limits, as it may come from a stranger. Not for the YAML
in it: that is utils/data_config.py."""

import lzma
import secrets
import shutil
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from utils.errors import InputError
from utils.log import LOGGER

MOST_EXPANSION = 100  # times its packed size; text packs best, label files to about a fifth, pictures hardly at all
HARMLESS = 2**26  # bytes that any archive may unpack to, whatever its own size
LONGEST_TOLD = 200  # characters of a member's name
# What zipfile raises on damaged, encrypted and unknown content.
BAD_ARCHIVE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, NotImplementedError)


def unpacked_yaml(archive: Path) -> Path:
    """The one YAML at the top of an archive x.zip, which is unpacked as the folder x/ beside it unless that is there.

    Raises InputError where the archive is damaged, leads out of its folder or would become too large, and where there
    is no YAML at its top, or several. An archive that fails leaves nothing behind. A folder that is older than the
    archive is used all the same, with a warning: there may be work in it, so it is not replaced.
    """
    folder = archive.with_suffix("")
    if not folder.exists():
        _unpack(archive, folder)
    elif folder.stat().st_mtime < archive.stat().st_mtime:
        LOGGER.warning(f"{archive} is newer than {folder}, which is used: remove that folder, and it is unpacked anew")
    files = _yamls_in(folder)
    if len(files) != 1:
        told = f"expected one YAML at the top of {folder}, which is used in place of {archive}, got {len(files)}"
        raise InputError(f"{told}: remove that folder, and the archive is unpacked anew")
    return files[0]


def _yamls_in(folder: Path) -> list[Path]:
    return sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")])


def _unpack(archive: Path, folder: Path) -> None:
    unpacking = archive.with_name(f".{archive.stem}.{secrets.token_hex(4)}.tmp")
    LOGGER.info(f"Unpacking {archive} to {folder}")
    try:
        with zipfile.ZipFile(archive) as handle:
            _check_members(handle, archive)
            unpacking.mkdir()
            _extract(handle, unpacking, archive)
        content = _content_of(unpacking)
        yamls = len(_yamls_in(content))
        if yamls != 1:
            raise InputError(f"{archive}: expected one YAML at the top of the archive, got {yamls}")
        content.rename(folder)
    except BAD_ARCHIVE as error:
        raise InputError(f"{archive}: expected a zip archive that can be unpacked: {error}") from error
    except OSError as error:
        raise InputError(f"{archive} cannot be unpacked to {folder}: {error.strerror}") from error
    finally:
        shutil.rmtree(unpacking, ignore_errors=True)


def _extract(handle: zipfile.ZipFile, folder: Path, archive: Path) -> None:
    """Unpacks all members. Raises InputError for one that the system refuses: its name is too long, another member is
    in its place, the disk is full."""
    for member in handle.infolist():
        try:
            handle.extract(member, folder)
        except OSError as error:
            told = member.filename[:LONGEST_TOLD]
            raise InputError(f"{archive} cannot be unpacked: its member {told}: {error.strerror}") from error


def _check_members(handle: zipfile.ZipFile, archive: Path) -> None:
    """Raises InputError where a name leads out of the folder, or where there is too much to unpack."""
    names = [PurePosixPath(member.filename.replace("\\", "/")) for member in handle.infolist()]
    leading_out = next((name for name in names if name.is_absolute() or ".." in name.parts or ":" in str(name)), None)
    if leading_out is not None:
        told = str(leading_out)[:LONGEST_TOLD]
        raise InputError(f"{archive} was refused: its {told} would be written outside of its folder")
    size, packed = sum(member.file_size for member in handle.infolist()), archive.stat().st_size
    if size > max(packed * MOST_EXPANSION, HARMLESS):
        raise InputError(f"{archive} was refused: its {packed} bytes would become {size}, as no pictures and labels do")
    free = shutil.disk_usage(archive.parent).free
    if size > free:
        raise InputError(f"{archive}: unpacked it takes {size / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free there")


def _content_of(folder: Path) -> Path:
    """The folder itself, or the single folder in it where all content is in that. macOS adds __MACOSX, which does not
    count."""
    content = [item for item in folder.iterdir() if item.name != "__MACOSX"]
    return content[0] if len(content) == 1 and content[0].is_dir() else folder
