from dataclasses import replace

import cv2
import pytest

from tests.utils.test_evolution import LOW, trial
from utils.evolution import search_space
from utils.evolution_plots import COLUMNS, plot_evolution

ALL = replace(LOW, degrees=5.0, shear=1.0, perspective=0.0005, flipud=0.1, fl_gamma=0.5, anchors=3.0, mixup=0.1)


@pytest.mark.parametrize("trials", [[], [trial(0, 0.0)], [trial(1, 0.5, "pruned")], [trial(0), trial(1, lr0=0.1)]])
@pytest.mark.parametrize("count", [1, COLUMNS + 1, 30])
def test_a_panel_for_each_that_is_varied(trials, count, tmp_path):
    space = dict(list(search_space(ALL, dynamic=True).items())[:count])
    plot_evolution([replace(one, hyp=ALL) for one in trials], space, tmp_path / "evolve.png")
    height, width = cv2.imread(str(tmp_path / "evolve.png")).shape[:2]
    assert width == 160 * (2.6 * COLUMNS if count >= COLUMNS else 5.5)
    assert height == pytest.approx(160 * (2.2 * -(-len(space) // COLUMNS) + 0.5), abs=1)
