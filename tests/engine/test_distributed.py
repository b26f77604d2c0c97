"""Two processes that train one model through torch's launcher, on the CPU."""

import json
import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from engine.training_epoch import CLIP_NORM
from engine.training_setup import training_device
from models.weights import read_checkpoint
from tests.conftest import ROOT
from tests.engine.test_trainer import results, same_weights
from tests.engine.test_training_setup import prepared  # noqa: F401  (a fixture)
from utils.distributed import process_group
from utils.errors import InputError
from utils.torch_utils import to_unit_float

# Trains with the options in argv[1]; each rank leaves its weights after every optimizer step, and its temperatures.
RANK = """
import json, sys, torch, train
from engine import training_epoch, trainer
from models.common import dynamic_layers
from utils.distributed import rank
options, out = json.loads(sys.argv[1]), sys.argv[2]
steps = []
update = training_epoch.optimizer_step
def noted(state):
    update(state)
    kept = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
    average = {f"ema.{name}": tensor.clone() for name, tensor in state.ema.ema.state_dict().items()}
    steps.append(kept | average)
training_epoch.optimizer_step = noted
try:
    train.run(**options)
finally:
    torch.save(steps, f"{out}/rank{rank()}.pt")
"""


def launch(out: Path, options: dict, *, processes: int = 2) -> subprocess.Popen:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    script = out / "rank.py"
    script.write_text(RANK)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, str(script), json.dumps(options), str(out)],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


@pytest.fixture
def options(data, tmp_path):
    usual = {"imgsz": 64, "batch_size": 4, "epochs": 2, "workers": 0, "device": "cpu", "noplots": True, "amp": False}
    return {**data, **usual, "project": str(tmp_path / "runs"), "name": "exp", "exist_ok": True, "loggers": []}


def emulated(state) -> list[dict[str, torch.Tensor]]:
    """The weights after each step of the first epoch: one process forwards each half of a batch with its own batch
    statistics and adds the gradients, as DDP's mean of doubled losses does."""
    steps = []
    state.train_loader.sampler.set_epoch(0)
    for step, batch in enumerate(state.train_loader):
        state.schedule.apply(state.optimizer, step)
        images = to_unit_float(batch.images, state.device)
        half = len(images) // 2
        for side in range(2):
            rows = batch.targets[(batch.targets[:, 0] // half) == side].clone()
            rows[:, 0] -= side * half
            state.loss_fn(state.model(images[side * half : (side + 1) * half]), rows)[0].backward()
        torch.nn.utils.clip_grad_norm_(state.model.parameters(), CLIP_NORM)
        state.optimizer.step()
        state.optimizer.zero_grad()
        steps.append({name: p.detach().clone() for name, p in state.model.named_parameters()})
    return steps


@pytest.mark.slow
def test_two_processes_train_as_one_with_half_batches(options, tmp_path, prepared):  # noqa: F811
    process = launch(tmp_path, {**options, "epochs": 2})
    log, _ = process.communicate(timeout=300)
    assert process.returncode == 0, log
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2))
    assert len(first) == len(second) > 2
    for one, two in zip(first, second, strict=True):  # weights, statistics, averages and temperatures
        assert one.keys() == two.keys()
        assert all(torch.equal(one[name], two[name]) for name in one)
    state = prepared(epochs=2, amp=False)
    state.model.train()
    for step, expected in enumerate(emulated(state)):
        for name, tensor in expected.items():
            assert torch.allclose(first[step][name], tensor, rtol=1e-4, atol=1e-5), (step, name)
    run_dir = tmp_path / "runs" / "exp"
    assert [row["epoch"] for row in results(run_dir)] == ["0", "1"]
    assert log.count("Image sizes 64") == 1, "rank 1 logs too"
    saved = read_checkpoint(run_dir / "weights" / "last.pt").training["model"]
    assert all(torch.equal(tensor, first[-1][name]) for name, tensor in saved.items() if "num_batches" not in name)


@pytest.mark.slow
def test_a_signal_ends_both_and_both_go_on(options, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for out in (whole, broken):
        out.mkdir()
    done = launch(whole, {**options, "epochs": 30, "name": "whole"})
    stopped = launch(broken, {**options, "epochs": 30, "name": "broken"})
    table = tmp_path / "runs" / "broken" / "results.csv"
    deadline = time.monotonic() + 200
    while not (table.exists() and len(results(table.parent)) > 2):
        assert stopped.poll() is None, stopped.stdout.read()
        assert time.monotonic() < deadline, "no epochs"
        time.sleep(0.05)
    stopped.send_signal(signal.SIGTERM)
    log, _ = stopped.communicate(timeout=100)
    assert stopped.returncode != 0
    assert "--resume" in log
    assert read_checkpoint(table.parent / "weights" / "last.pt").training["epoch"] < 29
    resumed = launch(broken, {"resume": str(table.parent)})
    for process in (resumed, done):
        log, _ = process.communicate(timeout=300)
        assert process.returncode == 0, log
    assert same_weights(tmp_path / "runs/whole/weights/last.pt", table.parent / "weights/last.pt")
    assert results(tmp_path / "runs/whole") == results(table.parent)


@pytest.mark.slow
def test_a_signal_to_the_whole_group_saves_the_step(options, tmp_path):
    """As torch's launcher passes signals on, and job schedulers send them: loader workers must not die of it."""
    process = launch(tmp_path, {**options, "batch_size": 4, "epochs": 500, "workers": 1, "noval": True, "nosave": True})
    for line in process.stdout:
        if "img_size" in line:
            break
    time.sleep(3)
    os.killpg(process.pid, signal.SIGTERM)
    log, _ = process.communicate(timeout=100)
    assert "--nproc_per_node 2 train.py --resume" in log, log
    assert (tmp_path / "runs" / "exp" / "weights" / "last.pt").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "message"),
    [({"data": "nowhere.yaml"}, "nowhere.yaml"), ({"batch_size": 3}, "a multiple of that was expected"),
     ({"sync_bn": True}, "--sync-bn works on GPUs alone")],
)  # fmt: skip
def test_unusable_input_ends_all_with_one_sentence(changes, message, options, tmp_path):
    process = launch(tmp_path, {**options, **changes})
    log, _ = process.communicate(timeout=200)
    assert process.returncode != 0
    assert message in log
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("batch_size", "quad", "processes", "message"),
    [(3, False, 2, "is the total of 2 processes"), (4, False, 8, "is the total of 8"), (8, True, 4, "--quad: each of")],
)
def test_a_batch_must_divide_among_the_processes(batch_size, quad, processes, message, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    with pytest.raises(InputError, match=message):
        training_device(Namespace(batch_size=batch_size, quad=quad, device="cpu", sync_bn=False))


def test_half_of_the_launchers_environment_is_told(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(InputError, match="MASTER_ADDR"), process_group():
        pass
