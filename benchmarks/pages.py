"""Puts measured tables into documents, between the two markers that wait for them there, in both languages."""

import re
from collections.abc import Mapping
from pathlib import Path

from utils.errors import InputError
from utils.files import ROOT, atomic_write
from utils.log import LOGGER

CHINESE = {
    "model": "模型",
    "parameters (M)": "参数量 (M)",
    "latency (ms)": "延迟 (ms)",
    "latency / static (middle half of the rounds)": "延迟 / 静态（中间一半的轮次）",
    "variant": "变体",
    "seeds": "种子数",
    "against static, seed by seed": "与 static 之差（逐个种子）",
}
PAGES: dict[Path, Mapping[str, str]] = {  # and what the cells of a table are called there
    ROOT / "docs" / "dynamic.md": {},
    ROOT / "docs" / "dynamic.zh-CN.md": CHINESE,
}


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


def translated(table: str, words: Mapping[str, str]) -> str:
    """A Markdown table whose cells are called as `words` has it; others stay."""
    return re.sub(r"(?<=\| )[^|\n]+(?= \|)", lambda cell: words.get(cell[0], cell[0]), table)


def write_table(table: str, *, name: str) -> None:
    """Puts the table between the markers of every page."""
    for page, words in PAGES.items():
        text = page.read_text(encoding="utf-8")
        text = replace_between(text, translated(table, words), page=page, name=name)
        with atomic_write(page) as file:
            file.write(text.encode("utf-8"))
        LOGGER.info(f"\nwritten into {page}")
