"""Patterns in data YAMLs that mean a whole disk: told while they are looked through, and Ctrl+C ends them."""

import glob
import time

import pytest

from utils import label_files
from utils.data_config import load_data_config
from utils.errors import InputError
from utils.label_files import image_files

TOLD = "still looking for images that match; Ctrl+C ends the search"


@pytest.fixture
def slow_disk(monkeypatch):
    """A search through which nothing comes for long."""

    def search(pattern: str, *, recursive: bool):
        time.sleep(0.3)
        yield from real(pattern, recursive=recursive)

    real = glob.iglob
    monkeypatch.setattr(label_files, "TOLD_EVERY_S", 0.05)
    monkeypatch.setattr(glob, "iglob", search)


def test_a_long_search_for_images_is_told_until_it_ends(tmp_path, slow_disk, capfd):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.jpg").write_bytes(b"")
    pattern = f"{tmp_path}/**/*.jpg"
    assert image_files(pattern) == [str(tmp_path / "a" / "x.jpg")]
    told = capfd.readouterr().err
    assert f"{pattern}: {TOLD}" in told
    time.sleep(0.2)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("train", ["**/*.jpg", "../**/none/*.jpg"])
def test_a_long_search_for_a_split_is_told(train, tmp_path, slow_disk, capfd):
    (tmp_path / "data.yaml").write_text(f"path: {tmp_path}/data\ntrain: '{train}'\nnames: [a]\n")
    with pytest.raises(InputError, match="train: nothing is there"):
        load_data_config(tmp_path / "data.yaml")
    assert TOLD in capfd.readouterr().err


def test_a_short_search_is_not_told(tmp_path, capfd):
    (tmp_path / "x.jpg").write_bytes(b"")
    assert image_files(f"{tmp_path}/*.jpg") == [str(tmp_path / "x.jpg")]
    assert capfd.readouterr().err == ""
