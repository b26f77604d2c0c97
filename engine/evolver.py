"""--evolve: trainings one after another, each with other hyperparameters, in a study that can be continued and shared.
Not for how values are drawn (utils/study.py) nor for the ranges (utils/evolution.py)."""

import gc
import shlex
import shutil
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from engine.inputs import flag_of
from engine.trainer import train
from engine.training_epoch import TrainingDiverged
from engine.training_options import check_writable, checked_options, fill_defaults, saved_options
from engine.training_setup import training_data
from models.common import dynamic_layers
from models.weights import read_checkpoint
from models.yolo import DetectionModel
from utils.autobatch import AUTO
from utils.callbacks import Callbacks
from utils.distributed import world_size
from utils.errors import InputError
from utils.evolution import METRICS, Range, best_of, drawn_hyp, search_space, write_best, write_table
from utils.evolution_plots import plot_evolution
from utils.files import atomic_write, increment_path, newest_run
from utils.hyp import Hyp, load_hyp, save_hyp
from utils.kept_results import KeptResult, keep, tell_kept
from utils.log import LOGGER
from utils.metrics import fitness
from utils.plain_yaml import read_yaml
from utils.study import (
    RESULT,
    DatabaseFault,
    agree_on,
    answering,
    draw,
    next_trial,
    open_study,
    put_back,
    readable,
    require_optuna,
    results,
    signs_of_life,
    sqlite_url,
    without_password,
)

if TYPE_CHECKING:
    from optuna import Study, Trial

PROJECT = "runs/evolve"
DATABASE = "evolve.db"
KEPT_ON_RESUME = ("evolve", "device", "workers", "cache")  # honoured beside the study's own options
# What all trials of a study must have in common to be comparable: these options, and the names of these files, which
# other machines may have elsewhere.
SHARED = (
    "epochs", "batch_size", "imgsz", "rect", "noval", "noautoanchor", "image_weights", "multi_scale", "single_cls",
    "optimizer", "quad", "cos_lr", "label_smoothing", "patience", "freeze", "close_mosaic",
)  # fmt: skip
FILES = ("data", "cfg", "weights")
# Options of the search that a training with its result does without.
OF_THE_SEARCH = (
    "evolve", "evolve_storage", "resume", "project", "name", "exist_ok", "hyp", "nosave", "noval", "noplots",
    "save_period",
)  # fmt: skip
NEGATED = ("amp", "deterministic")  # on unless --no-...; other switches are off unless they are given


@dataclass(frozen=True)
class Search:
    """What all trials of one call have in common."""

    opt: Namespace
    directory: Path
    start: Hyp  # the hyperparameters given, with which the first trial trains
    space: Mapping[str, Range]
    callbacks: Callbacks  # the caller's listeners, which hear every trial
    storage: str  # --evolve-storage without its password; empty: an SQLite file in the directory

    @property
    def url(self) -> str:
        """Of the study's database, with its password."""
        return self.opt.evolve_storage or sqlite_url(self.directory / DATABASE)


def evolve(opt: Namespace, callbacks: Callbacks | None = None) -> Hyp | None:
    """Makes `opt.evolve` trials in a new study, or in that of the directory which --resume or --exist-ok names. Returns
    the best hyperparameters of the whole study; None where no trial got to its end.

    Differs from v6.1: TPE and pruning by the median instead of mutations of the best; a trial is validated at each
    epoch and judged by its best one; it leaves no weights behind; the study can be shared by several processes.
    Raises InputError where input cannot be used, with that of a trial that ends so, and where the study's database
    fails: a trial that has ended by then is kept in its directory, and told to the study by the next call.
    """
    require_optuna()
    if world_size() > 1:
        raise InputError(
            "--evolve trains one model at a time in one process; start it once per GPU instead, with the same --name "
            "and --exist-ok"
        )
    search = prepare_search(opt, callbacks or Callbacks())
    study = begin_study(search)
    try:
        with answering(search.url):
            for _ in range(search.opt.evolve):
                make_trial(search, study)
                write_results(search, study)
            return tell_best(search, study)
    except KeyboardInterrupt:
        LOGGER.info(f"\nThe study is kept; to go on with it: {resume_command(search)}")
        raise
    except DatabaseFault as fault:
        raise InputError(f"{fault}; to go on once that is mended: {resume_command(search)}") from fault


