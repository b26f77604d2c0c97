"""Searches for hyperparameters with real, tiny trainings: new, gone on with, pruned, killed and shared."""

import csv
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import train
from engine import evolver
from engine.training_epoch import TrainingDiverged
from tests.conftest import ROOT
from utils import study as study_file
from utils.callbacks import Callbacks
from utils.errors import InputError
from utils.evolution import METRICS
from utils.hyp import load_hyp

optuna = pytest.importorskip("optuna", reason="needs the extra: pip install -r requirements-evolve.txt")

LOW = ROOT / "data/hyps/hyp.scratch-low.yaml"


def rows(directory: Path) -> list[dict[str, str]]:
    with open(directory / "evolve.csv", newline="") as file:
        return list(csv.DictReader(file))


def trials_of(directory: Path) -> list:
    return optuna.load_study(study_name="evolve", storage=study_file.sqlite_url(directory / "evolve.db")).trials


def states(directory: Path) -> list[str]:
    return [trial.state.name for trial in trials_of(directory)]


@pytest.fixture
def scored(monkeypatch):
    """scored({trial: [fitness an epoch, ...]}): trainings of so many epochs that report these figures, at once."""
    seen = []

    def use(plan: dict[int, list[float] | BaseException]) -> list:
        def no_training(opt, callbacks):
            seen.append(load_hyp(opt.hyp))
            fitnesses = plan[int(Path(opt.hyp).parent.name.removeprefix("trial"))]
            if isinstance(fitnesses, BaseException):
                raise fitnesses
            for epoch, fitness in enumerate(fitnesses):
                values = dict.fromkeys(METRICS, 0.0) | {"metrics/mAP_0.5": fitness, "metrics/mAP_0.5:0.95": fitness}
                callbacks.run("on_fit_epoch_end", epoch=epoch, values=values)
                if callbacks.stop_training:
                    break

        monkeypatch.setattr(evolver, "train", no_training)
        return seen

    return use


# --- real trainings
def test_two_trials_then_more_of_the_same_study(tiny):
    """The first trains the hyperparameters given; what comes out is a file that trains."""
    directory = tiny(evolve=2)
    assert states(directory) == ["COMPLETE", "COMPLETE"]
    assert load_hyp(directory / "trial0" / "hyp.yaml") == load_hyp(LOW)
    assert load_hyp(directory / "trial1" / "hyp.yaml") != load_hyp(LOW)
    assert not list(directory.rglob("*.pt"))
    first = rows(directory)
    assert [row["trial"] for row in first] == ["0", "1"]

    best = train.run(evolve=1, resume=directory)
    assert rows(directory)[:2] == first
    assert len(rows(directory)) == 3
    assert load_hyp(directory / "hyp_evolve.yaml") == best
    fitnesses = [float(row["fitness"]) for row in rows(directory)]
    winner = rows(directory)[fitnesses.index(max(fitnesses))]
    for key, value in yaml.safe_load((directory / "hyp_evolve.yaml").read_text()).items():
        assert float(winner[key]) == value == getattr(best, key)
    assert (directory / "hyp_evolve.yaml").read_text().startswith(f"# Trial {winner['trial']}, the best of 3: fitness ")
    tiny(name="with the best", hyp=str(directory / "hyp_evolve.yaml"))


def test_a_trial_is_pruned_in_the_middle_of_its_training(tiny, monkeypatch):
    monkeypatch.setattr(optuna.trial.Trial, "should_prune", lambda trial: trial.number == 1)
    directory = tiny(evolve=2, epochs=3)
    assert states(directory) == ["COMPLETE", "PRUNED"]
    assert [(row["state"], row["epochs"]) for row in rows(directory)] == [("complete", "3"), ("pruned", "1")]
    assert len((directory / "trial1" / "results.csv").read_text().splitlines()) == 2


@pytest.mark.slow
def test_two_processes_share_a_study(data, tmp_path):
    command = [
        sys.executable,
        "train.py",
        "--data",
        data["data"],
        "--cfg",
        data["cfg"],
        "--imgsz",
        "64",
        "--epochs",
        "1",
    ]
    command += ["--batch-size", "4", "--workers", "0", "--device", "cpu", "--noplots", "--project", str(tmp_path)]
    command += ["--name", "shared", "--exist-ok", "--evolve", "3"]
    both = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    logs = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], "\n".join(logs)
    assert states(tmp_path / "shared") == ["COMPLETE"] * 6
    values = [row["lr0"] for row in rows(tmp_path / "shared")]
    assert len(values) == 6
    assert len(set(values)) >= 5, (
        "two processes that start at one moment may both train the start, but draw differently"
    )
    assert all("Trial" in log for log in logs)


