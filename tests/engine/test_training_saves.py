"""What a training that is asked to end tells of what is saved."""

import os
import signal
from pathlib import Path

import pytest

from engine.interruption import StoppedBySignal
from engine.training_saves import tell_of_interruption
from utils.callbacks import Callbacks


class State:
    """As much of a training's state as is told of."""

    run_dir = Path("runs/my run")
    train_loader = range(9)

    def __init__(self, saved_at: tuple[int, int] | None, *, is_saved: bool, kept: Path | None = None) -> None:
        self.saved_at, self.is_saved, self.kept = saved_at, is_saved, kept
        self.resumable = self.run_dir / "weights" / "last.pt" if saved_at else None


@pytest.mark.parametrize(
    ("saved_at", "is_saved", "told"),
    [
        (None, False, "Nothing was saved yet in runs/my run: there is nothing to go on with."),
        ((0, 1), True, "Saved at epoch 0, batch 1 of 9: {file}; go on with: {command}"),
        ((2, 4), True, "Saved at epoch 2, batch 4 of 9: {file}; go on with: {command}"),
        ((2, 9), True, "Saved at epoch 2, batch 9 of 9: {file}; go on with: {command}"),
        ((3, 0), True, "Saved at the end of epoch 2: {file}; go on with: {command}"),
        (
            (3, 0),
            False,
            "Saved at the end of epoch 2: {file} (what was trained after that is lost); go on with: {command}",
        ),
    ],
)
def test_what_is_told(saved_at, is_saved, told, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    file = Path("runs/my run/weights/last.pt")
    file.parent.mkdir(parents=True)
    file.touch()
    tell_of_interruption(State(saved_at, is_saved=is_saved))
    assert capfd.readouterr().err.strip() == told.format(file=file, command=f"python train.py --resume '{file}'")


def test_no_file_is_named_that_is_not_there(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    tell_of_interruption(State((3, 0), is_saved=False))
    file = Path("runs/my run/weights/last.pt")
    assert capfd.readouterr().err.strip() == f"{file} is gone: there is nothing to go on with."


@pytest.mark.parametrize(
    ("hook", "at", "blocked", "place"),
    [
        ("on_train_batch_end", 1, False, "epoch 0, batch 1 of 4"),
        ("on_train_batch_end", 6, False, "epoch 1, batch 2 of 4"),
        ("on_val_start", 2, False, "epoch 1, batch 4 of 4"),
        ("on_val_start", 3, False, "the end of epoch 1"),  # of best.pt, after the last epoch
        ("on_train_batch_end", 6, True, "the end of epoch 0"),
    ],
)
def test_the_step_that_was_saved_is_named(hook, at, blocked, place, tiny, tmp_path, monkeypatch, capfd):
    callbacks, calls = Callbacks(), []

    def ask(**_) -> None:
        calls.append(hook)
        if len(calls) == at:
            if blocked:
                monkeypatch.setattr("engine.training_saves.save_checkpoint", full_disk)
            os.kill(os.getpid(), signal.SIGTERM)

    def full_disk(*_, **__) -> None:
        raise OSError("no space left")

    callbacks.register(hook, ask)
    with pytest.raises(StoppedBySignal):
        tiny(epochs=2, batch_size=2, callbacks=callbacks)
    last = tmp_path / "runs" / "exp" / "weights" / "last.pt"
    lost = " (what was trained after that is lost)" if blocked else ""
    assert f"\nSaved at {place}: {last}{lost}; go on with: python train.py --resume {last}\n" in capfd.readouterr().err
