"""What train.py's options become: kinds, ranges, files that are found, and what a resumed run takes from where."""

import shutil
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import train
from engine.training_options import checked_options, find_hyp
from engine.training_setup import prepare
from models.weights import read_checkpoint
from tests.conftest import ROOT
from utils.callbacks import Callbacks
from utils.errors import InputError
from utils.hyp import load_hyp

LOW = ROOT / "data/hyps/hyp.scratch-low.yaml"


def options(**changes):
    return Namespace(**{**vars(train.parse_opt([])), **changes, "given": sorted(changes)})


def results(run_dir: Path) -> list[str]:
    return (run_dir / "results.csv").read_text().splitlines()[1:]


@pytest.fixture
def still(tmp_path) -> str:
    """Hyperparameters with which nothing is learnt, so that the fitness stays what it is."""
    values = yaml.safe_load(LOW.read_text()) | {"lr0": 0.0, "warmup_bias_lr": 0.0}
    (tmp_path / "still.yaml").write_text(yaml.safe_dump(values))
    return str(tmp_path / "still.yaml")


# --- kinds and ranges
@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ({}, {"freeze": [0], "cache": None, "resume": False, "hyp": None}),
        ({"freeze": 3}, {"freeze": [3]}),
        ({"freeze": (0, 2)}, {"freeze": [0, 2]}),
        ({"freeze": range(2)}, {"freeze": [0, 1]}),
        ({"cache": True}, {"cache": "ram"}),
        ({"cache": False}, {"cache": None}),
        ({"device": 0}, {"device": "0"}),
        ({"device": torch.device("cpu")}, {"device": "cpu"}),
        ({"data": Path("x.yaml"), "project": Path("runs")}, {"data": "x.yaml", "project": "runs"}),
        ({"epochs": np.int64(3), "label_smoothing": 0}, {"epochs": 3, "label_smoothing": 0.0}),
        ({"seed": 2**32 - 1}, {"seed": 2**32 - 1}),
        ({"resume": Path("runs/exp")}, {"resume": "runs/exp"}),
    ],
    ids=str,
)
def test_python_values_become_those_of_the_command_line(given, meant):
    got = vars(checked_options(options(**given)))
    assert {key: (got[key], type(got[key])) for key in meant} == {key: (v, type(v)) for key, v in meant.items()}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epochs": "1"}, "--epochs: a whole number was expected, got '1'"),
        ({"epochs": None}, "--epochs: a whole number was expected, got None"),
        ({"epochs": True}, "--epochs: a whole number was expected, got True"),
        ({"batch_size": 4.0}, "--batch-size: a whole number was expected, got 4.0"),
        ({"imgsz": [64]}, "--imgsz: a whole number was expected, got [64]"),
        ({"freeze": "3"}, "--freeze: a whole number was expected, got '3'"),
        ({"freeze": [0.5]}, "--freeze: a whole number was expected, got 0.5"),
        ({"freeze": []}, "--freeze: at least one number was expected"),
        ({"cache": "disc"}, "--cache: ram or disk was expected, got 'disc'"),
        ({"data": None}, "--data: a text was expected, got None"),
        ({"cfg": {}}, "--cfg: a text was expected, got {}"),
        ({"resume": 1}, "--resume: a text was expected, got 1"),
        ({"rect": "no"}, "--rect: True or False was expected, got 'no'"),
        ({"label_smoothing": "0"}, "--label-smoothing: a number was expected, got '0'"),
        ({"seed": -1}, "--seed: 0 to 4294967295 was expected, got -1"),
        ({"seed": 2**32}, "--seed: 0 to 4294967295 was expected, got 4294967296"),
        ({"seed": 2**70}, "--seed: 0 to 4294967295 was expected"),
    ],
    ids=str,
)
def test_other_kinds_and_ranges_are_refused_in_the_words_of_the_flag(given, message):
    with pytest.raises(InputError) as caught:
        checked_options(options(**given))
    assert message in str(caught.value)


def test_every_option_is_checked():
    unusable = object()
    for name in set(vars(train.parse_opt([]))) - {"given"}:
        with pytest.raises(InputError, match=f"--{name.replace('_', '-')}: .* expected"):
            checked_options(options(**{name: unusable}))


