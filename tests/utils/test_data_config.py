"""Data YAMLs: what is read, where paths are looked for, and what each error names."""

import re
import zipfile
from pathlib import Path

import pytest
import yaml

from utils.data_config import load_data_config, need_splits
from utils.errors import InputError
from utils.files import ROOT

GOOD = {"path": ".", "train": "images/train", "val": "images/val", "nc": 2, "names": ["cat", "dog"]}


def write_yaml(folder: Path, content: object, name: str = "set.yaml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
    return file


def make_folders(root: Path, *splits: str) -> Path:
    for split in splits or ("train", "val"):
        (root / "images" / split).mkdir(parents=True)
    return root


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"nc": 1, "names": ["only"]}, {0: "only"}),
        ({}, {0: "cat", 1: "dog"}),
        ({"names": {1: "dog", 0: "cat"}}, {0: "cat", 1: "dog"}),
        ({"nc": None}, {0: "cat", 1: "dog"}),
        ({"names": None}, {0: "class0", 1: "class1"}),
        ({"names": [7, "ü"]}, {0: "7", 1: "ü"}),
    ],
)
def test_names_and_nc(changes, names, tmp_path):
    content = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
    data = load_data_config(write_yaml(make_folders(tmp_path), content))
    assert data.names == names
    assert data.nc == len(names)
    assert data.train == (tmp_path / "images" / "train",)
    assert data.test == ()
    assert (data.download, data.hyp, data.imgsz) == ("", None, None)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"train": None, "val": None}, "train, val, test"),
        ({"nc": None, "names": None}, "names"),
        ({"nc": 3}, "names: .*nc=3, got 2"),
        ({"nc": 0}, "nc: .*got 0"),
        ({"nc": True}, "nc: .*True"),
        ({"nc": "two"}, "nc: .*'two'"),
        ({"names": "cat"}, "names: .*'cat'"),
        ({"names": {0: "cat", 5: "dog"}}, "names: .*got 5"),
        ({"names": [True, "dog"]}, "names: .*quote"),
        ({"val": {"a": 1}}, "val: .*text"),
        ({"path": 3}, "path: .*3"),
        ({"imgsz": -1}, "imgsz: .*-1"),
        ({"hyp": "none.yaml"}, "hyp: .*none.yaml"),
        ({"download": "builtin:letters"}, "download: .*builtin:digits"),
        ({"val": "images/gone", "train": "images/away"}, "val: nothing is there"),
    ],
)
def test_errors_name_file_and_key(changes, told, tmp_path):
    content = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
    file = write_yaml(make_folders(tmp_path), content)
    with pytest.raises(InputError, match=told) as caught:
        load_data_config(file)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"train": ".", "name": ["a"]}, "expected the key names, or at least nc, got neither; it has 'name'"),
        ({"trian": ".", "vals": ".", "nc": 1}, "got nc, trian, vals; it has 'trian'"),
        ({"train": ".", "Names": ["a"], "nc": 1}, None),
    ],
)
def test_a_misspelt_key_is_recognised(content, told, tmp_path, caplog):
    file = write_yaml(tmp_path, content)
    if told is None:
        load_data_config(file)
    else:
        meant = "names" if "name" in content else "train"
        with pytest.raises(InputError, match=re.escape(f"{told} (did you mean {meant}?)") + "$"):
            load_data_config(file)
    wrong = [key for key in content if key in ("name", "Names", "trian", "vals")]
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    right = {"name": "names", "Names": "names", "trian": "train", "vals": "val"}
    assert warned == [
        f"{file}: the key '{key}' is unknown and has no effect (did you mean {right[key]}?)" for key in wrong
    ]


def test_a_misspelt_key_is_not_taken_for_another_one_that_is_missing(tmp_path):
    with pytest.raises(InputError, match="at least nc, got neither$"):
        load_data_config(write_yaml(tmp_path, {"train": ".", "vals": "."}))


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        ({}, []),
        ({"roboflow": {"version": 1}, "author": "me"}, ["these keys have no effect here: author, roboflow"]),
        ({"name": "my set"}, ["these keys have no effect here: name"]),  # names are there as well: it is no slip
    ],
)
def test_keys_of_other_programs_are_told_without_a_warning(extra, told, tmp_path, caplog):
    file = write_yaml(make_folders(tmp_path), {**GOOD, **extra, "train": "images"})
    with caplog.at_level("INFO"):
        load_data_config(file)
    assert [record.getMessage() for record in caplog.records] == [f"{file}: {line}" for line in told]
    assert {record.levelname for record in caplog.records} <= {"INFO"}


