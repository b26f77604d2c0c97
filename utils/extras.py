"""Packages that only some commands need: says which are missing and how to install them. Not for installing: that is
never done behind anyone's back."""

from collections.abc import Iterable
from importlib.util import find_spec

from utils.errors import InputError


def need(packages: Iterable[str], requirements: str, *, purpose: str) -> None:
    """Raises InputError, with the command that installs them, where a package is missing.

    Args:
        packages: the names by which they are imported.
        requirements: the file that lists them.
        purpose: the flag or file that asks for them.
    """
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise InputError(f"{purpose} needs {' and '.join(missing)}, not installed here: pip install -r {requirements}")