@pytest.mark.slow
def test_a_killed_trial_is_made_again(data, scored, tmp_path, monkeypatch):
    """Its process is killed in the first trial; the next call finds no sign of life and puts it back into the queue."""
    code = (
        "import os, signal, train\nfrom engine import evolver\n"
        "evolver.train = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"train.run(evolve=1, data={data['data']!r}, cfg={data['cfg']!r}, epochs=1, project={str(tmp_path)!r})"
    )
    killed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert states(tmp_path / "exp") == ["RUNNING"]
    monkeypatch.setattr(study_file, "GRACE_S", 1)
    study = study_file.open_study(study_file.sqlite_url(tmp_path / "exp" / "evolve.db"), "evolve", seed=0, warmup=0)
    while states(tmp_path / "exp") == ["RUNNING"]:  # until the grace period is over
        optuna.storages.fail_stale_trials(study)
    seen = scored({1: [0.5]})
    train.run(evolve=1, resume=tmp_path / "exp")
    assert states(tmp_path / "exp") == ["FAIL", "COMPLETE"]
    assert seen == [load_hyp(LOW)]


# --- the study
def test_the_median_prunes_after_the_warm_up_alone(tiny, scored):
    """Six good trials; then one that is bad from the start, and one that was good once. 6 epochs: 2 of warm-up."""
    good = {number: [0.5, 0.5, 0.5, 0.5, 0.5, 0.6] for number in range(6)}
    scored({**good, 6: [0.1] * 6, 7: [0.1, 0.5, 0.1, 0.1, 0.1, 0.1]})
    directory = tiny(evolve=8, epochs=6)
    assert states(directory) == ["COMPLETE"] * 6 + ["PRUNED", "COMPLETE"]
    assert [(row["epochs"], row["fitness"]) for row in rows(directory)[6:]] == [("3", "0.1"), ("6", "0.5")]


def test_a_diverged_trial_is_the_worst(tiny, scored):
    scored({0: [0.2], 1: TrainingDiverged("no finite loss"), 2: [0.1]})
    directory = tiny(evolve=3)
    assert [(row["state"], row["fitness"]) for row in rows(directory)] == [
        ("complete", "0.2"), ("diverged", "0"), ("complete", "0.1"),
    ]  # fmt: skip
    assert load_hyp(directory / "hyp_evolve.yaml") == load_hyp(LOW)


@pytest.mark.parametrize("error", [InputError("no such thing"), KeyboardInterrupt("Ctrl+C")], ids=repr)
def test_a_trial_that_ends_the_search_is_made_again_by_the_next_call(error, tiny, scored, capfd):
    seen = scored({0: error, 1: [0.3], 2: [0.2]})
    with pytest.raises(type(error), match=re.escape(str(error))):
        tiny(evolve=2)
    if isinstance(error, KeyboardInterrupt):
        assert "to go on with it: python train.py --evolve 2 --resume " in capfd.readouterr().err
    directory = tiny(evolve=2)
    assert states(directory) == ["FAIL", "COMPLETE", "COMPLETE"]
    assert seen[0] == seen[1] == load_hyp(LOW) != seen[2]
    assert [row["trial"] for row in rows(directory)] == ["1", "2"]


def test_draws_depend_on_the_seed_and_on_the_trial_alone(tiny, scored, monkeypatch):
    """Those at random, of the first two trials, and those of the sampler, after them."""
    monkeypatch.setattr(study_file, "STARTUP_TRIALS", 2)
    seen = scored({number: [0.5] for number in range(5)})
    tiny(evolve=5, name="whole")
    whole = seen.copy()
    seen.clear()
    train.run(evolve=2, resume=tiny(evolve=3, name="parts"))
    assert seen == whole
    assert len({hyp.lr0 for hyp in whole}) == 5
    seen.clear()
    tiny(evolve=2, name="other", seed=1)
    assert [a == b for a, b in zip(seen, whole, strict=False)] == [True, False]


def test_other_settings_are_refused_and_resume_takes_those_of_the_study(tiny, scored, tmp_path, capfd):
    scored({0: [0.5, 0.5], 1: [0.5, 0.5], 2: [0.5, 0.5]})
    directory = tiny(evolve=1, epochs=2)
    changed = yaml.safe_load(LOW.read_text()) | {"box": 0.1}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(changed))
    for other, message in (
        ({"epochs": 3}, "epochs: 2, now 3"),
        ({"epochs": 2, "hyp": tmp_path / "other.yaml"}, "box: 0.05, now 0.1"),
    ):
        with pytest.raises(InputError, match=f"was begun with other settings .*{message}.*--resume"):
            tiny(evolve=1, **other)
    train.run(evolve=1, resume=directory / "evolve.db", epochs=9)
    assert "what was given is ignored: epochs" in capfd.readouterr().err
    tiny(evolve=1, epochs=2)
    assert len(rows(directory)) == 3


