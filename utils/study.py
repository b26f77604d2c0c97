"""The study of a search for hyperparameters: a database of trials that a process can come back to and that several can
share, and the optuna objects around it. Not for what is searched, nor for training."""

import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.errors import InputError
from utils.evolution import METRICS, Range, TrialResult, drawn_hyp
from utils.hyp import Hyp
from utils.log import LOGGER

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial

HEARTBEAT_S = 10  # between two signs of life of a running trial
GRACE_S = 120  # without one, after which its process is taken for dead
LOCKED_S = 60  # that a process waits for another one's write to SQLite
LARGEST_STUDY = 128 << 20  # bytes of an SQLite file that are in use; 1000 trials take 10 MB
OPENING_PAUSES_S = (0.3, 0.6, 1.2, 0)  # before it is tried again: of processes that make one at once, one succeeds
STARTUP_TRIALS = 10  # drawn at random before the sampler learns from them
UNPRUNED_TRIALS = 5  # that must be complete before one is pruned
RESULT = "result"  # the attribute of a trial that holds what it reached
UNREADABLE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError, AssertionError)
LONGEST_REASON = 300  # characters
SETTINGS = "settings"  # the attribute of a study that holds what all its trials share


def require_optuna() -> None:
    """Raises InputError where optuna is not installed; silences its log, as ours tells of each trial."""
    try:
        import optuna
    except ImportError as error:
        raise InputError(
            "--evolve needs optuna, which is not installed: pip install -r requirements-evolve.txt"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def sqlite_url(file: Path) -> str:
    """The database URL of an SQLite file."""
    import sqlalchemy

    return sqlalchemy.URL.create("sqlite", database=str(file.resolve())).render_as_string()


def without_password(url: str) -> str:
    """The database URL as it may be written down. Raises InputError where it is none."""
    import sqlalchemy

    try:
        return sqlalchemy.make_url(url).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError as error:
        raise InputError(
            f"--evolve-storage: a database URL such as postgresql://user@host/database was expected, got {url!r}"
        ) from error


def open_study(url: str, name: str, *, seed: int, warmup: int) -> "Study":
    """The study of that name in the database, made where it is not there; higher values are better. A trial whose
    process has died is put back into the queue by the next trial that starts after GRACE_S. No trial is pruned in its
    first `warmup` epochs. Raises InputError where the database cannot be opened: at once, or, where it stays locked,
    after LOCKED_S."""
    import optuna
    import sqlalchemy

    begun = time.monotonic()
    for seconds in OPENING_PAUSES_S:
        try:
            return optuna.create_study(
                storage=_storage(url),
                study_name=name,
                direction="maximize",
                load_if_exists=True,
                sampler=_sampler(seed),
                pruner=_pruner(warmup),
            )
        except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.OptunaError, ImportError, RuntimeError) as error:
            problem = error
            if time.monotonic() - begun >= LOCKED_S:
                break
            time.sleep(seconds)
        except UNREADABLE as error:
            raise _damaged(url, error) from error
    raise InputError(
        f"the study's database {_shown(url)} cannot be opened: {_reason(url, problem)}; nothing was changed: start "
        "again once that is mended"
    ) from problem


# --------------------------------------------------------------------------------------------- what a database may fail
class DatabaseFault(InputError):
    """The study's database does not answer: locked for too long, not to be written, full, gone."""


@contextmanager
def answering(url: str) -> Iterator[None]:
    """Raises DatabaseFault where the study's database fails inside."""
    import optuna
    import sqlalchemy

    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.OptunaError) as error:
        raise DatabaseFault(f"the study's database {_shown(url)} cannot be used: {_reason(url, error)}") from error


@contextmanager
def readable(url: str) -> Iterator[None]:
    """Raises InputError where what is read of a study inside is not as ours: the database may be a stranger's; and
    DatabaseFault where it does not answer."""
    try:
        with answering(url):
            yield
    except InputError:
        raise
    except UNREADABLE as error:
        raise _damaged(url, error) from error


def _damaged(url: str, error: Exception) -> InputError:
    told = f"{type(error).__name__}: {_line(error)}"
    return InputError(f"the study in {_shown(url)} is damaged or none of --evolve: {told}")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:LONGEST_REASON]


