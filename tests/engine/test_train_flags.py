"""Every flag of train.py has an effect: here on tiny pictures, or in the test file that ELSEWHERE names."""

import argparse
import re
from pathlib import Path

import pytest
import torch
import yaml

import train
from models.weights import load_model, read_checkpoint
from models.yolo import DetectionModel
from tests.conftest import ROOT
from tests.tiny import CFG

HERE = Path(__file__)
ELSEWHERE = {
    "tests/engine/test_trainer.py": (
        "weights cfg data hyp resume freeze single_cls rect image_weights cache optimizer cos_lr label_smoothing "
        "close_mosaic amp seed workers nosave noval save_period patience"
    ),
    "tests/utils/test_torch_utils.py": "device",
    "tests/engine/test_evolver.py": "evolve evolve_storage",
    "tests/utils/test_loggers.py": "loggers entity bbox_interval",
}
ACTIONS = [action for action in train.build_parser()._actions if action.dest != "help"]


@pytest.fixture
def seen(monkeypatch) -> list[tuple[int, ...]]:
    """Shapes of the images that a model is trained on, in order."""
    shapes = []
    forward = DetectionModel.forward

    def watched(model: DetectionModel, images: torch.Tensor):
        if model.training and images.device.type != "meta" and torch.is_grad_enabled():
            shapes.append(tuple(images.shape))
        return forward(model, images)

    monkeypatch.setattr(DetectionModel, "forward", watched)
    return shapes


# --- coverage
def test_every_flag_has_a_test_of_its_effect():
    told_here = HERE.read_text()
    named = {name for names in ELSEWHERE.values() for name in names.split()}
    for action in ACTIONS:
        here = f'"{action.dest}":' in told_here or f"{action.dest}=" in told_here
        assert here or action.dest in named, f"{action.option_strings[0]}: give it a test here, or name its file"
    assert named <= {action.dest for action in ACTIONS}


@pytest.mark.parametrize(("file", "names"), ELSEWHERE.items())
def test_the_other_test_files_use_the_flags_that_they_are_named_for(file, names):
    text = (ROOT / file).read_text()
    missing = [
        name for name in names.split() if not re.search(rf"""\b{name}(=|["']:|\()|--{name.replace("_", "-")}\b""", text)
    ]
    assert missing == []


# --- --help
@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.dest)
def test_help_says_the_default(action):
    told = re.search(r"\(default: (.+)\)$", action.help)
    assert told, f"{action.option_strings[0]}: its help must end in (default: ...)"
    if isinstance(action, argparse.BooleanOptionalAction):
        assert told[1] == ("on" if action.default else "off")
    elif action.default not in (None, False, "", [0]):
        value = action.default[0] if isinstance(action.default, list) else action.default
        default = f"{value:g}" if isinstance(value, float) else str(value)
        assert re.split("[,;] ", told[1])[0] == default


def test_help_has_every_flag_in_a_named_group():
    parser = train.build_parser()
    grouped = {group.title: [action.dest for action in group._group_actions] for group in parser._action_groups}
    assert grouped.pop("options") == ["help"]
    assert not grouped.pop("positional arguments")
    assert list(grouped) == list(train.GROUPS)
    assert sorted(sum(grouped.values(), [])) == sorted(action.dest for action in ACTIONS)


# --- which pictures a model is shown
@pytest.mark.parametrize(
    ("options", "shapes"),
    [
        ({}, [(4, 3, 64, 64)] * 2),
        ({"epochs": 3}, [(4, 3, 64, 64)] * 6),
        ({"batch_size": 8}, [(8, 3, 64, 64)]),
        ({"batch_size": 3}, [(3, 3, 64, 64), (3, 3, 64, 64), (2, 3, 64, 64)]),
        ({"imgsz": 96}, [(4, 3, 96, 96)] * 2),
        ({"imgsz": 65}, [(4, 3, 96, 96)] * 2),
        ({"quad": True}, [(1, 3, 128, 128)] * 2),
        ({"rect": True, "imgsz": 96}, [(4, 3, 96, 96)] * 2),
    ],
    ids=str,
)
def test_batches_are_as_asked_for(options, shapes, tiny, seen):
    tiny(**options)
    assert seen == shapes


