"""train.py as people call it: what a wrong flag or file is answered with, in one sentence and without a traceback."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

import train
from tests.conftest import ROOT
from tests.engine.conftest import data  # noqa: F401  (a fixture)

LOW = ROOT / "data" / "hyps" / "hyp.scratch-low.yaml"


@pytest.fixture
def here(data, tmp_path, monkeypatch) -> Path:  # noqa: F811
    """A working directory with usable and unusable files."""
    described = yaml.safe_load(Path(data["data"]).read_text())
    hyp = yaml.safe_load(LOW.read_text())
    files = {
        "good.yaml": described,
        "no_train.yaml": {key: value for key, value in described.items() if key != "train"},
        "few_names.yaml": described | {"nc": 3},
        "few_classes.yaml": described | {"nc": 1, "names": ["square"]},
        "no_pictures.yaml": described | {"train": "images/nowhere"},
        "unknown.hyp.yaml": hyp | {"lr": 0.1},
        "missing.hyp.yaml": {key: value for key, value in hyp.items() if key != "lr0"},
        "huge.hyp.yaml": hyp | {"mosaic": 2},
        "block.cfg.yaml": {**yaml.safe_load(Path(data["cfg"]).read_text()), "backbone": [[-1, 1, "Convv", [8]]]},
    }
    for name, content in files.items():
        (tmp_path / name).write_text(yaml.safe_dump(content))
    (tmp_path / "bad.yaml").write_text("train: [")
    (tmp_path / "bad.pt").write_bytes(b"no checkpoint")
    (tmp_path / "model.yaml").write_text(Path(data["cfg"]).read_text())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def answer(arguments: str, capfd) -> tuple[int, str]:
    """Exit code and what is left on stderr after what is logged, of `python train.py` with the arguments."""
    usual = "--data good.yaml --cfg model.yaml --imgsz 64 --batch-size 4 --epochs 1 --workers 0 --device cpu"
    with pytest.raises(SystemExit) as ended:
        train.main(train.parse_opt([*usual.split(), "--project", "runs", *arguments.split()]))
    return ended.value.code, capfd.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--weights nowhere.pt", "nowhere.pt"),
        ("--weights bad.pt", "bad.pt"),
        ("--cfg nowhere.yaml", "nowhere.yaml"),
        ("--cfg block.cfg.yaml", "unknown block 'Convv'"),
        ("--data nowhere.yaml", "nowhere.yaml"),
        ("--data bad.yaml", "bad.yaml"),
        ("--data no_train.yaml", "`train`"),
        ("--data few_names.yaml", "nc"),
        ("--data few_classes.yaml", "class"),
        ("--data no_pictures.yaml", "nowhere"),
        ("--hyp nowhere.yaml", "--hyp: there is no file nowhere.yaml"),
        ("--hyp bad.yaml", "bad.yaml"),
        ("--hyp unknown.hyp.yaml", "unknown hyperparameter 'lr'"),
        ("--hyp missing.hyp.yaml", "missing hyperparameter lr0"),
        ("--hyp huge.hyp.yaml", "mosaic must be a number from 0 to 1, got 2"),
        ("--resume", "--resume: no last.pt was found below runs/"),
        ("--resume nowhere.pt", "--resume: there is no file nowhere.pt"),
        ("--imgsz 0", "--imgsz: 32 or more was expected, got 0"),
        ("--epochs -1", "--epochs: 1 or more was expected, got -1"),
        ("--batch-size 0", "--batch-size: "),
        ("--quad --batch-size 6", "--quad"),
        ("--workers -1", "--workers: 0 or more was expected, got -1"),
        ("--patience -1", "--patience: 0 or more was expected, got -1"),
        ("--save-period -2", "--save-period: -1 or more was expected, got -2"),
        ("--close-mosaic -1", "--close-mosaic: 0 or more was expected, got -1"),
        ("--seed -1", "--seed: 0 to 4294967295 was expected, got -1"),
        ("--label-smoothing 1.5", "--label-smoothing: 0 to 1 was expected, got 1.5"),
        ("--label-smoothing nan", "--label-smoothing: 0 to 1 was expected, got nan"),
        ("--freeze 99", "--freeze 99: "),
        ("--freeze 0 99", "--freeze 0 99: "),
        ("--rect --image-weights", "--image-weights"),
        ("--device 99", "--device 99: torch sees "),
        ("--device tpu", "--device: "),
        ("--project good.yaml", "--project: "),
    ],
    ids=str,
)
def test_unusable_input_ends_in_one_sentence_and_leaves_no_run(arguments, message, here, capfd):
    code, last_line = answer(arguments, capfd)
    assert code == 1
    assert last_line.startswith("Error: ")
    assert message in last_line
    assert not (here / "runs").exists()


def test_a_device_that_this_machine_lacks(here, capfd):
    if torch.backends.mps.is_available():
        pytest.skip("this machine has MPS")
    assert answer("--device mps", capfd) == (
        1,
        "Error: --device mps: this machine or this torch build has no MPS; use --device cpu",
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--epohcs 3", "unrecognized arguments: --epohcs 3 (did you mean --epochs?)"),
        ("--epochs three", "argument --epochs: invalid int value: 'three'"),
        ("--optimizer Lion", "argument --optimizer: one of SGD, Adam, AdamW was expected, got 'Lion'"),
        ("--cache tape", "argument --cache: one of ram, disk was expected, got 'tape'"),
        ("--freeze", "argument --freeze: expected at least one argument"),
        ("--label-smoothing much", "argument --label-smoothing: invalid float value: 'much'"),
    ],
    ids=str,
)
def test_a_mistyped_flag_is_answered_by_the_parser(arguments, message, capfd):
    with pytest.raises(SystemExit) as ended:
        train.parse_opt(arguments.split())
    assert ended.value.code == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert message in line


@pytest.mark.parametrize(
    ("arguments", "code"), [("--data nowhere.yaml", 1), ("--cfg model.yaml --data bad.yaml", 1), ("--epohcs 3", 2)]
)
def test_through_the_shell(arguments, code, here):
    command = [sys.executable, str(ROOT / "train.py"), *arguments.split()]
    ended = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout) == (code, "")
    assert "Traceback" not in ended.stderr
    assert ended.stderr.strip().splitlines()[-1].startswith("Error: ")
