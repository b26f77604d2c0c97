import os
import stat
import time

import pytest

from utils.errors import InputError
from utils.files import atomic_write, find_file, increment_path, newest_run


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
    assert newest_run(tmp_path / "nowhere") is None
    for age, name in enumerate(["exp3", "exp1", "exp2"]):
        weights = tmp_path / name / "weights"
        weights.mkdir(parents=True)
        for file in ("last.pt", "best.pt"):
            (weights / file).touch()
            os.utime(weights / file, (time.time() - age, time.time() - age))
    assert newest_run(tmp_path) == tmp_path / "exp3/weights/last.pt"
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
