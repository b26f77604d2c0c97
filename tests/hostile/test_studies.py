"""The database of a search fails in its middle, or is not what it should be: one sentence in bounded time, and no
finished trial is lost."""

import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

import train
from engine import evolver
from tests.conftest import ROOT
from tests.engine.conftest import data, tiny  # noqa: F401 (fixtures)
from tests.hostile.child import attempt, bounded, resource
from utils import study as study_file
from utils.errors import InputError
from utils.evolution import METRICS, search_space
from utils.hyp import load_hyp
from utils.kept_results import KEPT, tell_kept

optuna = pytest.importorskip("optuna", reason="needs the extra: pip install -r requirements-evolve.txt")

SHORT = 0.3  # seconds instead of the minute that a process waits for a locked file


@pytest.fixture
def trainings(monkeypatch) -> list[Callable[[Path], None]]:
    """What to do in the middle of each training, which takes no time: the first of it reaches 0.1, then 0.2, ..."""
    acts, count = [], iter(range(1, 100))

    def no_training(opt, callbacks):
        number = next(count)
        for epoch in range(3):
            score = number / 10 - 0.01 * epoch
            callbacks.run("on_fit_epoch_end", epoch=epoch, values=dict.fromkeys(METRICS, score))
            if epoch == 1 and acts:
                acts.pop(0)(Path(opt.project) / "evolve.db")

    monkeypatch.setattr(evolver, "train", no_training)
    monkeypatch.setattr(study_file, "LOCKED_S", SHORT)
    return acts


@pytest.fixture
def locking() -> Iterator[Callable[[str], Callable[[Path], None]]]:
    """locking("EXCLUSIVE") locks a file until it is called with "off" or the test ends."""
    holders = []

    def lock(kind: str) -> Callable[[Path], None]:
        def act(file: Path) -> None:
            holders.append(sqlite3.connect(file, isolation_level=None))
            holders[-1].execute(f"BEGIN {kind}")

        while kind == "off" and holders:
            holders.pop().close()
        return act

    yield lock
    lock("off")


def nothing(file: Path) -> None:
    """Between two acts."""


def table(directory: Path) -> list[tuple[str, str]]:
    lines = (directory / "evolve.csv").read_text().splitlines()[1:]
    return [(line.split(",")[1], line.split(",")[3]) for line in lines]


# --------------------------------------------------------------------------------------------------- in mid-search
@pytest.mark.parametrize("kind", ["EXCLUSIVE", "IMMEDIATE"])
def test_a_trial_that_ends_while_the_study_is_locked_is_told_by_the_next_call(
    kind, tiny, tmp_path, trainings, locking, capfd  # noqa: F811
):  # fmt: skip
    trainings += [nothing, locking(kind)]
    begun = time.monotonic()
    with pytest.raises(InputError) as refusal:
        tiny(evolve=5, epochs=3)
    assert time.monotonic() - begun < 20 * SHORT + 5
    directory, told = tmp_path / "runs" / "exp", str(refusal.value)
    assert "evolve.db cannot be used: database is locked (another process holds it; waited 0.3 s); trial 1" in told
    assert f"kept in {directory / 'trial1'}" in told
    assert told.endswith(f"python train.py --evolve 5 --resume {directory}")
    assert "\n" not in told
    errors = capfd.readouterr().err
    assert "Trial 1 goes on and is not pruned any more" in errors
    assert "Traceback" not in errors

    locking("off")
    train.run(evolve=1, resume=directory)
    assert not (directory / "trial1" / KEPT).exists()
    assert table(directory) == [("complete", "0.1"), ("complete", "0.2"), ("complete", "0.3")]
    study = optuna.load_study(study_name="evolve", storage=study_file.sqlite_url(directory / "evolve.db"))
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert study.trials[2].intermediate_values == pytest.approx({0: 0.2, 1: 0.19, 2: 0.18})
    assert study.trials[1].params == study.trials[2].params


def test_a_pruned_trial_is_kept_too_and_told_once(tiny, tmp_path, trainings, locking, monkeypatch):  # noqa: F811
    monkeypatch.setattr(optuna.trial.Trial, "should_prune", lambda _: True)
    trainings += [locking("EXCLUSIVE")]
    with pytest.raises(InputError, match="is locked"):
        tiny(evolve=1, epochs=3)
    locking("off")
    directory = tmp_path / "runs" / "exp"
    kept = (directory / "trial0" / KEPT).read_bytes()
    train.run(evolve=1, resume=directory)
    (directory / "trial0" / KEPT).write_bytes(kept)
    train.run(evolve=1, resume=directory)
    assert [state for state, _ in table(directory)] == ["pruned"] * 3