# -------------------------------------------------------------------------------------------------------------- options
def prepare_search(opt: Namespace, callbacks: Callbacks) -> Search:
    """Options -> what the trials share, with the study's directory. Raises InputError before anything is written."""
    opt = checked_options(opt)
    if opt.batch_size == AUTO:
        raise InputError(f"--evolve: each trial would choose its own batch with --batch-size {AUTO}; give a number")
    if opt.resume:
        opt = resumed_options(opt)
        directory = Path(opt.save_dir)
    else:
        opt.project = opt.project if "project" in opt.given else PROJECT
        check_writable(Path(opt.project) / opt.name, "--project")
        directory = None
    storage = opt.evolve_storage and without_password(opt.evolve_storage)
    opt = fill_defaults(opt, training_data(opt))
    start = load_hyp(opt.hyp)
    space = search_space(start, dynamic=is_dynamic(opt))
    directory = directory or increment_path(Path(opt.project) / opt.name, opt.exist_ok, mkdir=True)
    return Search(opt, directory, start, space, callbacks, storage)


def resumed_options(opt: Namespace) -> Namespace:
    """With --resume the options of the study that goes on. Raises InputError where there is none."""
    directory = _resumed_directory(opt.resume)
    saved = _saved_options(opt, directory / "opt.yaml")
    kept = {name: getattr(opt, name) for name in opt.given if name in KEPT_ON_RESUME}
    ignored = sorted(set(opt.given) - {*KEPT_ON_RESUME, "evolve_storage", "resume", "exist_ok"})
    if ignored:
        LOGGER.warning(f"--resume takes these from {directory}, what was given is ignored: {', '.join(ignored)}")
    storage = opt.evolve_storage and without_password(opt.evolve_storage)
    if storage != saved["evolve_storage"]:
        lies_in = saved["evolve_storage"] or directory / DATABASE
        raise InputError(f"--resume: the study lies in {lies_in}, got --evolve-storage {storage!r}")
    if not storage:
        _check_there(directory / DATABASE)
    hyp = str((directory / "hyp.yaml").resolve())
    own = {"hyp": hyp, "save_dir": str(directory), "evolve_storage": opt.evolve_storage}
    return Namespace(**{**saved, **kept, **own, "given": opt.given, "resume": opt.resume})


def _saved_options(opt: Namespace, file: Path) -> dict[str, Any]:
    try:
        return saved_options(opt, read_yaml(file), file)
    except (OSError, yaml.YAMLError) as error:
        raise InputError(f"--evolve --resume: {file} cannot be read: {error}") from error


def _resumed_directory(resume: str | bool) -> Path:
    found = newest_run("runs", DATABASE) if isinstance(resume, bool) else Path(resume)
    if found is None:
        raise InputError(f"--evolve --resume: no {DATABASE} was found below runs/; give a directory")
    directory = found.parent if found.is_file() or found.name == DATABASE else found
    if not (directory / "opt.yaml").is_file() or (directory / "weights").exists():
        raise InputError(f"--evolve --resume: the directory of an earlier --evolve was expected, got {found}")
    return directory


def _check_there(file: Path) -> None:
    """Raises InputError where a study's SQLite file is gone: a new one would begin, over the tables of the old one."""
    if not file.is_file() or not file.stat().st_size:
        raise InputError(
            f"--evolve --resume: the study's database {file} is gone or empty: put it back from a copy, or search anew "
            "under another --name"
        )


def is_dynamic(opt: Namespace) -> bool:
    """Whether the model has dynamic layers, so that their hyperparameters matter."""
    return bool(dynamic_layers(DetectionModel(opt.cfg or read_checkpoint(opt.weights).yaml)))


def settings(search: Search) -> dict[str, Any]:
    """What processes that share a study must agree on."""
    opt = search.opt
    names = {name: Path(getattr(opt, name)).name for name in FILES}
    return {**names, **{name: getattr(opt, name) for name in SHARED}, **asdict(search.start)}


def train_command(search: Search) -> str:
    """The command line of a training with the options of the search and the best hyperparameters."""
    given = [name for name in search.opt.given if name not in OF_THE_SEARCH]
    words = [word for name in given for word in flag_words(name, getattr(search.opt, name))]
    return shlex.join(["python", "train.py", *words, "--hyp", str(search.directory / "hyp_evolve.yaml")])


