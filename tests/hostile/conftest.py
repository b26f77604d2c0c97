"""What the tests of hostile input share: a folder for the input beside a place that must stay empty."""

import os
from pathlib import Path

import pytest


@pytest.fixture
def ground(tmp_path) -> Path:
    """A folder for the input and the work on it; whatever the test does, nothing else may appear beside it: neither
    the canary that payloads would write nor files with names that lead out of the folder."""
    if not hasattr(os, "fork"):
        pytest.skip("hostile input is tried in forked processes")
    folder = tmp_path / "deep" / "ground"
    folder.mkdir(parents=True)
    yield folder
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["ground"]


@pytest.fixture
def canary(ground) -> Path:
    """A file beside the folder, which payloads would write."""
    return ground.parent / "canary"