def test_a_deleted_study_is_told_and_not_begun_anew(tiny, tmp_path, trainings):  # noqa: F811
    directory = tmp_path / "runs" / "exp"
    copy = tmp_path / "copy.db"
    trainings += [nothing, lambda file: (shutil.copy(file, copy), file.unlink())]
    with pytest.raises(InputError, match=r"evolve\.db cannot be used: the file is gone .*trial 1 has ended with fit"):
        tiny(evolve=3, epochs=3)
    assert not (directory / "evolve.db").exists()
    for resume in (directory, directory / "evolve.db"):
        with pytest.raises(InputError, match=r"evolve\.db is gone or empty: put it back"):
            train.run(evolve=1, resume=resume)
    shutil.copy(copy, directory / "evolve.db")
    train.run(evolve=1, resume=directory)
    assert [fitness for _, fitness in table(directory)] == ["0.1", "0.2", "0.3"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write to read-only files")
def test_a_study_that_becomes_read_only(tiny, trainings):  # noqa: F811
    trainings += [lambda file: (file.chmod(0o444), file.parent.chmod(0o555))]
    with pytest.raises(InputError, match=r"evolve\.db cannot be used: .*(readonly|unable to open)"):
        tiny(evolve=3, epochs=3)


def test_a_read_only_database_from_the_start(tiny, tmp_path, trainings):  # noqa: F811
    file = tmp_path / "strange.db"
    sqlite3.connect(file).close()
    with pytest.raises(InputError, match=r"cannot be opened: attempt to write a readonly database"):
        tiny(evolve=1, epochs=3, evolve_storage=f"sqlite:///file:{file}?mode=ro&uri=true")


def test_a_full_disk_leaves_the_figures_of_the_trial_and_says_where(data, ground, trainings):  # noqa: F811
    def task() -> None:
        trainings.append(lambda _: resource.setrlimit(resource.RLIMIT_FSIZE, (600, resource.RLIM_INFINITY)))
        train.run(**data, evolve=2, epochs=3, project=str(ground / "runs"), device="cpu", workers=0, noplots=True)

    told = bounded(attempt(task, ground, megabytes=2000))
    assert "evolve.db cannot be used: " in told
    assert "its figures stand in" in told


def test_ctrl_c_while_the_study_is_locked_ends_at_once(tiny, trainings, locking, capfd):  # noqa: F811
    def interrupted(file: Path) -> None:
        locking("EXCLUSIVE")(file)
        raise KeyboardInterrupt

    trainings += [interrupted]
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        tiny(evolve=2, epochs=3)
    assert time.monotonic() - begun < 10 * SHORT + 5
    assert "Trial 0 is not put back: the study's database" in capfd.readouterr().err


def test_a_missed_sign_of_life_is_told_once(tiny, trainings, locking, monkeypatch, capfd):  # noqa: F811
    monkeypatch.setattr(study_file, "HEARTBEAT_S", 0.01)

    def slow(file: Path) -> None:
        locking("EXCLUSIVE")(file)
        time.sleep(4 * SHORT)
        locking("off")

    trainings += [slow]
    directory = tiny(evolve=1, epochs=3)
    errors = capfd.readouterr().err
    assert errors.count("Trial 0 goes on without signs of life in the study") == 1
    assert "Traceback" not in errors
    assert table(directory) == [("complete", "0.1")]


# ------------------------------------------------------------------------------------------------------ at the start
def test_a_locked_study_is_waited_for_once(tmp_path, locking, monkeypatch):
    monkeypatch.setattr(study_file, "LOCKED_S", SHORT)
    monkeypatch.setattr(study_file, "OPENING_PAUSES_S", (0.01,) * 100)
    url = study_file.sqlite_url(tmp_path / "evolve.db")
    study_file.open_study(url, "evolve", seed=0, warmup=0)
    locking("EXCLUSIVE")(tmp_path / "evolve.db")
    begun = time.monotonic()
    with pytest.raises(InputError, match=r"cannot be opened: database is locked \(another process holds it; waited"):
        study_file.open_study(url, "evolve", seed=0, warmup=0)
    assert time.monotonic() - begun < 3 * SHORT + 1


def foreign(file: Path) -> None:
    file.unlink()
    with closing(sqlite3.connect(file)) as database:
        database.executescript(
            "CREATE TABLE studies (a INT); CREATE TABLE trials (b INT); INSERT INTO trials VALUES (1)"
        )


def newer(file: Path) -> None:
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'v99.0.0.a'")


def large(file: Path) -> None:
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("CREATE TABLE other AS SELECT zeroblob(?) AS content", (study_file.LARGEST_STUDY,))


REFUSED = {
    "foreign": foreign,
    "newer": newer,
    "large": large,
    "cut": lambda file: os.truncate(file, file.stat().st_size // 2),
    "cut in a page": lambda file: os.truncate(file, file.stat().st_size - 5000),
    "a folder": lambda file: (file.unlink(), file.mkdir()),
    "a pipe": lambda file: (file.unlink(), os.mkfifo(file)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_strangers_database_is_refused(name, tmp_path):
    url = study_file.sqlite_url(tmp_path / "evolve.db")
    study_file.open_study(url, "evolve", seed=0, warmup=0)
    REFUSED[name](tmp_path / "evolve.db")
    begun = time.monotonic()
    with pytest.raises(InputError, match="the study's database .*evolve.db"), study_file.readable(url):
        study_file.open_study(url, "evolve", seed=0, warmup=0).ask()
    assert time.monotonic() - begun < 15


def test_zeros_behind_a_database_do_no_harm(tmp_path):
    url = study_file.sqlite_url(tmp_path / "evolve.db")
    study_file.open_study(url, "evolve", seed=0, warmup=0).set_user_attr("settings", {"a": 1})
    os.truncate(tmp_path / "evolve.db", 500 << 20)
    begun = time.monotonic()
    assert study_file.open_study(url, "evolve", seed=0, warmup=0).user_attrs == {"settings": {"a": 1}}
    assert time.monotonic() - begun < 10


# ------------------------------------------------------------------------------------------------------ kept results
GOOD = {
    "number": 7,
    "params": {"lr0": 0.02},
    "result": {"state": "complete", "epochs": 1, "fitness": 0.9, "metrics": dict.fromkeys(METRICS, 0.9)},
    "scores": {"0": 0.9},
}
KEPT_BY_STRANGERS = {
    "nothing": b"",
    "no JSON": b"\x80\x04cposix",
    "a list": b"[1]",
    "deep": b"[" * 100_000,
    "large": b" " * (2 << 20),
    "an unknown hyperparameter": json.dumps({**GOOD, "params": {"os.system": 1}}).encode(),
    "a value out of range": json.dumps({**GOOD, "params": {"lr0": 1e9}}).encode(),
    "no number": json.dumps({**GOOD, "params": {"lr0": float("nan")}}).encode(),
    "no state": json.dumps({**GOOD, "result": {"fitness": 1}}).encode(),
    "no metrics": json.dumps({**GOOD, "result": {**GOOD["result"], "metrics": {}}}).encode(),
    "no finite fitness": json.dumps({**GOOD, "result": {**GOOD["result"], "fitness": float("inf")}}).encode(),
    "scores that are a text": json.dumps({**GOOD, "scores": "abc"}).encode(),
}


@pytest.mark.parametrize("name", KEPT_BY_STRANGERS)
def test_a_kept_result_that_is_none_is_passed_over(name, tmp_path, capfd):
    url, start = study_file.sqlite_url(tmp_path / "evolve.db"), load_hyp(ROOT / "data/hyps/hyp.scratch-low.yaml")
    study = study_file.open_study(url, "evolve", seed=0, warmup=0)
    (tmp_path / "trial7").mkdir()
    (tmp_path / "trial7" / KEPT).write_bytes(KEPT_BY_STRANGERS[name])
    tell_kept(study, tmp_path, start, space=search_space(start, dynamic=False), url=url)
    assert f"{KEPT} is passed over, as it holds no result of --evolve" in capfd.readouterr().err
    assert study.trials == []


def test_a_kept_result_of_another_study_is_told(tiny, trainings):  # noqa: F811
    """As after a database was lost: the number is free."""
    directory = tiny(evolve=1, epochs=3)
    (directory / "trial7").mkdir()
    (directory / "trial7" / KEPT).write_text(json.dumps(GOOD))
    train.run(evolve=1, resume=directory)
    assert [fitness for _, fitness in table(directory)] == ["0.1", "0.9", "0.2"]