@pytest.mark.parametrize("text", ["", "[1, 2]", "path: [", "a: !!python/object/apply:os.system ['touch pwned']"])
def test_only_plain_yaml_is_read(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"set\.yaml"):
        load_data_config(write_yaml(tmp_path, text))
    assert [file.name for file in tmp_path.iterdir()] == ["set.yaml"]


@pytest.mark.parametrize("place", ["yaml", "cwd", "repository"])
def test_path_is_looked_for_in_three_places_in_order(place, tmp_path, monkeypatch):
    folders = {name: tmp_path / name for name in ("yaml", "cwd", "repository")}
    for name in list(folders)[list(folders).index(place) :]:  # the first of those that have it must win
        make_folders(folders[name] / "d")
    folders["cwd"].mkdir(exist_ok=True)
    monkeypatch.chdir(folders["cwd"])
    monkeypatch.setattr("utils.data_config.ROOT", folders["repository"])
    data = load_data_config(write_yaml(folders["yaml"], {**GOOD, "path": "d"}))
    assert data.root == folders[place] / "d"


def test_a_place_with_all_splits_wins_over_an_earlier_one_with_some(tmp_path, monkeypatch):
    make_folders(tmp_path / "yaml" / "d", "val")
    make_folders(tmp_path / "cwd" / "d")
    monkeypatch.chdir(tmp_path / "cwd")
    file = write_yaml(tmp_path / "yaml", {**GOOD, "path": "d"})
    assert load_data_config(file).root == tmp_path / "cwd" / "d"
    monkeypatch.chdir(tmp_path)
    assert load_data_config(file).root == tmp_path / "yaml" / "d"


def test_old_yaml_without_path_lists_and_patterns(tmp_path):
    make_folders(tmp_path / "d", "a", "b")
    (tmp_path / "d" / "val.txt").write_text("./images/a/1.jpg\n")
    content = {"train": ["d/images/a", "d/images/b"], "val": "d/val.txt", "test": "d/images/*", "nc": 1}
    data = load_data_config(write_yaml(tmp_path, content))
    assert data.train == (tmp_path / "d/images/a", tmp_path / "d/images/b")
    assert data.val == (tmp_path / "d/val.txt",)
    assert data.test == (tmp_path / "d/images/*",)


def test_defaults_of_a_data_yaml(tmp_path):
    (make_folders(tmp_path) / "hyps").mkdir()
    hyp = tmp_path / "hyps" / "h.yaml"
    hyp.touch()
    data = load_data_config(write_yaml(tmp_path, {**GOOD, "hyp": "hyps/h.yaml", "imgsz": 96}))
    assert (data.hyp, data.imgsz) == (hyp, 96)


