"""Packages that only some commands need: whether they are here, and how to get them. They are never installed behind
anyone's back."""

from collections.abc import Iterable
from importlib.util import find_spec

from utils.errors import InputError


def need(packages: Iterable[str], requirements: str, *, purpose: str) -> None:
    """Raises InputError, with the command that installs them, where a package cannot be imported. packages: the names
    by which they are imported; requirements: the file that lists them; purpose: the flag or file that asks for them."""
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise InputError(f"{purpose} needs {' and '.join(missing)}, not installed here: pip install -r {requirements}")
