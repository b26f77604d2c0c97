from argparse import Namespace

import pytest

from engine.training_setup import build_network
from models.yolo import DetectionModel
from tests.conftest import ROOT
from utils.hyp import load_hyp


@pytest.mark.parametrize("resumed", [False, True])
def test_the_cost_is_told_at_640_pixels_whatever_the_training_size(resumed, capsys):
    """As v6.1 does: figures of runs at different sizes can be compared."""
    names = {0: "circle", 1: "square"}
    cfg = "models/yolov5n_dyconv.yaml"
    checkpoint = Namespace(yaml=DetectionModel(cfg, nc=2).yaml, names=names) if resumed else None
    opt, data = Namespace(cfg=cfg, weights="", imgsz=64, seed=0), Namespace(nc=2, names=names)
    build_network(opt, data, load_hyp(ROOT / "data/hyps/hyp.scratch-low.yaml"), checkpoint)
    told = capsys.readouterr().err
    assert "YOLOv5n_dyconv summary: " in told
    assert " gradients, 4." in told
    assert "GFLOPs at 640 pixels\n" in told  # of the dynamic layers
    assert "at 64 pixels" not in told
