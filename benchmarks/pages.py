"""Puts measured tables into documents, between the two markers that wait for them there."""

from pathlib import Path

from utils.errors import InputError
from utils.files import ROOT, atomic_write
from utils.log import LOGGER

PAGE = ROOT / "docs" / "dynamic.md"


def markers(name: str) -> tuple[str, str]:
    """The lines before and after a table."""
    return f"<!-- {name} -->", f"<!-- /{name} -->"


def replace_between(text: str, table: str, *, page: Path, name: str) -> str:
    """The page's text with the table in place of what stands between the markers. Raises InputError without them."""
    start, end = markers(name)
    before, found, rest = text.partition(start)
    _, found_too, after = rest.partition(end)
    if not (found and found_too):
        raise InputError(f"expected a line {start} and after it a line {end} in {page}")
    return f"{before}{start}\n{table}\n{end}{after}"


def write_between(table: str, page: Path, *, name: str) -> None:
    """Puts the table between the markers of the page."""
    text = replace_between(page.read_text(encoding="utf-8"), table, page=page, name=name)
    with atomic_write(page) as file:
        file.write(text.encode("utf-8"))
    LOGGER.info(f"\nwritten into {page}")