def flag_words(name: str, value: Any) -> list[str]:
    """How the command line gives an option: cos_lr=True -> --cos-lr, amp=False -> --no-amp, freeze=[1, 2] -> --freeze 1
    2. Nothing for what a command line leaves out: None, or a switch that is off."""
    flag = flag_of(name)
    if value is None or (value is False and name not in NEGATED):
        return []
    if isinstance(value, bool):
        return [flag if value else flag.replace("--", "--no-", 1)]
    return [flag, *map(str, value if isinstance(value, list) else [value])]


def resume_command(search: Search) -> str:
    """The command line that adds trials to the study."""
    words = ["python", "train.py", "--evolve", str(search.opt.evolve), "--resume", str(search.directory)]
    return shlex.join([*words, *(["--evolve-storage", search.storage] if search.storage else [])])


# --------------------------------------------------------------------------------------------------------------- trials
def begin_study(search: Search) -> "Study":
    """Opens the study; its first trial will be the hyperparameters given. Writes opt.yaml and hyp.yaml where they are
    new."""
    opt, directory, url = search.opt, search.directory, search.url
    study = open_study(url, opt.name if opt.evolve_storage else "evolve", seed=opt.seed, warmup=opt.epochs // 3)
    with readable(url):
        agree_on(study, settings(search), str(directory))
        tell_kept(study, directory, search.start, space=search.space, url=url)
        finished = results(study, search.start)
        study.enqueue_trial({name: getattr(search.start, name) for name in search.space}, skip_if_exists=True)
    if not (directory / "opt.yaml").exists():
        save_hyp(search.start, directory / "hyp.yaml")
        options = {**vars(opt), "evolve_storage": search.storage}
        with atomic_write(directory / "opt.yaml") as stream:
            stream.write(yaml.safe_dump(options, sort_keys=False).encode())
    LOGGER.info(
        f"Study in {directory}: {len(finished)} trials so far, {opt.evolve} more; varied are {', '.join(search.space)}"
    )
    return study


def make_trial(search: Search, study: "Study") -> None:
    """One trial: asked for, trained and told. Raises DatabaseFault where the study's database fails; its result is kept
    then. Interrupted, or with input that cannot be used, it is put back into the queue."""
    with readable(search.url):
        trial = next_trial(study)
    directory = search.directory / f"trial{trial.number}"
    with signs_of_life(trial, search.url):
        try:
            watch = run_trial(search, trial, directory)
        except DatabaseFault:
            raise
        except BaseException as error:
            give_up(search, study, trial, again=isinstance(error, KeyboardInterrupt | InputError))
            raise
    try:
        tell_result(study, trial, watch)
    except DatabaseFault as fault:
        told = f"trial {trial.number} has ended with fitness {watch.fitness:.4g}"
        if keep(KeptResult(trial.number, dict(trial.params), watch.result(), watch.scores), directory):
            raise DatabaseFault(f"{fault}; {told}, which is kept in {directory} and told to the study then") from fault
        raise DatabaseFault(f"{fault}; {told}, its figures stand in {directory / 'results.csv'} alone") from fault
    gc.collect()


def run_trial(search: Search, trial: "Trial", directory: Path) -> "TrialWatch":
    """One training in that directory; what it reached."""
    directory.mkdir(exist_ok=True)
    with readable(search.url):
        hyp = drawn_hyp(search.start, draw(trial, search.space))
    save_hyp(hyp, directory / "hyp.yaml")
    LOGGER.info(f"\nTrial {trial.number} in {directory}")
    watch = TrialWatch(trial, search.opt.epochs, search.callbacks.for_one_run(), search.url)
    try:
        train(trial_options(search, directory), watch.callbacks)
    except TrainingDiverged as error:
        LOGGER.warning(f"Trial {trial.number} counts as fitness 0: {error}")
        watch.state, watch.fitness = "diverged", 0.0
    finally:
        shutil.rmtree(directory / "weights", ignore_errors=True)
    return watch


def tell_result(study: "Study", trial: "Trial", watch: "TrialWatch") -> None:
    """Tells the study how a trial ended. Raises DatabaseFault."""
    from optuna.trial import TrialState

    with answering(watch.url):
        watch.report()
        trial.set_user_attr(RESULT, watch.result())
        if watch.state == "pruned":
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, watch.fitness)