def _reason(url: str, error: Exception) -> str:
    """What the driver said, without the words and the SQL that optuna and SQLAlchemy put around it."""
    inner = getattr(error, "orig", None) or getattr(error.__cause__, "orig", None) or error
    told, file = _line(inner), _file_of(url)
    if file and not file.exists():
        return f"the file is gone ({told})"
    return f"{told} (another process holds it; waited {LOCKED_S} s)" if "is locked" in told else told


def _shown(url: str) -> str:
    """The path of an SQLite file, or the database URL without its password."""
    return str(_file_of(url) or without_password(url))


def _file_of(url: str) -> Path | None:
    """The SQLite file that a database URL names as a plain path; None for other databases."""
    import sqlalchemy

    parsed = sqlalchemy.make_url(url)
    place = parsed.database or ":memory:"
    is_plain = parsed.get_backend_name() == "sqlite" and place != ":memory:" and not place.startswith("file:")
    return Path(place) if is_plain else None


def _storage(url: str) -> "RDBStorage":
    from optuna.exceptions import ExperimentalWarning
    from optuna.storages import RDBStorage

    is_file = url.startswith("sqlite:")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # of the heartbeat
        storage = RDBStorage(
            _existing(url),
            engine_kwargs={"connect_args": {"timeout": LOCKED_S}} if is_file else {"pool_pre_ping": True},
            heartbeat_interval=HEARTBEAT_S,
            grace_period=GRACE_S,
            heartbeat_stale_trial_callback=put_back,
        )
    if is_file:
        _check_size(url, storage)
    return storage


def _existing(url: str) -> str:
    """The URL of an SQLite file that SQLite does not make anew: one that is deleted in mid-search would come back
    empty, and the search with it."""
    import sqlalchemy

    file = _file_of(url)
    if file is None:
        return url
    if not file.exists():
        with suppress(OSError):  # SQLite says why
            file.touch()
    parsed = sqlalchemy.make_url(url).set(database=file.resolve().as_uri())
    return parsed.update_query_dict({"mode": "rw", "uri": "true"}).render_as_string(hide_password=False)


def _check_size(url: str, storage: "RDBStorage") -> None:
    """Raises InputError where an SQLite file holds more than LARGEST_STUDY: all of it would be read into memory."""
    import sqlalchemy

    with storage.engine.connect() as connection:
        pages, free, size = (
            connection.execute(sqlalchemy.text(f"PRAGMA {name}")).scalar_one()
            for name in ("page_count", "freelist_count", "page_size")
        )
    if (pages - free) * size > LARGEST_STUDY:
        raise InputError(
            f"the study's database {_shown(url)}: expected at most {LARGEST_STUDY >> 20} MB, got "
            f"{(pages - free) * size >> 20} MB"
        )


def _sampler(seed: int) -> "BaseSampler":
    """TPE (Bergstra et al., NeurIPS 2011) whose draws depend on seed, trial number and the trials before it alone, so
    that processes that share a study, and one that comes back to it, do not draw the same again."""
    from optuna.samplers import BaseSampler, TPESampler

    class SeededByTrial(BaseSampler):
        def before_trial(self, study: "Study", trial: "FrozenTrial") -> None:
            (drawn,) = np.random.SeedSequence((seed, trial.number)).generate_state(1)
            self._tpe = TPESampler(
                n_startup_trials=STARTUP_TRIALS, multivariate=True, constant_liar=True, seed=int(drawn)
            )

        def infer_relative_search_space(self, study: "Study", trial: "FrozenTrial") -> dict[str, Any]:
            return self._tpe.infer_relative_search_space(study, trial)

        def sample_relative(self, study: "Study", trial: "FrozenTrial", space: dict[str, Any]) -> dict[str, Any]:
            return self._tpe.sample_relative(study, trial, space)

        def sample_independent(self, study: "Study", trial: "FrozenTrial", name: str, distribution: Any) -> Any:
            return self._tpe.sample_independent(study, trial, name, distribution)

    return SeededByTrial()


