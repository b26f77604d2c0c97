"""Whole trainings of a tiny dynamic model on tiny pictures, through train.run."""

import csv
import shutil
from pathlib import Path

import pytest
import torch
import yaml

import train
from engine import trainer
from engine.training_epoch import rescaled
from models.weights import load_model, read_checkpoint
from utils.callbacks import Callbacks
from utils.errors import InputError
from utils.torch_utils import supports_bf16_cpu

ROOT = Path(__file__).parents[2]
PICTURES = {
    "labels.jpg", "labels_correlogram.jpg", "train_batch0.jpg", "train_batch1.jpg", "train_batch2.jpg", "results.png",
    "val_batch0_labels.jpg", "val_batch0_pred.jpg", "confusion_matrix.png",
    "F1_curve.png", "P_curve.png", "R_curve.png", "PR_curve.png",
}  # fmt: skip
COLUMNS = [
    "epoch", "train/box_loss", "train/obj_loss", "train/cls_loss",
    "metrics/precision", "metrics/recall", "metrics/mAP_0.5", "metrics/mAP_0.5:0.95",
    "val/box_loss", "val/obj_loss", "val/cls_loss", "x/lr0", "x/lr1", "x/lr2", "x/temperature",
]  # fmt: skip


def results(run_dir: Path) -> list[dict[str, str]]:
    with open(run_dir / "results.csv", newline="") as file:
        return list(csv.DictReader(file))


def same_weights(a: Path, b: Path) -> bool:
    one, two = read_checkpoint(a).state, read_checkpoint(b).state
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def test_run_directory_is_complete(tiny):
    run_dir = tiny(epochs=2, noplots=False, batch_size=2)
    names = {path.name for path in run_dir.iterdir()}
    assert names >= {"results.csv", "opt.yaml", "hyp.yaml", "weights", *PICTURES}
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert {path.name for path in (run_dir / "weights").iterdir()} == {"last.pt", "best.pt"}
    rows = results(run_dir)
    assert list(rows[0]) == COLUMNS
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert yaml.safe_load((run_dir / "opt.yaml").read_text())["imgsz"] == 64
    best = read_checkpoint(run_dir / "weights" / "best.pt")
    assert best.training is None
    assert read_checkpoint(run_dir / "weights" / "last.pt").training is not None
    decoded, _ = load_model(run_dir / "weights" / "best.pt")(torch.zeros(1, 3, 64, 64))
    assert decoded.isfinite().all()


def test_of_equal_epochs_the_later_is_the_best_checkpoint(tiny, tmp_path):
    still = yaml.safe_load((ROOT / "data/hyps/hyp.scratch-low.yaml").read_text()) | {"lr0": 0.0, "warmup_bias_lr": 0.0}
    (tmp_path / "still.yaml").write_text(yaml.safe_dump(still))
    best = read_checkpoint(tiny(epochs=3, hyp=str(tmp_path / "still.yaml")) / "weights" / "best.pt")
    assert best.info["epoch"] == 2


def temperatures(state: dict[str, torch.Tensor]) -> list[float]:
    return [float(value) for key, value in state.items() if key.endswith("temperature")]


def test_temperature_falls_to_one_and_is_saved(tiny):
    run_dir = tiny(epochs=6, save_period=1)
    expected = [34, 17.5, 1, 1, 1, 1]
    assert [float(row["x/temperature"]) for row in results(run_dir)] == expected
    for epoch, temperature in enumerate(expected, start=1):
        saved = read_checkpoint(run_dir / "weights" / f"epoch{epoch}.pt")
        assert temperatures(saved.state) == temperatures(saved.training["model"]) == [temperature]
    best = read_checkpoint(run_dir / "weights" / "best.pt")
    assert temperatures(best.state) == [expected[best.info["epoch"]]]


def test_temperature_can_stay_and_the_log_says_once_that_it_did(tiny, tmp_path, capfd):
    constant = yaml.safe_load((ROOT / "data/hyps/hyp.scratch-low.yaml").read_text())
    (tmp_path / "hyp.yaml").write_text(yaml.safe_dump(constant | {"temperature": 10.0, "temperature_epochs": -1}))
    run_dir = tiny(epochs=3, hyp=str(tmp_path / "hyp.yaml"))
    assert [float(row["x/temperature"]) for row in results(run_dir)] == [10, 10, 10]
    assert temperatures(read_checkpoint(run_dir / "weights" / "best.pt").state) == [10]
    assert capfd.readouterr().err.count("runs at temperature 10, not 1") == 1


def test_seed_decides_and_workers_do_not(tiny, tmp_path):
    first = tiny(name="a") / "weights" / "last.pt"
    assert same_weights(first, tiny(name="b", workers=2) / "weights" / "last.pt")
    assert not same_weights(first, tiny(name="c", seed=1) / "weights" / "last.pt")


