"""Data sets as zip archives. Hostile ones are in tests/hostile/test_data.py."""

import zipfile
from pathlib import Path

import pytest

from utils import data_archive
from utils.data_archive import unpacked_yaml
from utils.errors import InputError


def zipped(archive: Path, *names: str) -> Path:
    with zipfile.ZipFile(archive, "w") as handle:
        for name in names:
            handle.writestr(name, name)
    return archive


@pytest.mark.parametrize("names", [(), ("x.txt",), ("a.yaml", "b.yml"), ("deep/er/a.yaml", "x.txt")])
def test_one_yaml_at_the_top_is_needed(names, tmp_path):
    with pytest.raises(InputError, match=r"set\.zip: expected one YAML at the top"):
        unpacked_yaml(zipped(tmp_path / "set.zip", *names))


@pytest.mark.parametrize("names", [("abc.yaml", "images/x.jpg"), ("top/abc.yaml", "top/images/x.jpg", "__MACOSX/._y")])
def test_a_folder_beside_the_archive_gets_the_content_once(names, tmp_path):
    archive = zipped(tmp_path / "set.zip", *names)
    assert unpacked_yaml(archive) == tmp_path / "set" / "abc.yaml"
    assert (tmp_path / "set" / "images" / "x.jpg").is_file()
    (tmp_path / "set" / "mine.txt").touch()
    assert unpacked_yaml(archive) == tmp_path / "set" / "abc.yaml"
    assert (tmp_path / "set" / "mine.txt").exists()
    assert sorted(item.name for item in tmp_path.iterdir()) == ["set", "set.zip"]


def test_what_is_no_archive_or_too_large_for_the_disk_leaves_nothing(tmp_path, monkeypatch):
    (tmp_path / "broken.zip").write_text("no zip")
    with pytest.raises(InputError, match=r"broken\.zip: expected a zip archive"):
        unpacked_yaml(tmp_path / "broken.zip")
    archive = zipped(tmp_path / "set.zip", "a.yaml")
    monkeypatch.setattr(data_archive.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 3}))
    with pytest.raises(InputError, match="GB are free"):
        unpacked_yaml(archive)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["broken.zip", "set.zip"]
