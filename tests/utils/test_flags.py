import subprocess
import sys
from argparse import Namespace

import pytest

from tests.conftest import ROOT
from utils.flags import FlagParser, did_you_mean

SCRIPTS = ("train", "val", "detect", "export", "serve")


def _add_all(add) -> None:
    add("--epochs", type=int, default=3)
    add("--batch-size", "--batch", type=int, default=2)
    add("--optimizer", choices=("SGD", "Adam", "AdamW"), default="SGD")
    add("--save-txt", action="store_true")
    add("--save-conf", action="store_true")


@pytest.fixture
def parser(monkeypatch) -> FlagParser:
    monkeypatch.setattr(sys, "argv", ["/some/where/paint.py"])
    return FlagParser("Paints\n  what is given.", {"course": _add_all})


@pytest.mark.parametrize(
    ("words", "known", "told"),
    [
        ([], {}, ""),
        ([], {"epochs": "--epochs"}, ""),
        (["epochs"], {}, ""),
        (["zzz"], {"epochs": "--epochs"}, ""),
        (["epocs"], {"epochs": "--epochs"}, " (did you mean --epochs?)"),
        (["epocs", "zzz", "hip"], {"epochs": "--epochs", "hyp": "--hyp"}, " (did you mean --epochs, --hyp?)"),
    ],
)
def test_near_words(words, known, told):
    assert did_you_mean(words, known) == told


@pytest.mark.parametrize(
    ("arguments", "changed"),
    [
        ([], {}),
        (["--epochs", "5"], {"epochs": 5}),
        (["--epoch", "5"], {"epochs": 5}),  # abbreviated, as v6.1 allows
        (["--batch=4", "--save-t"], {"batch_size": 4, "save_txt": True}),
        (["--optimizer", "AdamW"], {"optimizer": "AdamW"}),
    ],
)
def test_what_can_be_read(arguments, changed, parser):
    usual = {"epochs": 3, "batch_size": 2, "optimizer": "SGD", "save_txt": False, "save_conf": False}
    assert parser.parse_args(arguments) == Namespace(**{**usual, **changed})


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["x"], "unrecognized arguments: x"),
        (["--zzz"], "unrecognized arguments: --zzz"),
        (["--epohcs", "3"], "unrecognized arguments: --epohcs 3 (did you mean --epochs?)"),
        (["--epohcs=3"], "unrecognized arguments: --epohcs=3 (did you mean --epochs?)"),
        (["-epochs", "3"], "unrecognized arguments: -epochs 3 (did you mean --epochs?)"),
        (["\N{EN DASH}epochs", "3"], "unrecognized arguments: \N{EN DASH}epochs 3 (did you mean --epochs?)"),
        (["--batch_size", "4"], "unrecognized arguments: --batch_size 4 (did you mean --batch-size?)"),
        (["--save", "--epohcs"], "ambiguous option: --save could match --save-txt, --save-conf"),
        (["--epochs"], "argument --epochs: expected one argument"),
        (["--epochs", "x"], "argument --epochs: invalid int value: 'x'"),
        (["--optimizer", "x"], "argument --optimizer: one of SGD, Adam, AdamW was expected, got 'x'"),
        (
            ["--optimizer", "sgd"],
            "argument --optimizer: one of SGD, Adam, AdamW was expected, got 'sgd' (did you mean SGD?)",
        ),
    ],
)
def test_what_cannot_be_read_is_told_on_one_line(arguments, told, parser, capsys):
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr() == ("", f"Error: {told}; paint.py --help tells all flags\n")


def test_help_shows_the_description_as_it_is_written(parser):
    assert "\nPaints\n  what is given.\n\noptions" in parser.format_help()
    assert "\ncourse:\n" in parser.format_help()


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_scripts_name_the_flag_that_was_meant(script, tmp_path):
    command = [sys.executable, str(ROOT / f"{script}.py"), "--devise", "cpu"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    line = f"Error: unrecognized arguments: --devise cpu (did you mean --device?); {script}.py --help tells all flags\n"
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", line)


def test_a_task_that_val_does_not_know_is_answered_with_the_near_one(tmp_path):
    command = [sys.executable, str(ROOT / "val.py"), "--task", "tset"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    told = "one of train, val, test, speed, study, compare was expected, got 'tset' (did you mean test?)"
    assert (ended.returncode, ended.stderr) == (2, f"Error: argument --task: {told}; val.py --help tells all flags\n")