def test_resumed_run_ends_as_an_unbroken_one(tiny):
    """Stopped after 3 of 12 epochs, while the temperature falls."""
    whole = tiny(epochs=12, save_period=3, batch_size=2)
    broken = whole.with_name("broken")
    shutil.copytree(whole, broken)
    shutil.move(broken / "weights" / "epoch3.pt", broken / "weights" / "last.pt")
    assert read_checkpoint(broken / "weights" / "last.pt").training["gradients"]  # of batches not stepped with yet
    train.run(resume=str(broken / "weights" / "last.pt"))
    assert same_weights(whole / "weights" / "last.pt", broken / "weights" / "last.pt")
    assert [float(row["x/temperature"]) for row in results(broken)] == [34, 25.75, 17.5, 9.25] + [1] * 8
    assert [row["epoch"] for row in results(broken)] == [str(epoch) for epoch in range(12)]
    assert results(broken) == results(whole)


@pytest.mark.parametrize(
    "options",
    [
        {"rect": True},
        {"quad": True},
        {"image_weights": True},
        {"multi_scale": True},
        {"optimizer": "Adam"},
        {"optimizer": "AdamW"},
        {"cos_lr": True},
        {"label_smoothing": 0.1},
        {"amp": False},
        {"close_mosaic": 1},
        {"hyp": "data/hyps/hyp.scratch-high.yaml"},
    ],
    ids=str,
)
def test_option_changes_the_training_and_it_still_ends(tiny, options):
    """Three epochs, so that what acts on later epochs or on the shape of the schedule shows."""
    if options == {"amp": False} and not supports_bf16_cpu():
        pytest.skip("this CPU has no bfloat16, so there is nothing that --no-amp could turn off")
    plain, changed = tiny(epochs=3, name="a"), tiny(epochs=3, name="b", **options)
    assert not same_weights(plain / "weights/last.pt", changed / "weights/last.pt")


@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_cached_pictures_are_the_same(tiny, cache):
    assert same_weights(tiny(name="a") / "weights/last.pt", tiny(name="b", cache=cache) / "weights/last.pt")


@pytest.mark.slow
@pytest.mark.parametrize("size", ["s", "m", "l", "x"])
def test_the_articles_model_trains_a_step_at_every_size(tiny, size):
    run_dir = tiny(cfg=f"models/yolov5{size}_dynamic.yaml", batch_size=8)
    assert float(results(run_dir)[0]["train/obj_loss"]) > 0


def test_single_cls_trains_one_class(tiny):
    best = read_checkpoint(tiny(single_cls=True) / "weights" / "best.pt")
    assert best.names == {0: "item"}


def test_freeze_keeps_layers(tiny, tmp_path):
    start = tiny(name="start") / "weights" / "last.pt"
    frozen = tiny(name="frozen", weights=str(start), freeze=[3])
    before, after = read_checkpoint(start).state, read_checkpoint(frozen / "weights" / "last.pt").training["model"]
    weights = [key for key in before if key.endswith("conv.weight")]
    kept = {key for key in weights if torch.equal(before[key], after[key])}
    assert kept == {key for key in weights if key.startswith(("model.0.", "model.1.", "model.2."))}


@pytest.mark.parametrize(("stop_at", "saved"), [(0, False), (1, True)])
def test_ctrl_c_tells_how_to_go_on(stop_at, saved, tiny, tmp_path, monkeypatch, capfd):
    tiny(name="my run")  # an older one, whose last.pt is not this run's until the first epoch is saved

    def interrupted(state):
        if state.progress.epoch == stop_at:
            raise KeyboardInterrupt
        trainer_begin_epoch(state)

    trainer_begin_epoch = trainer.begin_epoch
    monkeypatch.setattr(trainer, "begin_epoch", interrupted)
    capfd.readouterr()
    with pytest.raises(KeyboardInterrupt):
        tiny(epochs=3, name="my run")
    command = f"python train.py --resume '{tmp_path / 'runs' / 'my run' / 'weights' / 'last.pt'}'"
    log = capfd.readouterr().err
    assert (command in log, "Nothing was saved yet" in log) == (saved, not saved)


def test_nosave_and_noval_do_the_last_epoch_only(tiny):
    run_dir = tiny(epochs=3, nosave=True, noval=True)
    assert {path.name for path in (run_dir / "weights").iterdir()} == {"last.pt", "best.pt"}
    assert [float(row["val/obj_loss"]) > 0 for row in results(run_dir)] == [False, False, True]


def test_patience_ends_a_plateau(tiny, tmp_path):
    still = yaml.safe_load((ROOT / "data/hyps/hyp.scratch-low.yaml").read_text()) | {"lr0": 0.0, "warmup_bias_lr": 0.0}
    hyp = tmp_path / "still.yaml"
    hyp.write_text(yaml.safe_dump(still))
    assert len(results(tiny(epochs=9, patience=2, hyp=str(hyp)))) == 3


