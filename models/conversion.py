"""What the converters for mobile runtimes have in common: they talk much, they fail in words of their own, and some
take one image at a time. Not for any of them: models/export_*.py."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from models.export_options import ExportOptions
from models.exported import one_line
from utils.errors import InputError
from utils.quiet import quiet
from utils.silence import silence


@contextmanager
def conversion(tool: str, file: Path, options: ExportOptions) -> Iterator[None]:
    """Runs a converter in the block, quietly unless options.verbose. Raises InputError in place of whatever it
    raises."""
    try:
        with quiet(not options.verbose), silence(not options.verbose):
            yield
    except InputError:
        raise
    except Exception as error:  # converters raise classes of every kind
        more = "" if options.verbose else " (--verbose shows more)"
        raise InputError(f"{file}: {tool} cannot convert this network{more}: {one_line(error)}") from error


def check_one_image(options: ExportOptions, name: str) -> None:
    """Raises InputError where the file should take several images at a time."""
    if options.batch_size != 1:
        raise InputError(f"--include {name} takes one image at a time: --batch-size 1, got {options.batch_size}")
