import pytest

from tests.utils.logging_run import begun_run
from utils import loggers
from utils.errors import InputError
from utils.logger_csv import COLUMNS
from utils.logger_wandb import SIGNS
from utils.loggers import LOGGERS, check_loggers, chosen_loggers, installed


@pytest.mark.parametrize(
    ("names", "options", "told"),
    [
        ([], {"entity": "team"}, "add --loggers wandb"),
        (["tensorboard"], {"bbox_interval": 5}, "add --loggers wandb"),
        (["comet"], {}, "tensorboard, wandb, mlflow are known, got 'comet'$"),
        (["TensorBord"], {}, r"are known, got 'TensorBord' \(did you mean tensorboard\?\)"),
        ([7], {}, "are known, got 7$"),
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


@pytest.mark.parametrize(
    ("variables", "present", "names", "told"),
    [
        ({}, True, [], False),
        ({"WANDB_SILENT": "true"}, True, ["tensorboard"], False),
        ({"WANDB_API_KEY": "1"}, True, ["tensorboard"], True),
        ({"WANDB_PROJECT": "cats"}, True, [], True),
        ({"WANDB_PROJECT": ""}, True, [], False),
        ({"WANDB_PROJECT": "cats"}, False, ["tensorboard"], False),
        ({"WANDB_PROJECT": "cats"}, True, ["wandb"], False),
        ({"WANDB_MODE": "offline"}, True, ["tensorboard"], True),
        ({"WANDB_API_KEY": "1", "WANDB_MODE": "disabled"}, True, ["tensorboard"], False),
    ],
)
def test_wandb_is_spoken_of_only_where_it_is_set_up_and_not_asked_for(
    variables, present, names, told, tmp_path, monkeypatch, capfd
):
    for name in SIGNS:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(loggers, "installed", lambda package: present)
    monkeypatch.setattr(loggers, "Guarded", lambda title, make: None)
    chosen_loggers(names, begun_run(tmp_path))
    assert ("--loggers tensorboard wandb" in capfd.readouterr().err) == told


def test_a_mere_folder_is_no_package(tmp_path, monkeypatch):
    (tmp_path / "weights_and_what").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not installed("weights_and_what")
    assert not installed("no_such_package")
    assert installed("tensorboard")
    assert set(LOGGERS) == {"tensorboard", "wandb", "mlflow"}
