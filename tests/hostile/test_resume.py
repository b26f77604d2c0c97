"""What --resume and --evolve --resume read: checkpoints, options, tables of results and studies that are damaged or a
stranger's. Each ends in one sentence, and nothing in them is run."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import train
from tests.engine.conftest import data  # noqa: F401 (a fixture)
from tests.hostile.child import attempt, bounded


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> Path:  # noqa: F811
    """The directory of a training that seems to have stopped after the second of three epochs."""
    project = tmp_path_factory.mktemp("trained")
    options = {"imgsz": 64, "batch_size": 4, "workers": 0, "device": "cpu", "noplots": True, "epochs": 3}
    train.run(**data, **options, project=str(project), name="exp", save_period=1)
    directory = project / "exp"
    shutil.copy(directory / "weights" / "epoch1.pt", directory / "weights" / "last.pt")
    return directory


@pytest.fixture
def run_dir(trained, ground) -> Path:
    """A copy of it to damage."""
    shutil.copytree(trained, ground / "exp")
    return ground / "exp"


def at(*keys: str, value: Any) -> Callable[[dict], None]:
    """Puts a value at a place in a checkpoint."""

    def change(content: dict) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return change


DEEP = {"a": [{"b": [[[]]]}]}
CHECKPOINTS = {
    "no options": at("info", value={}),
    "options that are a list": at("info", "opt", value=[1, 2]),
    "options with numbers as names": at("info", "opt", value={1: 2}),
    "epochs as text": at("info", "opt", "epochs", value="2; rm -rf /"),
    "batches of less than nothing": at("info", "opt", "batch_size", value=-(10**30)),
    "an image size of nan": at("info", "opt", "imgsz", value=float("nan")),
    "data that is a list": at("info", "opt", "data", value=["a.yaml"]),
    "workers as mapping": at("info", "opt", "workers", value=DEEP),
    "hyp of texts": at("info", "hyp", value={"lr0": "__import__('os').system('true')"}),
    "hyp that is a list": at("info", "hyp", value=[DEEP]),
    "an epoch of text": at("training", "epoch", value="0"),
    "an epoch of nan": at("training", "epoch", value=float("nan")),
    "no best epoch": at("training", "best_epoch", value=None),
    "best fitness of text": at("training", "best_fitness", value="1"),
    "updates that are a list": at("training", "updates", value=[1]),
    "an optimizer of nothing": at("training", "optimizer", value={}),
    "an optimizer that is a tensor": at("training", "optimizer", value=torch.zeros(3)),
    "groups that are texts": at("training", "optimizer", value={"state": {}, "param_groups": "abc"}),
    "groups of other sizes": at("training", "optimizer", value={"state": {}, "param_groups": [{"params": [0]}]}),
    "a model that is a list": at("training", "model", value=[]),
    "a model of nothing": at("training", "model", value={}),
    "a model of texts": at("training", "model", value={"model.0.conv.weight": "abc"}),
    "an average of other weights": at("state", value={"x": torch.zeros(1)}),
    "gradients of texts": at("training", "gradients", value={"model.0.conv.weight": "abc"}),
    "gradients of other sizes": at("training", "gradients", value={"model.0.conv.weight": torch.zeros(1)}),
    "class maps that are a mapping": at("training", "class_maps", value={}),
    "losses of texts": at("training", "losses", value="abc"),
    "random states of texts": at("training", "random", value=["abc"]),
    "random states of zeros": at("training", "random", value=[{"torch": torch.zeros(3)}]),
    "training that is a list": at("training", value=[1]),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_odd_checkpoints_are_refused(name, run_dir, ground):
    file = run_dir / "weights" / "last.pt"
    content = torch.load(file, weights_only=True)
    CHECKPOINTS[name](content)
    torch.save(content, file)
    before = (run_dir / "results.csv").read_bytes()
    outcome = attempt(lambda: train.run(resume=str(run_dir), device="cpu", workers=0), ground, megabytes=2000)
    told = bounded(outcome)
    assert "--" in told or "last.pt" in told
    assert (run_dir / "results.csv").read_bytes() == before


RESULTS = {
    "empty": b"",
    "a picture": b"\x89PNG\r\n\x1a\n\0\0",
    "Latin-1": b"epoch,\xe9\n0,1\n",
    "a wide row": b"epoch," + b"a," * 100_000 + b"\n",
    "a huge cell": b"epoch,a\n0," + b"1" * 200_000 + b"\n",
    "other columns": b"a,b\n1,2\n",
    "NULs": b"epoch,a\n\0,\0\n",
    "an epoch of a thousand digits": b"epoch,a\n" + b"1" * 10_000 + b",1\n",
    "an epoch in other digits": "epoch,a\n²,1\n٣,1\n".encode(),
}


@pytest.mark.parametrize("name", RESULTS)
def test_odd_tables_of_results(name, ground):
    from utils.logger_csv import COLUMNS, CsvLogger

    (ground / "results.csv").write_bytes(RESULTS[name])
    logger = CsvLogger(ground / "results.csv", resume=True)
    values = dict.fromkeys(COLUMNS, 0.5)
    bounded(attempt(lambda: logger.on_fit_epoch_end(1, values), ground), ends=("returned", "refused"))


# ------------------------------------------------------------------------------------------------------------- studies
@pytest.fixture(scope="module")
def searched(data, tmp_path_factory) -> Path:  # noqa: F811
    """The directory of a search of one trial."""
    pytest.importorskip("optuna", reason="needs the extra: pip install -r requirements-evolve.txt")
    project = tmp_path_factory.mktemp("searched")
    options = {"imgsz": 64, "batch_size": 4, "workers": 0, "device": "cpu", "noplots": True, "epochs": 1}
    train.run(**data, **options, project=str(project), name="exp", evolve=1)
    return project / "exp"


def attribute(table: str, key: str, value: Any) -> Callable[[Path], None]:
    """Sets an attribute in the database to a value, or, of bytes, to a text that is no JSON."""
    text = value.decode() if isinstance(value, bytes) else json.dumps(value)
    return sql(f"UPDATE {table} SET value_json = ? WHERE key = ?", text, key)


def sql(command: str, *values: Any) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        with sqlite3.connect(directory / "evolve.db") as database:
            database.execute(command, values)
        database.close()

    return change


def options(**changed: Any) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        file = directory / "opt.yaml"
        file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), **changed}))

    return change


def content(name: str, written: bytes) -> Callable[[Path], None]:
    return lambda directory: (directory / name).write_bytes(written)


STUDIES = {
    "no database": content("evolve.db", b"\x80\x04cposix\nsystem\n(X\x02\0\0\0idtR."),
    "a cut database": lambda folder: content("evolve.db", (folder / "evolve.db").read_bytes()[:9000])(folder),
    "settings that are a list": attribute("study_user_attributes", "settings", [1]),
    "settings that are a text": attribute("study_user_attributes", "settings", "abc"),
    "settings that are no JSON": attribute("study_user_attributes", "settings", b"!!python/object"),
    "deep settings": attribute("study_user_attributes", "settings", b"[" * 100_000),
    "a result that is a list": attribute("trial_user_attributes", "result", [1]),
    "a result of texts": attribute(
        "trial_user_attributes", "result", {"state": 1, "epochs": "x", "fitness": "y", "metrics": "z"}
    ),
    "a result that is empty": attribute("trial_user_attributes", "result", {}),
    "a result with other keys": attribute("trial_user_attributes", "result", {"number": 1, "hyp": 2}),
    "a distribution of another class": sql("UPDATE trial_params SET distribution_json = ?", '{"name": "os.system"}'),
    "a distribution that is no JSON": sql("UPDATE trial_params SET distribution_json = ?", "os.system('true')"),
    "a state that is none": sql("UPDATE trials SET state = ?", "EVIL"),
    "another direction": sql("UPDATE study_directions SET direction = ?", "MINIMIZE"),
    "options that call": content("opt.yaml", b"!!python/object/apply:os.system ['true']\n"),
    "options that explode": content(
        "opt.yaml", b"a: &a [1]\n" + b"".join(b"%c: &%c [*%c,*%c]\n" % (c, c, c - 1, c - 1) for c in range(98, 122))
    ),
    "options that are a list": content("opt.yaml", b"[1, 2]\n"),
    "options that are empty": content("opt.yaml", b""),
    "options in Latin-1": content("opt.yaml", b"name: \xe9\n"),
    "options with a list as epochs": options(epochs=[1]),
    "options with a list as storage": options(evolve_storage=["sqlite://"]),
    "options with another storage": options(evolve_storage="postgresql://evil.invalid/x"),
    "hyperparameters that call": content("hyp.yaml", b"lr0: !!python/object/apply:os.system ['true']\n"),
}


@pytest.mark.parametrize("name", STUDIES)
def test_odd_studies_are_refused(name, searched, ground):
    shutil.copytree(searched, ground / "exp")
    STUDIES[name](ground / "exp")
    task = lambda: train.run(evolve=1, resume=str(ground / "exp"), device="cpu", workers=0)  # noqa: E731
    bounded(attempt(task, ground, megabytes=2000))
    assert not (ground / "exp" / "trial1" / "results.csv").exists()


def test_a_table_that_is_missing_is_made_anew(searched, ground):
    """Its trials then count as unfinished, and the search goes on."""
    shutil.copytree(searched, ground / "exp")
    sql("DROP TABLE trial_user_attributes")(ground / "exp")
    task = lambda: train.run(evolve=1, resume=str(ground / "exp"), device="cpu", workers=0)  # noqa: E731
    bounded(attempt(task, ground, megabytes=2000), ends=("returned",))
