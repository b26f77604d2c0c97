import os
import stat
import time
from pathlib import Path

import pytest

from utils.errors import InputError
from utils.files import atomic_write, find_file, increment_path, near_files, newest_run, replace_synced


@pytest.mark.parametrize(
    ("present", "wanted", "expected"),
    [
        ([], "exp", "exp"),
        (["exp/"], "exp", "exp2"),
        (["exp/", "exp2/"], "exp", "exp3"),
        (["exp/", "exp7/"], "exp", "exp8"),
        (["exp2/"], "exp", "exp"),
        (["exp/", "exp9b/", "myexp4/"], "exp", "exp2"),
        (["v1.2/"], "v1.2", "v1.22"),
        (["a+b/", "a+b2/"], "a+b", "a+b3"),
        (["log.txt"], "log.txt", "log2.txt"),
        (["log.txt", "log2.txt", "log5.csv"], "log.txt", "log3.txt"),
    ],
)
def test_increment_path(present, wanted, expected, tmp_path):
    for name in present:
        (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).touch()
    assert increment_path(tmp_path / wanted) == tmp_path / expected
    assert increment_path(tmp_path / wanted, exist_ok=True) == tmp_path / wanted


def test_increment_path_makes_directories(tmp_path):
    wanted = tmp_path / "runs" / "exp"
    made = [increment_path(wanted, mkdir=True) for _ in range(3)]
    assert [path.name for path in made] == ["exp", "exp2", "exp3"]
    assert all(path.is_dir() for path in made)
    assert increment_path(wanted, exist_ok=True, mkdir=True) == wanted


def test_increment_path_over_a_file_with_exist_ok(tmp_path):
    (tmp_path / "exp").touch()
    with pytest.raises(InputError, match="a directory was expected"):
        increment_path(tmp_path / "exp", exist_ok=True, mkdir=True)


def test_atomic_write_makes_and_replaces(tmp_path):
    target = tmp_path / "größe 1.pt"
    for content in (b"", b"first", b"second"):
        with atomic_write(target) as file:
            file.write(content)
        assert target.read_bytes() == content
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(error, tmp_path):
    target = tmp_path / "last.pt"
    target.write_bytes(b"old")

    def fail_midway() -> None:
        with atomic_write(target) as file:
            file.write(b"half of the new")
            raise error

    with pytest.raises(error):
        fail_midway()
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("sync", [True, False])
def test_only_what_must_survive_a_power_cut_waits_for_the_disk(sync, tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    with atomic_write(tmp_path / "a", sync=sync) as file:
        file.write(b"x")
    assert (tmp_path / "a").read_bytes() == b"x"
    assert len(synced) == (2 if sync else 0)  # the file, and the directory that has its name


def test_atomic_write_is_as_readable_as_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    with atomic_write(tmp_path / "atomic") as file:
        file.write(b"x")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "atomic")]
    assert modes[0] == modes[1]


def test_atomic_write_through_a_link_keeps_the_link(tmp_path):
    (tmp_path / "real.pt").write_bytes(b"old")
    (tmp_path / "link.pt").symlink_to("real.pt")
    with atomic_write(tmp_path / "link.pt") as file:
        file.write(b"new")
    assert (tmp_path / "link.pt").is_symlink()
    assert (tmp_path / "real.pt").read_bytes() == b"new"


def test_newest_run(tmp_path):
    assert newest_run(tmp_path / "nowhere", "last*.pt") is None
    for age, name in enumerate(["exp3", "exp1", "exp2"]):
        weights = tmp_path / name / "weights"
        weights.mkdir(parents=True)
        for file in ("last.pt", "best.pt"):
            (weights / file).touch()
            os.utime(weights / file, (time.time() - age, time.time() - age))
    assert newest_run(tmp_path, "last*.pt") == tmp_path / "exp3/weights/last.pt"
    assert newest_run(tmp_path, "best.pt") == tmp_path / "exp3/weights/best.pt"


