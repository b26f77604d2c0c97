"""What the converters for mobile runtimes have in common: they print much, they fail with exceptions of their own, some
are programs, and some take one image at a time. Not for any single one: models/export_*.py."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from models.export_options import ExportOptions
from models.exported import LONGEST_MESSAGE, one_line
from utils.errors import InputError
from utils.quiet import quiet
from utils.silence import silence


@contextmanager
def conversion(tool: str, file: Path, options: ExportOptions) -> Iterator[None]:
    """The block to call a converter in: it prints nothing unless options.verbose, and whatever it raises becomes an
    InputError. tool: what the message calls it."""
    try:
        with quiet(not options.verbose), silence(not options.verbose):
            yield
    except InputError:
        raise
    except Exception as error:  # converters raise classes of every kind
        more = "" if options.verbose else " (--verbose shows more)"
        raise InputError(f"{file}: {tool} cannot convert this network{more}: {one_line(error)}") from error


def run_program(command: Sequence[str | Path], makes: Path, options: ExportOptions, *, cwd: Path | None = None) -> None:
    """Runs a converter that is a program, and prints what it says if options.verbose. Raises InputError, with the end
    of that, where it fails, or where the file `makes` is not there afterwards."""
    answer = subprocess.run(command, cwd=cwd, capture_output=True, text=True, errors="replace")
    told = answer.stdout + answer.stderr
    if options.verbose:
        print(told, end="")
    if answer.returncode or not makes.is_file():
        end = " ".join(told.split())[-LONGEST_MESSAGE:]
        raise InputError(f"{makes.parent}: {Path(command[0]).name} failed ({answer.returncode}): {end}")


def check_one_image(options: ExportOptions, name: str) -> None:
    """Raises InputError where the file should take several images at a time."""
    if options.batch_size != 1:
        raise InputError(f"--include {name} takes one image at a time: --batch-size 1, got {options.batch_size}")
