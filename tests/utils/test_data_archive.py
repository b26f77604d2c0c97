"""Data sets as zip archives. Hostile ones are in tests/hostile/test_data.py."""

import os
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
    assert [item.name for item in tmp_path.iterdir()] == ["set.zip"]
    assert unpacked_yaml(zipped(tmp_path / "set.zip", "right.yaml")).name == "right.yaml"


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["a.yaml", "x" * 300], "x" * 200 + ": File name too long"),
        (["a.yaml", "a", "a/b"], "a/b: Not a directory"),
        (["a.yaml", "a/b", "a"], "a: Is a directory"),
    ],
)
def test_a_member_that_the_system_refuses_is_named(names, told, tmp_path):
    archive = zipped(tmp_path / "set.zip", *names)
    member, _, reason = told.partition(":")
    other = {"Not a directory": "File exists"}.get(reason.strip(), reason.strip())  # as the Python version has it
    with pytest.raises(InputError) as caught:
        unpacked_yaml(archive)
    before = f"{archive} cannot be unpacked: its member {member}: "
    assert str(caught.value) in (before + reason.strip(), before + other)
    assert [item.name for item in tmp_path.iterdir()] == ["set.zip"]


def test_a_folder_where_nothing_can_be_made_is_told(tmp_path, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    archive = zipped(tmp_path / "set.zip", "a.yaml")
    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(InputError, match=rf"set\.zip cannot be unpacked to {tmp_path}/set: Permission denied$"):
        unpacked_yaml(archive)


@pytest.mark.parametrize(("age", "warned"), [(0, False), (60, True)])
def test_a_folder_older_than_the_archive_is_used_with_a_warning(age, warned, tmp_path, caplog):
    archive, folder = zipped(tmp_path / "set.zip", "new.yaml"), tmp_path / "set"
    folder.mkdir()
    (folder / "old.yaml").touch()
    packed_at = archive.stat().st_mtime
    os.utime(folder, (packed_at - age, packed_at - age))
    assert unpacked_yaml(archive) == folder / "old.yaml"
    told = f"{archive} is newer than {folder}, which is used: remove that folder, and it is unpacked anew"
    assert [record.getMessage() for record in caplog.records] == [told] * warned


def test_a_folder_without_a_yaml_in_the_place_of_the_archive_is_told(tmp_path):
    archive = zipped(tmp_path / "set.zip", "a.yaml")
    (tmp_path / "set").mkdir()
    with pytest.raises(InputError, match=r"/set, which is used in place of .*set\.zip, got 0: remove that folder"):
        unpacked_yaml(archive)


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
