"""With the real MLflow and a database on this machine."""

import pytest

from tests.utils.logging_run import begun_run, end, train_epochs
from utils.callbacks import Callbacks
from utils.logger_mlflow import MlflowLogger, without_password

mlflow = pytest.importorskip("mlflow", reason="needs requirements-mlflow.txt")
pytestmark = pytest.mark.slow  # making the database's tables takes seconds


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A database with the artifacts beside it, for all tests."""
    folder = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        for name in ("MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_NAME"):
            patch.delenv(name, raising=False)
        yield mlflow.MlflowClient()


def begin(run):
    callbacks = Callbacks()
    callbacks.register_all(MlflowLogger(run))
    return callbacks


def runs(store, name):
    return store.search_runs([store.get_experiment_by_name(name).experiment_id])


def test_what_a_training_leaves(store, tmp_path):
    run = begun_run(tmp_path)
    callbacks = begin(run)
    train_epochs(callbacks, run.directory, range(3))
    end(callbacks, run.directory)
    (found,) = runs(store, "YOLOv5")
    assert (found.info.run_name, found.info.status) == ("exp", "FINISHED")
    assert {
        "epochs": "3",
        "freeze": "[0]",
        "hyp/lr0": "0.01",
        "hyp/anchors": "None",
    }.items() <= found.data.params.items()
    history = store.get_metric_history(found.info.run_id, "metrics/mAP_0.5-0.95")
    assert [(metric.step, metric.value) for metric in history] == [(0, 0.0), (1, 0.1), (2, 0.2)]
    folders = [None, "Mosaics", "Results", "weights"]
    files = [file.path for folder in folders for file in store.list_artifacts(found.info.run_id, folder)]
    assert {"opt.yaml", "hyp.yaml", "results.csv", "weights/best.pt", "Results/results.png"} <= set(files)
    assert {f"Mosaics/train_batch{epoch}.jpg" for epoch in range(3)} <= set(files)


def test_a_resumed_run_goes_on_and_an_unfinished_one_is_marked(store, tmp_path):
    first = begun_run(tmp_path, project="elsewhere/digits")
    callbacks = begin(first)
    train_epochs(callbacks, first.directory, range(1))
    callbacks.run("teardown")  # interrupted
    assert [run.info.status for run in runs(store, "digits")] == ["KILLED"]
    resumed = begun_run(tmp_path, first_epoch=1, resumed=True, epochs=9, project="elsewhere/digits")
    callbacks = begin(resumed)
    assert [run.info.status for run in runs(store, "digits")] == ["RUNNING"]
    train_epochs(callbacks, resumed.directory, range(1, 2))
    end(callbacks, resumed.directory)
    (found,) = runs(store, "digits")
    assert found.info.status == "FINISHED"
    history = store.get_metric_history(found.info.run_id, "train/box_loss")
    assert [metric.step for metric in history] == [0, 1]


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("", ""),
        ("sqlite:////a@b/mlflow.db", "sqlite:////a@b/mlflow.db"),
        ("https://me:secret@server:5000/x", "https://server:5000/x"),
    ],
)
def test_passwords_stay_out_of_the_log(uri, shown):
    assert without_password(uri) == shown