def test_the_command_at_the_end_trains_with_the_options_of_the_search(tiny, scored, capfd):
    scored({0: [0.5]})
    directory = tiny(evolve=1, cos_lr=True, amp=False, freeze=[1, 2], quad=False, entity=None)
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("To train with its hyper")]
    opt = train.parse_opt(line.partition("train.py ")[2].split())
    assert (opt.cos_lr, opt.amp, opt.freeze, opt.imgsz, opt.evolve) == (True, False, [1, 2], 64, None)
    assert load_hyp(opt.hyp) == load_hyp(LOW)
    assert opt.hyp == str(directory / "hyp_evolve.yaml")


def test_a_picture_unless_noplots(tiny, scored):
    scored({0: [0.5]})
    assert not (tiny(evolve=1, name="a") / "evolve.png").exists()
    assert (tiny(evolve=1, name="b", noplots=False) / "evolve.png").exists()


def test_runs_evolve_is_the_default_and_directories_are_numbered(data, scored, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scored({0: [0.5], 1: [0.4]})
    for _ in range(2):
        train.run(**data, evolve=1, imgsz=64, epochs=1)
    assert sorted(path.name for path in Path("runs/evolve").iterdir()) == ["exp", "exp2"]
    train.run(evolve=1, resume=True)
    assert len(rows(Path("runs/evolve/exp2"))) == 2


def test_a_database_elsewhere_is_shared_by_directories(tiny, scored, tmp_path):
    scored({0: [0.5], 1: [0.4], 2: [0.3]})
    url = f"sqlite:///{tmp_path / 'elsewhere.db'}"
    one = tiny(evolve=1, evolve_storage=url, project=str(tmp_path / "one"))
    tiny(evolve=1, evolve_storage=url, project=str(tmp_path / "two"))
    one, two = tmp_path / "one" / "exp", tmp_path / "two" / "exp"
    assert (len(rows(one)), len(rows(two))) == (1, 2)
    with pytest.raises(InputError, match="--resume: the study lies in sqlite:.*elsewhere.db, got --evolve-storage ''"):
        train.run(evolve=1, resume=one)
    train.run(evolve=1, resume=one, evolve_storage=url)
    assert len(rows(one)) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"evolve": 0}, "--evolve: 1 or more was expected, got 0"),
        ({"evolve": -3}, "--evolve: 1 or more was expected, got -3"),
        ({"evolve": 1, "batch_size": -1}, "--evolve: each trial would choose its own batch"),
        ({"evolve": True}, "--evolve: a whole number was expected, got True"),
        (
            {"evolve": 1, "evolve_storage": "nonsense"},
            "--evolve-storage: a database URL .*, got 'nonsense'",
        ),
        ({"evolve": 1, "data": "nowhere.yaml"}, "nowhere.yaml"),
        ({"evolve": 1, "hyp": "nowhere.yaml"}, "nowhere.yaml"),
        ({"evolve": 1, "cfg": "nowhere.yaml"}, "nowhere.yaml"),
        ({"evolve": 1, "resume": "nowhere"}, "the directory of an earlier --evolve was expected, got nowhere"),
    ],
    ids=str,
)
def test_unusable_input_is_told_before_anything_is_written(options, message, tiny, tmp_path):
    with pytest.raises(InputError, match=message):
        tiny(**options)
    assert not (tmp_path / "runs").exists()


def test_a_training_is_no_study(tiny):
    run_dir = tiny()
    with pytest.raises(InputError, match="the directory of an earlier --evolve was expected"):
        train.run(evolve=1, resume=run_dir)


def test_a_callers_callbacks_hear_every_trial(tiny):
    heard, callbacks = [], Callbacks()
    callbacks.register("on_fit_epoch_end", lambda epoch, values: heard.append(epoch))
    tiny(evolve=2, epochs=1, callbacks=callbacks)
    assert heard == [0, 0]


def test_without_optuna_the_message_names_the_extra(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match=r"not installed: pip install -r requirements-evolve.txt"):
        tiny(evolve=1)


def test_several_processes_of_one_launcher_are_refused(tiny, monkeypatch):
    monkeypatch.setitem(os.environ, "WORLD_SIZE", "2")
    with pytest.raises(InputError, match="start it once per GPU"):
        tiny(evolve=1)


def test_evolve_alone_means_300_trials():
    assert train.parse_opt([]).evolve is None
    assert train.parse_opt(["--evolve"]).evolve == 300
    assert train.parse_opt(["--evolve", "7"]).evolve == 7
