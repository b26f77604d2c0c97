"""docs/architecture.md names what is there: all of it, and nothing else."""

import re

import pytest

from tests.conftest import ROOT
from tests.test_architecture import BUILDING, FLOORS, listed

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
NAMED = set(re.findall(r"`((?:utils|models|engine|tests|benchmarks|data)/[\w/]+\.py)`", PAGE))


def test_every_file_is_named():
    sources = {name for folder in ("utils", "models", "engine") for name in listed(f"{folder}/*.py")}
    assert sources
    assert not sources - NAMED, "say in docs/architecture.md what these files are for"


def test_no_file_is_named_that_is_not_there():
    assert {"utils/loss.py", "tests/test_architecture.py"} <= NAMED
    assert not [name for name in NAMED if not (ROOT / name).is_file()]


@pytest.mark.parametrize("thing", ["loss term", "data set format", "backend"])
def test_it_says_where_things_go(thing):
    row = next(line for line in PAGE.splitlines() if line.startswith("| a **") and thing in line)
    files = re.findall(r"`(\w+/\w+\.py)`", row)
    assert files
    assert set(files) <= set(FLOORS)


def floors_of_the_page() -> dict[str, int]:
    """{file: floor} of the list on the page: a number, then folders that end in a slash, with the files in each."""
    block = PAGE.partition("\n## The floor of each file\n")[2].partition("\n```\n")[2].partition("\n```")[0]
    found, floor, folder = {}, -1, ""
    for word in block.split():
        if word.isdecimal():
            floor = int(word)
        elif word.endswith("/"):
            folder = word.removeprefix("./")
        else:
            found[f"{folder}{word}.py"] = floor
    return found


def test_the_floors_are_those_of_the_code():
    told = floors_of_the_page()
    assert set(told.values()) == set(BUILDING)
    wrong = {
        name: (told.get(name), FLOORS.get(name)) for name in told.keys() | FLOORS if told.get(name) != FLOORS.get(name)
    }
    assert not wrong, "floor in docs/architecture.md, floor in BUILDING (tests/test_architecture.py)"