def _pruner(warmup: int) -> "BasePruner":
    """Ends a trial whose best epoch so far is worse than the median of the complete trials at the same epoch."""
    from optuna.pruners import MedianPruner

    return MedianPruner(n_startup_trials=UNPRUNED_TRIALS, n_warmup_steps=warmup)


def agree_on(study: "Study", settings: Mapping[str, Any], where: str) -> None:
    """Notes down what all trials of a study share, where that is new. Raises InputError where the study was begun with
    other settings: its trials could not be compared."""
    if study.direction.name != "MAXIMIZE":
        raise InputError(
            f"the study in {where} looks for the lowest value: it is none of --evolve; give another --name"
        )
    known = study.user_attrs.get(SETTINGS)
    if known is None:
        study.set_user_attr(SETTINGS, dict(settings))
        return
    other = [f"{key}: {known[key]!r}, now {settings[key]!r}" for key in known if settings.get(key) != known[key]]
    if other:
        raise InputError(
            f"the study in {where} was begun with other settings ({'; '.join(other)}); to go on with it: --evolve "
            "--resume and its directory; for a new search: another --name"
        )


def next_trial(study: "Study") -> "Trial":
    """A new trial of this process, after those of processes that have died were put back into the queue."""
    from optuna.exceptions import ExperimentalWarning
    from optuna.storages import fail_stale_trials

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.filterwarnings("ignore", "Heartbeat of storage")  # signs_of_life gives it
        fail_stale_trials(study)
        study.set_user_attr(SETTINGS, study.user_attrs[SETTINGS])  # fails after LOCKED_S; ask() tries six times
        return study.ask()


@contextmanager
def signs_of_life(trial: "Trial", url: str) -> Iterator[None]:
    """Gives one every HEARTBEAT_S while the block runs. One that the database does not take is told once and costs
    nothing but, after GRACE_S, a repetition by another process. Raises DatabaseFault where the first is not taken."""
    storage: Any = trial.storage  # an RDBStorage behind optuna's cache
    ended = threading.Event()
    with answering(url):
        trial_id = storage.get_trial_id_from_study_id_trial_number(
            storage.get_study_id_from_name(trial.study.study_name), trial.number
        )
        storage.record_heartbeat(trial_id)

    def beat() -> None:
        told = False
        while not ended.wait(HEARTBEAT_S):
            try:
                with answering(url):
                    storage.record_heartbeat(trial_id)
            except DatabaseFault as fault:
                if not told:
                    LOGGER.warning(f"Trial {trial.number} goes on without signs of life in the study: {fault}")
                told = True

    # a daemon, and not waited for: it may itself wait for a locked database
    threading.Thread(target=beat, name="signs of life", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def draw(trial: "Trial", space: Mapping[str, Range]) -> dict[str, float]:
    """A value for each hyperparameter of the space."""
    return {name: trial.suggest_float(name, range_.low, range_.high, log=range_.log) for name, range_ in space.items()}


def put_back(study: "Study", trial: "FrozenTrial") -> None:
    """Puts the values of a trial that did not get to its end into the queue again."""
    study.enqueue_trial({**trial.system_attrs.get("fixed_params", {}), **trial.params})


def results(study: "Study", start: Hyp) -> list[TrialResult]:
    """The study's finished trials in their order, of all processes."""
    finished = (trial for trial in study.get_trials(deepcopy=False) if RESULT in trial.user_attrs)
    return [result_of(trial, start) for trial in finished if trial.state.is_finished()]


def result_of(trial: "FrozenTrial", start: Hyp) -> TrialResult:
    """What a trial reached. Raises InputError where the database has something else in its place."""
    try:
        told = trial.user_attrs[RESULT]
        return TrialResult(
            number=trial.number,
            state=str(told["state"]),
            epochs=int(told["epochs"]),
            fitness=float(told["fitness"]),
            metrics={name: float(told["metrics"][name]) for name in METRICS},
            hyp=drawn_hyp(start, trial.params),
        )
    except UNREADABLE as error:
        raise InputError(f"the study's trial {trial.number} holds no result of --evolve: {_line(error)}") from error