def give_up(search: Search, study: "Study", trial: "Trial", *, again: bool) -> None:
    """Tells the study that a trial failed, and queues it `again`; a database that does not answer is only told."""
    from optuna.trial import TrialState

    try:
        with answering(search.url):
            if again:
                put_back(study, study.trials[trial.number])
            study.tell(trial, state=TrialState.FAIL)
    except DatabaseFault as fault:
        LOGGER.warning(f"Trial {trial.number} is not put back: {fault}")


def trial_options(search: Search, directory: Path) -> Namespace:
    """The options of one trial's training, which leaves no more than tables behind."""
    own = {"evolve": None, "evolve_storage": "", "resume": False, "project": str(directory.parent), "exist_ok": True}
    own |= {"name": directory.name, "hyp": str(directory / "hyp.yaml"), "nosave": True, "noplots": True}
    return Namespace(**{**vars(search.opt), **own, "save_period": -1, "given": []})


class TrialWatch:
    """Listens to a trial's training: keeps the figures of its best epoch and ends it where the study asks for that."""

    def __init__(self, trial: "Trial", epochs: int, callbacks: Callbacks, url: str) -> None:
        self.trial, self.last, self.url = trial, epochs - 1, url
        self.scores: dict[int, float] = {}  # of each epoch that was validated
        self.reported: set[int] = set()  # epochs of which the study has heard
        self.is_heard = True  # False once the study's database has failed: asked again at the end alone
        self.state, self.epochs, self.fitness = "complete", 0, -1.0
        self.metrics = dict.fromkeys(METRICS, 0.0)
        self.callbacks = callbacks
        self.callbacks.register_all(self)

    def on_fit_epoch_end(self, epoch: int, values: Mapping[str, float], **_: Any) -> None:
        """Reports the epoch's fitness to the study. One whose database fails does not end the training."""
        metrics = {name: float(values[name]) for name in METRICS}
        score = fitness(*(metrics[name] for name in METRICS[:4]))
        self.epochs = epoch + 1
        self.scores[epoch] = score
        if score > self.fitness:
            self.fitness, self.metrics = score, metrics
        if not self.is_heard:
            return
        try:
            with answering(self.url):
                self.report()
                should_end = epoch < self.last and self.trial.should_prune()
        except DatabaseFault as fault:
            self.is_heard = False
            LOGGER.warning(f"Trial {self.trial.number} goes on and is not pruned any more: {fault}")
            return
        if should_end:
            self.state, self.callbacks.stop_training = "pruned", True
            LOGGER.info(f"Trial {self.trial.number} is pruned: its best epoch is worse than those of most trials")

    def report(self) -> None:
        """Reports what the study has not heard yet."""
        for epoch in sorted(self.scores.keys() - self.reported):
            self.trial.report(self.scores[epoch], epoch)
            self.reported.add(epoch)

    def result(self) -> dict[str, Any]:
        """What the study keeps of it: the arguments of TrialResult, without its number and hyperparameters."""
        return {"state": self.state, "epochs": self.epochs, "fitness": self.fitness, "metrics": self.metrics}


# -------------------------------------------------------------------------------------------------------------- results
def write_results(search: Search, study: "Study") -> None:
    """Writes evolve.csv, hyp_evolve.yaml and evolve.png of the whole study, again where another process has finished a
    trial in between."""
    trials, written = results(study, search.start), None
    while len(trials) != written:
        write_table(trials, search.directory / "evolve.csv")
        if best := best_of(trials):
            write_best(best, search.directory / "hyp_evolve.yaml", trials=len(trials), command=train_command(search))
        if not search.opt.noplots:
            plot_evolution(trials, search.space, search.directory / "evolve.png")
        trials, written = results(study, search.start), len(trials)


def tell_best(search: Search, study: "Study") -> Hyp | None:
    """Logs what came out and how to go on from it. Returns the best hyperparameters, None where there are none."""
    trials = results(study, search.start)
    best = best_of(trials)
    if best is None:
        LOGGER.info(f"No trial of {search.directory} got to its end yet; to go on: {resume_command(search)}")
        return None
    LOGGER.info(
        f"\nBest of {len(trials)} trials in {search.directory}: trial {best.number}, fitness {best.fitness:.4g}\n"
        f"To train with its hyperparameters: {train_command(search)}\nMore trials: {resume_command(search)}"
    )
    return best.hyp
