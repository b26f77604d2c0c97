"""Trainings that are killed or asked to end at any moment, and go on as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

import train
from engine import trainer
from engine.interruption import StoppedBySignal, StopSignals
from models.weights import read_checkpoint
from tests.conftest import ROOT
from tests.engine.test_trainer import results, same_weights
from utils.callbacks import Callbacks
from utils.errors import InputError

# Kills its own process as SIGKILL does, at the moment that argv[1] names, and trains with the options in argv[2].
KILLED = """
import json, os, signal, sys, train
from utils import files
from utils.callbacks import Callbacks
moment, options = sys.argv[1], json.loads(sys.argv[2])
seen = []
def die(*_, **__):
    seen.append(moment)
    if len(seen) == int(moment.split()[1]):
        os.kill(os.getpid(), signal.SIGKILL)
callbacks = Callbacks()
kind = moment.split()[0]
if kind.startswith("on_"):
    callbacks.register(kind, die)
else:  # in a rename of a checkpoint, which is complete then but has not got its name yet
    plain = files.os.fsync
    name = "/proc/self/fd/{}".format
    files.os.fsync = lambda handle: (die() if ".pt." in os.readlink(name(handle)) else None, plain(handle))
train.run(callbacks=callbacks, **options)
"""


@pytest.fixture
def killed(data, tmp_path):
    """killed(moment, epochs=...) trains in a process of its own until the moment, and returns the run's directory."""

    def run(moment: str, **options) -> Path:
        usual = {"imgsz": 64, "batch_size": 2, "workers": 0, "device": "cpu", "noplots": True, "exist_ok": True}
        usual |= {**data, "project": str(tmp_path / "runs"), "name": "killed", **options}
        command = [sys.executable, "-c", KILLED, moment, json.dumps(usual)]
        same = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # sums depend on how they are shared out
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, env=same)
        assert done.returncode == -signal.SIGKILL, done.stderr
        return tmp_path / "runs" / "killed"

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    "moment",
    [
        "on_train_batch_end 6",  # the middle of epoch 1
        "on_val_batch_end 2",  # the validation after epoch 1
        "fsync 3",  # best.pt of epoch 1 is on the disk, but has not got its name
        "fsync 4",  # best.pt of epoch 1 has its name, last.pt has not
        "on_val_batch_end 4",  # all epochs are done, best.pt is validated
        "fsync 7",  # and stripped
    ],
)
def test_killed_and_resumed_is_as_never_stopped(moment, tiny, killed):
    if moment.startswith("fsync") and not Path("/proc/self/fd").exists():
        pytest.skip("the moment is found through /proc, which this system lacks")
    whole = tiny(epochs=3, batch_size=2, name="whole")
    broken = killed(moment, epochs=3)
    train.run(resume=str(broken))
    for name in ("last.pt", "best.pt"):
        assert same_weights(whole / "weights" / name, broken / "weights" / name)
    assert results(broken) == results(whole)
    assert read_checkpoint(broken / "weights" / "best.pt").training is None
    assert {file.name for file in (broken / "weights").iterdir()} == {"last.pt", "best.pt"}


def interrupting(hook: str, at: int, signum: int = signal.SIGTERM) -> Callbacks:
    """Callbacks that send the signal to this process at the `at`-th call of the hook."""
    callbacks, calls = Callbacks(), []

    def ask(**_) -> None:
        calls.append(hook)
        if len(calls) == at:
            os.kill(os.getpid(), signum)

    callbacks.register(hook, ask)
    return callbacks


@pytest.mark.parametrize(
    ("hook", "at", "signum", "options", "batches"),
    [
        ("on_train_batch_start", 1, signal.SIGINT, {}, 1),
        ("on_train_batch_end", 6, signal.SIGTERM, {"image_weights": True}, 2),
        ("on_train_batch_end", 7, signal.SIGINT, {"multi_scale": True, "workers": 1}, 3),
        ("on_train_batch_end", 6, signal.SIGTERM, {"rect": True}, 2),
        ("on_val_start", 2, signal.SIGTERM, {}, 4),
        ("on_val_start", 4, signal.SIGTERM, {}, 0),
    ],
)
def test_a_signal_ends_the_training_at_that_step(hook, at, signum, options, batches, tiny, capfd):
    usual = {"epochs": 3, "batch_size": 2, **options}
    whole = tiny(name="whole", **usual)
    broken = whole.with_name("broken")
    with pytest.raises(StoppedBySignal) as caught:
        tiny(name="broken", callbacks=interrupting(hook, at, signum), **usual)
    assert caught.value.signum == signum
    assert f"python train.py --resume {broken / 'weights' / 'last.pt'}" in capfd.readouterr().err
    assert read_checkpoint(broken / "weights" / "last.pt").training["batches"] == batches
    train.run(resume=str(broken))
    assert same_weights(whole / "weights/last.pt", broken / "weights/last.pt")
    assert results(broken) == results(whole)


def test_signals_have_their_usual_effect_before_and_after(tiny):
    usual = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]
    tiny()
    assert [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)] == usual


@pytest.mark.usefixtures("usual_interrupt")
def test_a_second_signal_ends_at_once():
    with StopSignals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.received == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_training_in_a_thread_leaves_the_signals_alone(tiny):
    ended = []
    thread = threading.Thread(target=lambda: ended.append(tiny()))
    thread.start()
    thread.join()
    assert ended


@pytest.mark.parametrize(("signum", "raised"), [(None, InputError), (signal.SIGTERM, StoppedBySignal)])
def test_workers_that_a_signal_ended_are_no_error(signum, raised, tiny, monkeypatch):
    """A signal to the whole group of processes ends the loader's workers too, and torch raises RuntimeError then."""

    def broken(state):
        state.signals.received = signum
        raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Terminated.")

    monkeypatch.setattr(trainer, "train_epochs", broken)
    with pytest.raises(raised):
        tiny()


def test_the_random_states_of_a_stopped_run_come_back(tiny, tmp_path):
    """What listeners draw goes on as it would have."""

    def drawing(into: list, *, stop_at: int | None = None) -> Callbacks:
        callbacks = Callbacks()

        def draw(epoch: int, **_) -> None:
            into.append(torch.rand(1).item())
            if epoch == stop_at:
                os.kill(os.getpid(), signal.SIGINT)

        callbacks.register("on_train_epoch_end", draw)
        return callbacks

    whole, broken = [], []
    tiny(epochs=3, callbacks=drawing(whole))
    with pytest.raises(StoppedBySignal):
        tiny(epochs=3, name="broken", callbacks=drawing(broken, stop_at=1))
    train.run(resume=str(tmp_path / "runs" / "broken"), callbacks=drawing(resumed := []))
    assert broken == whole[:2]
    assert resumed[0] == whole[2]  # epoch 1 ends once more, before the validation that was cut off