# --- finding files
@pytest.mark.parametrize("name", ["hyp.VOC.yaml", "data/hyps/hyp.VOC.yaml", str(ROOT / "data/hyps/hyp.VOC.yaml")])
def test_hyperparameters_are_found_from_every_directory(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_hyp(name) == ROOT / "data/hyps/hyp.VOC.yaml"
    Path("hyp.VOC.yaml").touch()
    assert find_hyp("hyp.VOC.yaml") == tmp_path / "hyp.VOC.yaml"
    with pytest.raises(InputError, match="--hyp: there is no file my.yaml; tried my.yaml, .*/data/hyps/my.yaml"):
        find_hyp("my.yaml")


def test_a_run_can_be_resumed_from_another_directory(tiny, data, tmp_path, monkeypatch):
    monkeypatch.chdir(Path(data["data"]).parent)
    run_dir = tiny(data="data.yaml")
    monkeypatch.chdir(tmp_path)
    assert yaml.safe_load((run_dir / "opt.yaml").read_text())["data"] == data["data"]
    assert read_checkpoint(run_dir / "weights" / "best.pt").info["opt"]["data"] == data["data"]
    train.run(resume=str(run_dir / "weights" / "last.pt"), epochs=2)
    assert len(results(run_dir)) == 2


def test_a_run_can_be_resumed_on_another_machine(tiny, data, tmp_path, monkeypatch):
    """Where neither the data YAML nor the pictures lie in the same place: the YAML is found by its name."""
    there, here = tmp_path / "there", tmp_path / "here"
    shutil.copytree(Path(data["data"]).parent, there)
    (there / "data.yaml").rename(there / "shapes.yaml")
    described = yaml.safe_load((there / "shapes.yaml").read_text()) | {"path": "."}
    (there / "shapes.yaml").write_text(yaml.safe_dump(described))
    run_dir = tiny(data=str(there / "shapes.yaml"))
    there.rename(here)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"shapes\.yaml, which is not here; .*: put a data YAML of that name into the"):
        train.run(resume=str(run_dir), epochs=2)
    assert len(results(run_dir)) == 1
    monkeypatch.chdir(here)
    train.run(resume=str(run_dir), epochs=2)
    assert len(results(run_dir)) == 2
    assert yaml.safe_load((run_dir / "opt.yaml").read_text())["data"] == str(here / "shapes.yaml")


@pytest.mark.parametrize(
    "options", [{"project": "file"}, {"project": "file/below"}, {"name": "file", "exist_ok": True}]
)
def test_a_project_that_cannot_be_written_is_told_at_once(options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    with pytest.raises(InputError, match=r"--project: the run would be saved in .*file.* is a file"):
        train.run(data="nowhere.yaml", **{"project": ".", **options})


# --- resume
def test_finished_run_is_refused_and_can_be_extended(tiny, data):
    run_dir = tiny(epochs=1)
    last = run_dir / "weights" / "last.pt"
    with pytest.raises(InputError, match="is finished .1 epochs.; --epochs N"):
        train.run(resume=str(last))
    train.run(resume=str(last), epochs=2)
    assert len(results(run_dir)) == 2
    with pytest.raises(InputError, match="holds weights alone"):
        train.run(resume=str(run_dir / "weights" / "best.pt"))


def test_a_resumed_run_keeps_its_hyperparameters(tiny, still):
    """Whatever has become of the file they came from."""
    run_dir = tiny(hyp=still, label_smoothing=0.25)
    last = run_dir / "weights" / "last.pt"
    hyp = replace(load_hyp(run_dir / "hyp.yaml"), temperature_epochs=1 / 3)  # what one epoch made of it
    (run_dir / "hyp.yaml").write_text("a note of mine")
    Path(still).write_text(yaml.safe_dump(yaml.safe_load(LOW.read_text()) | {"box": 0.5}))
    assert prepare(options(resume=str(last), epochs=2), Callbacks()).hyp == hyp
    Path(still).unlink()
    assert prepare(options(resume=str(last), epochs=2), Callbacks()).hyp == hyp
    assert (hyp.lr0, hyp.label_smoothing) == (0, 0.25)
    assert (run_dir / "hyp.yaml").read_text() == "a note of mine"


def test_a_checkpoint_without_hyperparameters_is_resumed_with_those_beside_it(tiny, still):
    """As runs of our first trainings are."""
    run_dir = tiny(hyp=still)
    last = run_dir / "weights" / "last.pt"
    content = torch.load(last, weights_only=True)
    del content["info"]["hyp"]
    torch.save(content, last)
    assert prepare(options(resume=str(last), epochs=2), Callbacks()).hyp == load_hyp(run_dir / "hyp.yaml")


def test_a_run_is_resumed_where_it_lies(tiny, tmp_path):
    run_dir = tiny()
    moved = run_dir.rename(tmp_path / "moved")
    train.run(resume=moved, epochs=2, exist_ok=True, project=str(tmp_path / "elsewhere"))
    assert len(results(moved)) == 2
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] in (["runs", "moved"], ["moved", "runs"])
    assert not list((tmp_path / "runs").iterdir())


