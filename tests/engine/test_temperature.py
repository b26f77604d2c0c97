"""What docs/dynamic.md says of the temperature at a training's start. How it goes on and ends: test_trainer.py."""

import csv
from pathlib import Path

import pytest
import yaml

from models.weights import read_checkpoint
from tests.conftest import ROOT

LOW = ROOT / "data/hyps/hyp.scratch-low.yaml"


def temperatures(run_dir: Path) -> list[float]:
    with open(run_dir / "results.csv", encoding="utf-8", newline="") as file:
        return [float(row["x/temperature"]) for row in csv.DictReader(file)]


def test_an_argument_in_the_model_yaml_gives_way_to_the_hyperparameters(tiny, data, tmp_path):
    described = yaml.safe_load(Path(data["cfg"]).read_text())
    described["backbone"][4][3] = [256, 1, 1, 1, 0, 1, 1, True, 4, 5.0]
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(described))
    run_dir = tiny(cfg=str(tmp_path / "model.yaml"))
    saved = read_checkpoint(run_dir / "weights" / "best.pt").state
    assert temperatures(run_dir) == [34]
    assert [float(value) for name, value in saved.items() if name.endswith("temperature")] == [34]


@pytest.mark.parametrize(("changes", "expected"), [({}, [34, 1, 1]), ({"temperature_epochs": 0}, [1, 1, 1])])
def test_weights_that_are_annealed_start_again_where_the_hyperparameters_say(changes, expected, tiny, tmp_path):
    annealed = tiny(name="annealed", epochs=3)
    assert temperatures(annealed)[-1] == 1
    (tmp_path / "hyp.yaml").write_text(yaml.safe_dump(yaml.safe_load(LOW.read_text()) | changes))
    tuned = tiny(weights=str(annealed / "weights" / "best.pt"), cfg="", epochs=3, hyp=str(tmp_path / "hyp.yaml"))
    assert temperatures(tuned) == expected
