"""Trainings that something happens to from outside: none ends in a traceback, hangs, or loses what was saved."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

import train
from engine import trainer
from engine.interruption import StoppedBySignal
from models.weights import read_checkpoint
from tests.conftest import ROOT
from tests.engine.test_trainer import results, same_weights
from utils.callbacks import Callbacks
from utils.errors import InputError

LONGEST = 10  # seconds that a fault may go unnoticed


def at_epochs(actions: dict[int, Callable[[], object]], hook: str = "on_train_epoch_start") -> Callbacks:
    """Callbacks that do something at the start of some epochs."""
    callbacks = Callbacks()
    callbacks.register(hook, lambda epoch, **_: actions.get(epoch, lambda: None)())
    return callbacks


def block(folder: Path) -> None:
    """Puts a file where a folder was, so that nobody, root included, can write there; the folder lies beside it."""
    folder.rename(folder.with_name(f"{folder.name}.away"))
    folder.touch()


def unblock(folder: Path) -> None:
    """The way back."""
    folder.unlink()
    folder.with_name(f"{folder.name}.away").rename(folder)


# -------------------------------------------------------------------------------------------------------- full disks
FULL = """
import json, resource, sys
import train
from utils.callbacks import Callbacks
from utils.errors import readable_errors
first, free, options = json.loads(sys.argv[1])
def begin(epoch, **_):
    if epoch == first or epoch == free:
        limit = 100 if epoch == first else resource.RLIM_INFINITY  # bytes of any file
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
callbacks = Callbacks()
callbacks.register("on_train_epoch_start", begin)
with readable_errors():
    train.run(callbacks=callbacks, **options)
"""


@pytest.fixture
def with_full_disk(data, tmp_path):
    """with_full_disk(first, free, ...) trains in a process that can make no file larger than 100 bytes from one epoch
    to another. Returns its end and the run's directory."""
    pytest.importorskip("resource", reason="the limit of a file's size is set as Unix systems do")

    def run(first: int, free: int, **options) -> tuple[subprocess.CompletedProcess, Path]:
        usual = {"imgsz": 64, "batch_size": 4, "workers": 0, "device": "cpu", **data}
        usual |= {"project": str(tmp_path / "runs"), "name": "full", **options}
        command = [sys.executable, "-c", FULL, json.dumps([first, free, usual])]
        same = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads()), "TMPDIR": str(tmp_path)}
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, env=same)
        assert "Traceback" not in ended.stderr, ended.stderr
        assert "Logging error" not in ended.stderr, ended.stderr
        return ended, tmp_path / "runs" / "full"

    return run


def test_a_disk_that_is_full_for_a_while_costs_nothing(tiny, with_full_disk):
    whole = tiny(epochs=4, name="whole")
    ended, run_dir = with_full_disk(1, 3, epochs=4, loggers=[])
    assert ended.returncode == 0, ended.stderr
    assert "cannot be saved now ([Errno 27] File too large: " in ended.stderr
    for name in ("best.pt", "last.pt"):
        assert same_weights(whole / "weights" / name, run_dir / "weights" / name)
    assert f"what was saved before is whole ({run_dir / 'weights' / 'last.pt'})" in ended.stderr
    assert "results.csv cannot be written now" in ended.stderr
    assert results(run_dir) == results(whole)
    assert (run_dir / "results.png").exists()
    assert {file.name for file in (run_dir / "weights").iterdir()} == {"last.pt", "best.pt"}


def test_a_disk_that_stays_full_ends_in_one_sentence_and_leaves_the_former_checkpoint(with_full_disk):
    ended, run_dir = with_full_disk(1, 9, epochs=3, noplots=True, loggers=[])
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("Error: ")
    assert read_checkpoint(run_dir / "weights" / "last.pt").training["epoch"] == 0
    train.run(resume=str(run_dir))
    assert read_checkpoint(run_dir / "weights" / "last.pt").training["epoch"] == 2


