"""docs/reliability.md: each promise names tests, and these exist."""

import ast
import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

PAGE = ROOT / "docs" / "reliability.md"
TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def rows() -> list[list[str]]:
    """The cells of all rows of the tables whose head is | promise | held by |."""
    found, inside = [], False
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        inside = cells == ["promise", "held by"] or (inside and line.startswith("|"))
        if inside and len(cells) == 2 and cells[0] != "promise":
            found.append(cells)
    return found


def functions(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_there_are_promises():
    assert len(rows()) > 20


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0][:50])
def test_each_promise_names_tests_that_exist(row):
    named = TEST.findall(row[1])
    assert named, f"no test is named for: {row[0]}"
    for file, function in named:
        assert (ROOT / file).is_file(), f"{file} is not there, named for: {row[0]}"
        assert not function or function in functions(ROOT / file), f"{file} has no {function}, named for: {row[0]}"


def test_each_test_of_the_soak_holds_a_promise():
    """They run apart from `make test`: the page is where one looks whether they have."""
    soak = ROOT / "tests" / "soak" / "test_soak.py"
    named = {function for row in rows() for file, function in TEST.findall(row[1]) if ROOT / file == soak}
    assert {name for name in functions(soak) if name.startswith("test_")} == named