@pytest.mark.parametrize("options", [{}, {"rect": True}, {"quad": True}], ids=str)
def test_multi_scale_changes_the_size_from_batch_to_batch(options, tiny, seen):
    tiny(epochs=6, multi_scale=True, **options)
    sides = {shape[-1] for shape in seen}
    assert len(seen) == 12
    assert sides <= {32, 64, 96}
    assert len(sides) > 1


# --- anchors
@pytest.mark.parametrize("noautoanchor", [False, True])
def test_badly_fitting_anchors_are_refitted_or_kept(noautoanchor, tiny, tmp_path):
    poor = {**CFG, "anchors": [[300, 300, 310, 310, 320, 320], [400, 400, 410, 410, 420, 420]]}
    (tmp_path / "poor.yaml").write_text(yaml.safe_dump(poor))
    run_dir = tiny(cfg=str(tmp_path / "poor.yaml"), noautoanchor=noautoanchor)
    detect = load_model(run_dir / "weights" / "last.pt").detect
    widths = (detect.anchors * detect.stride.view(-1, 1, 1))[..., 0]
    assert bool(widths.min() >= 290) == noautoanchor


# --- arithmetic
@pytest.mark.parametrize("deterministic", [True, False])
def test_torch_is_asked_for_reproducible_kernels(deterministic, tiny):
    try:
        tiny(deterministic=deterministic)
        assert torch.are_deterministic_algorithms_enabled() == deterministic
        assert torch.backends.cudnn.benchmark != deterministic
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.deterministic = torch.backends.cudnn.benchmark = False


def test_frozen_layers_still_follow_the_pictures_with_their_batch_statistics(tiny):
    """As in v6.1: --freeze stops parameters, not running means."""
    start = tiny(name="start") / "weights" / "last.pt"
    frozen = tiny(name="frozen", weights=str(start), freeze=[5])
    before, after = read_checkpoint(start).state, read_checkpoint(frozen / "weights" / "last.pt").training["model"]
    same = {key: torch.equal(before[key], after[key]) for key in before if key.startswith("model.0.")}
    assert same["model.0.conv.weight"]
    assert not same["model.0.bn.running_mean"]


@pytest.mark.parametrize(("name", "moments"), [("SGD", "momentum_buffer"), ("Adam", "exp_avg"), ("AdamW", "exp_avg")])
def test_the_optimizer_that_moved_the_weights_is_in_the_checkpoint(name, moments, tiny):
    saved = torch.load(tiny(optimizer=name) / "weights" / "last.pt", weights_only=True)["training"]["optimizer"]
    assert saved["state"]
    assert all(moments in entry for entry in saved["state"].values())


# --- what is saved, and where
def test_runs_are_numbered_unless_they_may_be_written_over(tiny, tmp_path):
    where = {"project": str(tmp_path / "deep" / "project"), "name": "mine"}
    for exist_ok in (False, False, True):
        tiny(**where, exist_ok=exist_ok)
    assert sorted(path.name for path in (tmp_path / "deep" / "project").iterdir()) == ["mine", "mine2"]


@pytest.mark.parametrize("noplots", [True, False])
def test_pictures_are_made_unless_refused(noplots, tiny):
    run_dir = tiny(noplots=noplots)
    assert bool([*run_dir.glob("*.png"), *run_dir.glob("*.jpg")]) != noplots


def test_nosave_leaves_out_the_copies_of_save_period_too(tiny):
    """As in v6.1; the last epoch is saved, also as a copy where it is its turn."""
    run_dir = tiny(epochs=3, nosave=True, save_period=1)
    assert {path.name for path in (run_dir / "weights").glob("epoch*.pt")} == {"epoch3.pt"}


# --- processes
def test_batch_statistics_of_all_processes_need_a_gpu(tiny):
    if torch.cuda.is_available():
        pytest.skip("the refusal is that of machines without one")
    with pytest.raises(ValueError, match="--sync-bn works on GPUs alone"):
        tiny(sync_bn=True)