def test_where_the_end_cannot_be_saved_it_is_kept_elsewhere(tiny, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    whole = tiny(epochs=3, name="whole")
    weights = whole.with_name("exp") / "weights"
    with pytest.raises(InputError, match="it is in ") as caught:
        tiny(epochs=3, callbacks=at_epochs({1: lambda: block(weights)}))
    assert f"{weights}/" in capfd.readouterr().err.partition(" cannot be saved now")[0]
    (kept,) = tmp_path.glob("exp_*/last.pt")
    assert str(kept) in str(caught.value)
    unblock(weights)
    assert read_checkpoint(weights / "last.pt").training["epoch"] == 0  # the former one is whole
    shutil.move(kept, weights / "last.pt")
    train.run(resume=str(weights.parent))
    assert same_weights(whole / "weights/last.pt", weights / "last.pt")


def ask(signum: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), signum)


@pytest.mark.parametrize("hook", ["on_train_epoch_start", "on_train_epoch_end"])
def test_where_a_signal_finds_no_place_for_its_checkpoint_it_is_kept_elsewhere(
    hook, tiny, tmp_path, monkeypatch, capfd
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    whole = tiny(epochs=3, name="whole")
    weights, last = whole.with_name("exp") / "weights", whole.with_name("exp") / "weights" / "last.pt"
    with pytest.raises(StoppedBySignal) as caught:
        tiny(epochs=3, callbacks=at_epochs({1: lambda: (block(weights), ask(signal.SIGTERM)())}, hook))
    assert caught.value.signum == signal.SIGTERM
    (kept,) = tmp_path.glob("exp_*/last.pt")
    told = capfd.readouterr().err
    assert f"\nSaved in another place: {kept}; free space, move it to {last}, and go on with: python " in told
    assert "goes on" not in told
    assert "\nSaved at " not in told
    unblock(weights)
    shutil.move(kept, last)
    train.run(resume=str(last))
    assert same_weights(whole / "weights/last.pt", last)


@pytest.mark.parametrize("ending", ["end", "signal"])
def test_where_no_place_is_left_both_are_told_with_the_reason(ending, tiny, tmp_path, monkeypatch, capfd):
    nowhere, weights = tmp_path / "nowhere", tmp_path / "runs" / "exp" / "weights"
    actions = {1: lambda: (block(weights), ending == "signal" and ask(signal.SIGINT)())}
    with monkeypatch.context() as patch:  # pytest makes temporary files too
        patch.setattr(tempfile, "tempdir", str(nowhere))
        with pytest.raises(StoppedBySignal if ending == "signal" else InputError) as caught:
            tiny(epochs=2, callbacks=at_epochs(actions))
    told = capfd.readouterr().err if ending == "signal" else str(caught.value)
    assert f"could be saved neither in {weights} (see above) nor in {nowhere} ([Errno 2] No such file" in told
    if ending == "signal":
        assert f"\n{weights / 'last.pt'} is gone: there is nothing to go on with.\n" in told
        assert "--resume" not in told


def test_what_could_not_be_saved_does_not_keep_a_lesser_epoch_from_being_the_best(tiny, tmp_path, monkeypatch):
    scores = iter([0.1, 0.9, 0.5, 0.3])
    monkeypatch.setattr(trainer, "fitness", lambda *_: next(scores))
    weights = tmp_path / "runs" / "exp" / "weights"
    actions = {1: lambda: block(weights), 2: lambda: unblock(weights)}
    assert read_checkpoint(tiny(epochs=4, callbacks=at_epochs(actions)) / "weights" / "best.pt").info["epoch"] == 2


# ---------------------------------------------------------------------------------------- files that are gone or locked
def test_a_run_directory_that_is_deleted_in_mid_training_is_made_anew(tiny, tmp_path):
    run_dir = tmp_path / "runs" / "exp"
    tiny(epochs=3, noplots=False, callbacks=at_epochs({1: lambda: shutil.rmtree(run_dir)}))
    assert read_checkpoint(run_dir / "weights" / "last.pt").training["epoch"] == 2
    assert [row["epoch"] for row in results(run_dir)] == ["0", "1", "2"]


@pytest.mark.parametrize("hook", ["on_train_epoch_start", "on_train_end"])
def test_a_best_checkpoint_that_is_deleted_costs_only_itself(hook, tiny, tmp_path, capfd):
    weights = tmp_path / "runs" / "exp" / "weights"
    callbacks = Callbacks()
    callbacks.register("on_model_save", lambda **_: (weights / "best.pt").unlink(missing_ok=True))
    tiny(epochs=2, callbacks=callbacks)
    assert "best.pt is gone" in capfd.readouterr().err
    assert read_checkpoint(weights / "last.pt").training["epoch"] == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_pictures_that_are_deleted_in_mid_training(workers, data, tmp_path, capfd):
    """One is told and replaced; where all are, it is the disk, and the training ends in one sentence."""
    folder = tmp_path / "shapes"
    shutil.copytree(Path(data["data"]).parent, folder)
    many = folder / "images" / "train"
    for number in range(8, 24):
        shutil.copy(many / f"{number % 8}.png", many / f"{number}.png")
    (folder / "data.yaml").write_text(yaml.safe_dump(yaml.safe_load(Path(data["data"]).read_text()) | {"path": "."}))
    actions = {1: (many / "3.png").unlink, 2: lambda: shutil.rmtree(many)}
    options = {"imgsz": 64, "batch_size": 4, "epochs": 4, "workers": workers, "device": "cpu", "noplots": True}
    options |= {"data": str(folder / "data.yaml"), "cfg": data["cfg"], "project": str(tmp_path / "runs")}
    began = []
    with pytest.raises(InputError, match="expected readable pictures"):
        train.run(**options, loggers=[], callbacks=at_epochs({**actions, 3: lambda: began.append(3)}))
    assert "A grey picture without labels takes the place" in capfd.readouterr().err
    last = tmp_path / "runs" / "exp" / "weights" / "last.pt"
    assert read_checkpoint(last).training["epoch"] == 1
    assert not began


# ------------------------------------------------------------------------------------------------- memory and processes
@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (MemoryError(), r"try --batch-size 2 \(it is 4\).*MemoryError"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore."), r"try --batch-size 2 .*2 GiB"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9"), "batch-size 2"),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9"), "batch-size 2"),
    ],
    ids=["python", "gpu", "linux", "windows"],
)
def test_no_memory_at_a_batch_is_told_with_a_smaller_batch_size(error, sentence, tiny, tmp_path):
    def fail() -> None:
        raise error

    last = tmp_path / "runs" / "exp" / "weights" / "last.pt"
    with pytest.raises(InputError, match=sentence) as caught:
        tiny(epochs=3, callbacks=at_epochs({1: fail}))
    assert f"--weights {last}" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert read_checkpoint(last).training["epoch"] == 0


