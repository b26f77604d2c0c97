import pytest

from tests.utils.logging_run import begun_run
from utils import loggers
from utils.errors import InputError
from utils.logger_csv import COLUMNS
from utils.loggers import LOGGERS, check_loggers, chosen_loggers, installed


@pytest.mark.parametrize(
    ("names", "options", "told"),
    [
        ([], {"entity": "team"}, "add --loggers wandb"),
        (["tensorboard"], {"bbox_interval": 5}, "add --loggers wandb"),
        (["comet"], {}, "tensorboard, wandb, mlflow are known, got 'comet'"),
        (["mlflow"], {}, "pip install -r requirements-mlflow.txt"),
        (["wandb"], {"entity": "team"}, "pip install -r requirements-wandb.txt"),
    ],
)
def test_what_keeps_a_logger_from_starting_is_told(names, options, told, monkeypatch):
    monkeypatch.setattr(loggers, "installed", lambda package: package == "tensorboard")
    check_loggers(["tensorboard"])
    with pytest.raises(InputError, match=told):
        check_loggers(names, **options)


@pytest.mark.parametrize(
    ("names", "made"),
    [([], {"results"}), (["tensorboard"], {"results", "events"}), (["wandb"], {"results"})],
)
def test_results_csv_is_always_written_and_others_where_they_are_chosen(names, made, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(loggers, "installed", lambda package: True)
    monkeypatch.setattr("utils.logger_wandb.WandbLogger.__init__", lambda *_, **__: 1 / 0)  # not reached without asking
    run = begun_run(tmp_path)
    (run.directory / "services.json").write_text('{"wandb": "of an older run"}')
    listeners = chosen_loggers(names, run)
    for listener in listeners:
        if "on_fit_epoch_end" in dir(listener):
            listener.on_fit_epoch_end(epoch=0, values=dict.fromkeys(COLUMNS, 0.0))
    found = {file.name.split(".")[0] for file in run.directory.iterdir() if file.suffix not in (".yaml", "")}
    assert found == made
    log = capfd.readouterr().err
    assert ("W&B failed" in log) == ("wandb" in names)
    assert ("add --loggers wandb" in log) == ("wandb" not in names)


def test_a_mere_folder_is_no_package(tmp_path, monkeypatch):
    (tmp_path / "weights_and_what").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not installed("weights_and_what")
    assert not installed("no_such_package")
    assert installed("tensorboard")
    assert set(LOGGERS) == {"tensorboard", "wandb", "mlflow"}
