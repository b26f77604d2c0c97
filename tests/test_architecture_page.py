"""docs/architecture.md names what is there: all of it, and nothing else."""

import re

import pytest

from tests.conftest import ROOT
from tests.test_architecture import FLOORS, listed

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