def test_no_memory_for_a_single_picture_asks_for_a_smaller_model(tiny):
    def fail() -> None:
        raise MemoryError

    with pytest.raises(InputError, match=r"try a smaller model, or a smaller --imgsz \(it is 64\)"):
        tiny(batch_size=1, callbacks=at_epochs({0: fail}))


def test_our_own_errors_keep_their_traceback(tiny):
    def fail() -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        tiny(callbacks=at_epochs({0: fail}))


def test_memory_that_the_system_does_not_give_ends_train_py_in_one_sentence(data, tmp_path):
    """As a user meets it: pictures that are far too large for what the process may take."""
    resource = pytest.importorskip("resource", reason="the limit of memory is set as Unix systems do")
    if sys.platform != "linux":
        pytest.skip("the limit of memory holds on Linux alone")
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({6 * 2**30}, {resource.RLIM_INFINITY}))"
    script = f"{limited}; import train; train.main(train.parse_opt())"
    flags = f"--data {data['data']} --cfg {data['cfg']} --imgsz 3200 --batch-size 8 --workers 0 --device cpu --noplots"
    command = [sys.executable, "-c", script, *flags.split(), "--epochs", "1", "--project", str(tmp_path), "--loggers"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    last_line = ended.stderr.strip().splitlines()[-1]
    assert ended.returncode == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "Error: out of memory" in last_line
    assert "--batch-size" in last_line


def test_a_loader_process_that_is_killed_is_told_with_what_to_try(tiny, tmp_path):
    children, killed = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children"), []
    if not children.exists():
        pytest.skip("the loader's processes are found through /proc, which this system lacks")

    def kill() -> None:
        workers = [child for child in children.read_text().split() if is_loader(child)]
        killed.append(time.monotonic())
        for child in workers[:1]:  # torch raises for each, wherever the process is by then
            os.kill(int(child), signal.SIGKILL)
        time.sleep(1)  # torch notices in this time, or when it waits for the next batch

    with pytest.raises(InputError, match=r"a loader process was ended from outside in epoch 1 .* --workers") as told:
        tiny(epochs=3, workers=2, callbacks=at_epochs({1: kill}, hook="on_train_epoch_start"))
    assert time.monotonic() - killed[0] < LONGEST
    last = tmp_path / "runs" / "exp" / "weights" / "last.pt"
    assert f"--resume {last} --workers " in str(told.value)
    assert read_checkpoint(last).training["epoch"] == 0
    train.run(resume=str(last), workers=0)
    assert read_checkpoint(last).training["epoch"] == 2


def is_loader(pid: str) -> bool:
    """Whether a child is one of the loader's: a fork of this process, in a group of its own."""
    same = Path(f"/proc/{pid}/cmdline").read_bytes() == Path("/proc/self/cmdline").read_bytes()
    return same and os.getpgid(int(pid)) == int(pid)


# ------------------------------------------------------------------------------------------------------ signals, clocks
def test_a_hang_up_that_nohup_ignores_stays_ignored(tiny):
    if not hasattr(signal, "SIGHUP"):
        pytest.skip("the system has no such signal")
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        actions = {0: lambda: os.kill(os.getpid(), signal.SIGHUP)}
        assert len(results(tiny(epochs=2, callbacks=at_epochs(actions)))) == 2
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_hang_up_ends_the_training_at_that_step(tiny, tmp_path):
    if not hasattr(signal, "SIGHUP"):
        pytest.skip("the system has no such signal")
    with pytest.raises(StoppedBySignal) as caught:
        tiny(epochs=3, callbacks=at_epochs({1: lambda: os.kill(os.getpid(), signal.SIGHUP)}))
    assert caught.value.signum == signal.SIGHUP
    assert read_checkpoint(tmp_path / "runs/exp/weights/last.pt").training["batches"] == 1


def test_a_clock_that_is_set_back_changes_nothing(tiny, monkeypatch, capfd):
    whole = tiny(epochs=3, name="whole")
    now, real = [0], time.time
    monkeypatch.setattr(time, "time", lambda: real() - now[0])

    def set_back() -> None:
        now[0] += 24 * 3600

    jumped = tiny(epochs=3, name="jumped", callbacks=at_epochs({1: set_back, 2: set_back}))
    assert results(jumped) == results(whole)
    assert same_weights(whole / "weights/last.pt", jumped / "weights/last.pt")
    told = capfd.readouterr().err
    assert "3 epochs completed in 0.0" in told
    assert "-" not in "".join(line for line in told.splitlines() if "completed in" in line)


def test_a_terminal_that_closes_ends_the_training_as_ctrl_c_does(data, tmp_path):
    pty = pytest.importorskip("pty", reason="terminals are closed as on Unix systems")
    child, terminal = pty.fork()
    if child == 0:
        flags = (
            f"--data {data['data']} --cfg {data['cfg']} --imgsz 64 --batch-size 4 --workers 0 --device cpu --noplots"
        )
        flags += f" --epochs 1000 --project {tmp_path} --loggers"
        os.chdir(ROOT)
        os.execv(sys.executable, [sys.executable, "train.py", *flags.split()])
    told = b""
    while b"gpu_mem" not in told:  # the head of the first epoch's progress bar
        told += os.read(terminal, 4096)
    os.close(terminal)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGHUP
    assert read_checkpoint(tmp_path / "exp" / "weights" / "last.pt").training is not None