@pytest.mark.parametrize("imgsz", [64, 96])
def test_multi_scale_stays_within_half_and_one_and_a_half(imgsz):
    class State:
        stride = 32

        class opt:
            seed = 0

    State.opt.imgsz = imgsz
    sides = {rescaled(torch.zeros(1, 3, imgsz, imgsz), State, step).shape[-1] for step in range(50)}
    assert len(sides) > 1
    assert all(side % 32 == 0 and imgsz // 2 - 32 < side <= imgsz * 1.5 + 32 for side in sides)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": "nowhere.yaml"}, "nowhere.yaml"),
        ({"cfg": "nowhere.yaml"}, "nowhere.yaml"),
        ({"weights": "nowhere.pt"}, "nowhere.pt"),
        ({"hyp": "nowhere.yaml"}, "nowhere.yaml"),
        ({"batch_size": 0}, "--batch-size: 1 or more, or -1"),
        ({"epochs": 0}, "--epochs"),
        ({"imgsz": 5}, "--imgsz"),
        ({"quad": True, "batch_size": 6}, "multiple of 4"),
        ({"rect": True, "image_weights": True}, "--image-weights"),
        ({"resume": "nowhere.pt"}, "nowhere.pt"),
        ({"epohcs": 3}, "epohcs"),
        ({"label_smoothing": 2.0}, "--label-smoothing"),
        ({"freeze": [7]}, "--freeze 7 leaves nothing to train"),
        ({"freeze": [8]}, "--freeze 8: as many layers can be frozen: 0 to 7 in this model"),
        ({"freeze": [-1]}, "--freeze -1: as many layers can be frozen: 0 to 7 in this model"),
        ({"freeze": [0, 7]}, "--freeze 0 7: layers are numbered 0 to 6 in this model"),
        ({"freeze": [-1, 2]}, "--freeze -1 2: layers are numbered 0 to 6 in this model"),
        ({"seed": -1}, "--seed"),
    ],
    ids=str,
)
def test_unusable_input_is_told_before_anything_is_written(tiny, tmp_path, options, message):
    with pytest.raises(InputError, match=message.replace(".", r"\.")):
        tiny(**options)
    assert not (tmp_path / "runs").exists()


def test_official_weights_start_a_dynamic_model(tiny, shared, capfd):
    tiny(weights=str(shared("weights/yolov5n.pt")), cfg="models/yolov5n_dynamic.yaml")
    log = capfd.readouterr().err
    assert "Spread static kernels over K=4 in layers model.10, model.14 (noise 0.1)" in log
    assert "Transferred 334/347 items" in log  # but 6 of the head, the anchors, fc1, fc2 and temperature of two layers


def test_kernel_noise_of_minus_one_leaves_the_dynamic_layers_to_chance(tiny, shared, tmp_path, capfd):
    plain = yaml.safe_load((ROOT / "data/hyps/hyp.scratch-low.yaml").read_text())
    (tmp_path / "hyp.yaml").write_text(yaml.safe_dump(plain | {"kernel_noise": -1}))
    weights = str(shared("weights/yolov5n.pt"))
    tiny(weights=weights, cfg="models/yolov5n_dynamic.yaml", hyp=str(tmp_path / "hyp.yaml"))
    log = capfd.readouterr().err
    assert "Spread" not in log
    assert "Transferred 330/347 items" in log  # nor the weight and bias of two layers


def test_a_callback_can_end_the_training(tiny):
    seen = []

    callbacks = Callbacks()
    for hook in ("on_train_epoch_end", "teardown"):
        callbacks.register(hook, lambda hook=hook, **_: seen.append(hook))
    callbacks.register("on_fit_epoch_end", lambda **_: setattr(callbacks, "stop_training", True))
    run_dir = tiny(epochs=3, callbacks=callbacks)
    assert len(results(run_dir)) == 1
    assert (run_dir / "weights" / "last.pt").exists()
    assert seen == ["on_train_epoch_end", "teardown"]


def test_an_older_runs_best_is_not_taken_for_this_ones(tiny, monkeypatch):
    run_dir = tiny(epochs=1)
    best = run_dir / "weights" / "best.pt"
    before = best.read_bytes()
    scores = iter([0.5, 0.1])  # the last epoch, the only one that is saved, is not the best
    monkeypatch.setattr(trainer, "fitness", lambda *_: next(scores))
    tiny(epochs=2, nosave=True)
    assert best.read_bytes() == before


def test_an_extended_run_does_not_heat_up_again(tiny):
    run_dir = tiny(epochs=3)
    train.run(resume=str(run_dir), epochs=12)
    assert [float(row["x/temperature"]) for row in results(run_dir)] == [34] + [1] * 11
