import logging
import re
import sys

import pytest

from tests.conftest import ROOT
from utils.log import LOGGER

LEVELS = [(logging.INFO, ""), (logging.WARNING, "WARNING: "), (logging.ERROR, "ERROR: ")]


@pytest.mark.parametrize(("level", "head"), LEVELS)
def test_the_level_stands_before_what_is_no_mere_information(level, head, capsys):
    LOGGER.log(level, "12 %s", "images")
    assert capsys.readouterr().err == f"{head}12 images\n"


@pytest.mark.parametrize(("level", "head"), LEVELS)
@pytest.mark.parametrize("no_color", ["", "1"])
def test_the_level_is_coloured_in_a_terminal(level, head, no_color, capsys, monkeypatch):
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    LOGGER.log(level, "text")
    told = capsys.readouterr().err
    assert ("\033[" in told) == bool(head and not no_color)
    assert told.replace("\033[33m", "").replace("\033[31m", "").replace("\033[0m", "") == f"{head}text\n"


def test_no_message_bears_the_level_itself():
    files = [file for folder in ("engine", "models", "utils") for file in (ROOT / folder).glob("*.py")]
    assert len(files) > 20
    assert not [file for file in files if re.search(r"""["'](WARNING|ERROR):? """, file.read_text(encoding="utf-8"))]