@pytest.mark.parametrize("place", ["last.pt", "weights/last.pt", "run/last.pt"])
def test_a_checkpoint_outside_of_its_run_is_refused(place, tiny, tmp_path):
    run_dir = tiny()
    file = tmp_path / "deep" / place
    file.parent.mkdir(parents=True)
    shutil.copy(run_dir / "weights" / "last.pt", file)
    with pytest.raises(InputError, match="--resume: .* does not lie in a run's directory, as <run>/weights/<name>.pt"):
        train.run(resume=str(file), epochs=2)
    assert [path.name for path in file.parent.iterdir()] == ["last.pt"]


@pytest.mark.parametrize("place", ["nowhere.pt", "."])
def test_a_checkpoint_that_is_not_there(place, tmp_path):
    with pytest.raises(
        InputError, match=r"--resume: there is no file .*\.pt; a run's weights/last.pt or its directory"
    ):
        train.run(resume=str(tmp_path / place))


def test_an_early_stopped_run_is_refused_and_more_patience_extends_it(tiny, still):
    run_dir = tiny(epochs=9, patience=2, hyp=still)
    assert len(results(run_dir)) == 3
    for given in ({}, {"patience": 1}, {"patience": 2}, {"epochs": 20}):
        with pytest.raises(InputError, match="stopped early: no better fitness in 2 epochs.*more than 2 .or 0"):
            train.run(resume=str(run_dir), **given)
    train.run(resume=str(run_dir), patience=4)
    assert len(results(run_dir)) == 5
    train.run(resume=str(run_dir), patience=0)
    assert len(results(run_dir)) == 9


def test_a_run_that_does_not_validate_is_not_taken_for_stopped(tiny):
    run_dir = tiny(epochs=6, noval=True, patience=2, save_period=4)
    train.run(resume=str(run_dir / "weights" / "epoch4.pt"))
    assert len(results(run_dir)) == 6


# --- the results of a run that goes on
@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", None),
        (b"epoch,train/box_loss\r\n0,0.5\r\n1,0.", None),  # cut off by a power failure
        (b"\x89PNG\r\n", "expected a table of results in {file}, got: "),
        (b"a,b\n1,2\n", "expected a results file whose first column is `epoch`, got `a` in {file}"),
        (b"epoch,accuracy\n0,0.5\n", "expected a results file with columns such as train/box_loss, got none"),
    ],
    ids=["empty", "cut off", "a picture", "another table", "another program's"],
)
def test_a_results_file_that_cannot_be_continued_is_told_before_an_epoch_is_trained(content, told, tiny, monkeypatch):
    run_dir = tiny(nosave=True)
    file = run_dir / "results.csv"
    file.write_bytes(content)
    if told is None:
        train.run(resume=str(run_dir), epochs=2)
        assert [row.partition(",")[0] for row in results(run_dir)][-1] == "1"
        return
    monkeypatch.setattr("engine.trainer.train_one_epoch", lambda _: pytest.fail("an epoch was trained"))
    with pytest.raises(InputError, match="^--resume: " + told.format(file=file).replace(".", r"\.")):
        train.run(resume=str(run_dir), epochs=2)
    assert file.read_bytes() == content
    file.unlink()
    file.mkdir()
    with pytest.raises(InputError, match=r"^--resume: .*results\.csv"):
        train.run(resume=str(run_dir), epochs=2)