def test_find_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("models/hub/a.yaml", "models/b.yaml", "data/b.yaml", "here.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    models, data = tmp_path / "models", tmp_path / "data"
    assert find_file("here.yaml", models).name == "here.yaml"
    assert find_file("hub/a.yaml", models) == models / "hub/a.yaml"
    assert find_file("a.yaml", models, data) == models / "hub/a.yaml"
    assert find_file("b.yaml", data, models) == data / "b.yaml"
    with pytest.raises(InputError, match="several files are called b.yaml"):
        find_file("b.yaml", tmp_path)
    with pytest.raises(InputError, match="there is no file c.yaml; tried c.yaml, .*models/c.yaml"):
        find_file("c.yaml", models)
    with pytest.raises(InputError, match=f"tried {tmp_path}/c.yaml$"):
        find_file(tmp_path / "c.yaml", models, data)
    with pytest.raises(InputError, match="there is no file elsewhere/a.yaml"):
        find_file("elsewhere/a.yaml", models)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("", ""),
        ("b.yaml", ""),
        ("nothing/like/it.yaml", ""),
        ("\0/yolov5s.yaml", " (did you mean yolov5s6.yaml?)"),
        ("mine/modle.yaml", " (did you mean mine/model.yaml?)"),
        ("mine/model.yml", " (did you mean mine/model.yaml?)"),
        ("mine/bset.pt", " (did you mean mine/best.pt?)"),
        ("mine/YOLOv5s7.yaml", " (did you mean yolov5s6.yaml?)"),
        ("yolov5s7", " (did you mean yolov5s6.yaml?)"),
        ("a_long_nam.yaml", " (did you mean a_long_name.yaml, a_long_names.yaml, the_long_name.yaml?)"),
    ],
)
def test_near_files(asked, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = ("a", "yolov5s6", "a_long_name", "a_long_names", "the_long_name", "the_long_names")
    for name in ("mine/model.yaml", "mine/best.pt", *(f"shipped/{stem}.yaml" for stem in shipped)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "mine" / "modle.yaml").mkdir()  # a folder is no file that is meant
    assert near_files(asked, tmp_path / "shipped", tmp_path / "nowhere") == expected


# ---------------------------------------------------------------------------------------- one folder in another's place
def folder(path, content):
    path.mkdir()
    (path / "network").write_text(content)
    return path


def content(path):
    """{name: content} of all that is in a directory and in its folders."""
    return {str(file.relative_to(path)): file.read_text() for file in path.rglob("*") if file.is_file()}


def test_a_folder_takes_the_place_of_another(tmp_path):
    for version in ("first", "second"):
        replace_synced(folder(tmp_path / "made", version), tmp_path / "place")
        assert content(tmp_path) == {"place/network": version}


def test_a_folder_takes_the_place_of_a_link_to_one(tmp_path):
    folder(tmp_path / "elsewhere", "elsewhere")
    (tmp_path / "place").symlink_to(tmp_path / "elsewhere")
    replace_synced(folder(tmp_path / "made", "new"), tmp_path / "place")
    assert content(tmp_path) == {"place/network": "new", "elsewhere/network": "elsewhere"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, SystemExit])
@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("before the first rename", "old"),
        ("after the first rename", "old"),
        ("before the second rename", "old"),
        ("after the second rename", "new"),
    ],
)
def test_an_interrupted_replacement_leaves_one_whole_folder(when, expected, error, tmp_path, monkeypatch):
    folder(tmp_path / "place", "old")
    made = folder(tmp_path / "made", "new")
    moment, _, which = when.partition(" the ")
    name = "rename" if which.startswith("first") else "replace"
    rename = getattr(Path, name)

    def interrupted(source, target):
        monkeypatch.undo()
        if moment == "after":
            rename(source, target)
        raise error

    monkeypatch.setattr(Path, name, interrupted)
    with pytest.raises(error):
        replace_synced(made, tmp_path / "place")
    left = {name: text for name, text in content(tmp_path).items() if not name.startswith("made/")}
    assert left == {"place/network": expected}


@pytest.mark.parametrize(("present", "expected"), [([".place.old"], "old"), ([".place.old", "place"], "newer")])
def test_the_next_replacement_clears_up_after_a_kill(present, expected, tmp_path, monkeypatch):
    for name, text in zip(present, ["old", "newer"], strict=False):
        folder(tmp_path / name, text)
    with pytest.raises(FileNotFoundError):
        replace_synced(tmp_path / "not made", tmp_path / "place")
    assert content(tmp_path) == {"place/network": expected}
    replace_synced(folder(tmp_path / "made", "newest"), tmp_path / "place")
    assert content(tmp_path) == {"place/network": "newest"}