@pytest.mark.parametrize(
    ("download", "told"),
    [
        ("", "correct `path`"),
        ("https://example.org/d.zip", r"download https://example\.org/d\.zip and unpack it to"),
        ("import os; os.system('touch pwned')", "are not run"),
        ("bash get.sh", "are not run"),
    ],
)
def test_missing_data_says_what_was_tried_and_what_to_do(download, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = write_yaml(tmp_path / "y", {**GOOD, "path": "d", "download": download})
    with pytest.raises(InputError, match=told) as caught:
        load_data_config(file)
    for place in (tmp_path / "y", tmp_path, ROOT):
        assert str(place / "d" / "images" / "val") in str(caught.value)
    assert [item.name for item in tmp_path.rglob("*")] == ["y", "set.yaml"]


@pytest.mark.parametrize(
    ("split", "given", "gone"),
    [
        ("test", None, None),
        ("train", "images/trian", "images/trian"),
        ("val", "images/vla", "images/vla"),
        ("val", ["images/val", "vla.txt"], "vla.txt"),
        ("val", "images/none/*.jpg", "images/none/*.jpg"),
        ("train", ["images/train", "train.txt", "images/tr*"], None),
    ],
)
def test_each_split_that_is_needed_is_looked_for(split, given, gone, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_folders(tmp_path / "y" / "d")
    (tmp_path / "y" / "d" / "train.txt").touch()
    data = load_data_config(write_yaml(tmp_path / "y", {**GOOD, "path": "d", split: given}))
    if gone is None:
        need_splits(data, split)
        return
    with pytest.raises(InputError) as caught:
        need_splits(data, "train", "val")
    tried = ", ".join(str(place / "d" / gone) for place in (tmp_path / "y", tmp_path, ROOT))
    told = f"tried {tried}. What to do: correct `{split}`, or put the data there"
    assert str(caught.value) == f"{data.file}: {split}: nothing is there; {told}"
    need_splits(data, "train" if split == "val" else "val")


def test_splits_in_two_places_are_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_folders(tmp_path / "y", "train")
    make_folders(tmp_path, "val")
    data = load_data_config(write_yaml(tmp_path / "y", GOOD))
    told = f"{data.file}: val: nothing is there; tried {tmp_path}/y/images/val, as the other splits are in {tmp_path}/y"
    with pytest.raises(InputError, match=re.escape(f"{told}; it is at {tmp_path}/images/val: correct `path`")):
        need_splits(data, "val")


def test_builtin_digits_are_made_once(tmp_path, monkeypatch):
    made = []

    def maker(root):
        made.append(root)
        return make_folders(root) if not root.exists() else root

    monkeypatch.setattr("utils.data_config.MAKERS", {"builtin:digits": maker})
    file = write_yaml(tmp_path / "y", {**GOOD, "path": "../datasets/digits", "download": "builtin:digits"})
    for _ in range(2):
        assert load_data_config(file).root == tmp_path / "datasets" / "digits"
    assert made == [tmp_path / "datasets" / "digits"]


def test_builtin_digits_that_someone_halved_are_named(tmp_path):
    (tmp_path / "d").mkdir()
    file = write_yaml(tmp_path, {**GOOD, "path": "d", "download": "builtin:digits"})
    with pytest.raises(InputError, match="remove that folder"):
        load_data_config(file)
    make_folders(tmp_path / "d", "train")
    with pytest.raises(InputError, match="val: nothing is there; .*remove that folder"):
        need_splits(load_data_config(file), "val")


def test_data_in_an_archive_lie_beside_its_yaml_whatever_path_says(tmp_path):
    archive = tmp_path / "abc.zip"
    with zipfile.ZipFile(archive, "w") as handle:
        handle.writestr("abc.yaml", yaml.safe_dump({**GOOD, "path": "../elsewhere"}))
        handle.writestr("images/train/x.jpg", "")
        handle.writestr("images/val/x.jpg", "")
    assert load_data_config(archive).root == tmp_path / "abc"


@pytest.mark.parametrize(
    ("name", "held", "told"),
    [
        ("my_data", [], "my_data is a folder: expected a data YAML, or a zip archive with one; it has none"),
        ("my_data", ["b.yml", "a.yaml", "c.txt"], "it has my_data/a.yaml, my_data/b.yml"),
        ("dir.zip", [], "dir.zip is a folder"),
    ],
)
def test_a_folder_in_place_of_a_yaml_is_told_with_the_yamls_in_it(name, held, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    for file in held:
        (tmp_path / name / file).touch()
    with pytest.raises(InputError, match=re.escape(told)):
        load_data_config(name)


def test_no_such_file():
    with pytest.raises(InputError, match=r"no_such\.yaml"):
        load_data_config("no_such.yaml")


def test_shared_sets_load(shared):
    bccd = load_data_config(shared("datasets/bccd/bccd.yaml"))
    assert bccd.names == {0: "Platelets", 1: "RBC", 2: "WBC"}
    assert all(path.is_dir() for path in bccd.train + bccd.val + bccd.test)
    assert load_data_config(shared("datasets/coco8/coco8.yaml")).nc == 80


@pytest.mark.parametrize("name", ["coco", "coco128"])
def test_shipped_yamls_say_what_the_reference_says(name, golden_json):
    golden = golden_json("dataset_facts")["data"][f"{name}.yaml"]
    ours = yaml.safe_load((ROOT / "data" / f"{name}.yaml").read_text())
    for key in ("path", "train", "val", "test", "nc", "names"):
        assert ours.get(key) == golden[key]
    assert ours["download"].startswith("http")


def test_digits_yaml_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("utils.data_config.MAKERS", {"builtin:digits": lambda root: root})
    monkeypatch.setattr("utils.data_config._exists", lambda path: True)
    for name in ("data/digits.yaml", "digits.yaml"):
        data = load_data_config(name)
        assert data.root == ROOT / "datasets" / "digits"
        assert (data.nc, data.imgsz, data.hyp) == (10, 128, ROOT / "data" / "hyps" / "hyp.digits.yaml")
