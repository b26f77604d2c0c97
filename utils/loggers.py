"""Which loggers record a training. Each is a class whose methods bear the names of hooks (utils/callbacks.py), in a
file of its own; the trainer never asks which are on."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

from utils.errors import InputError
from utils.flags import did_you_mean
from utils.log import LOGGER
from utils.logged_run import LoggedRun
from utils.logger_csv import CsvLogger
from utils.logger_mlflow import MlflowLogger
from utils.logger_tensorboard import TensorBoardLogger
from utils.logger_wandb import NOT_GIVEN, WandbLogger, check_login, is_set_up
from utils.surviving import Guarded


@dataclass(frozen=True)
class Choice:
    """A logger that --loggers can name.

    Attributes:
        title: how messages call it.
        make: makes it from a LoggedRun.
        package: what it needs to import.
        requirements: the file that installs that.
        check: raises InputError where it could not start for another reason.
    """

    title: str
    make: Callable[..., object]
    package: str
    requirements: str
    check: Callable[[], None] | None = None


def _tensorboard(run: LoggedRun) -> TensorBoardLogger:
    return TensorBoardLogger(run.directory, first_epoch=run.first_epoch)


LOGGERS = {
    "tensorboard": Choice("TensorBoard", _tensorboard, "tensorboard", "requirements.txt"),
    "wandb": Choice("W&B", WandbLogger, "wandb", "requirements-wandb.txt", check_login),
    "mlflow": Choice("MLflow", MlflowLogger, "mlflow", "requirements-mlflow.txt"),
}


def check_loggers(names: Iterable[str], *, entity: str | None = None, bbox_interval: int = NOT_GIVEN) -> None:
    """Raises InputError, in the words of the flags, for what would keep a chosen logger from starting."""
    if not isinstance(names, (list, tuple)):
        raise InputError(f"--loggers: a list of names was expected, got {names!r}")
    if "wandb" not in names and (entity or bbox_interval != NOT_GIVEN):
        raise InputError("--entity and --bbox_interval are for W&B: add --loggers wandb")
    for name in names:
        if name not in LOGGERS:
            meant = did_you_mean([str(name).lower()], {known: known for known in LOGGERS})
            raise InputError(f"--loggers: {', '.join(LOGGERS)} are known, got {name!r}{meant}")
        choice = LOGGERS[name]
        if not installed(choice.package):
            raise InputError(
                f"--loggers {name}: the package {choice.package} is not installed; "
                f"`pip install -r {choice.requirements}` does that"
            )
        if choice.check:
            choice.check()


def chosen_loggers(
    names: Iterable[str], run: LoggedRun, *, entity: str | None = None, bbox_interval: int = NOT_GIVEN
) -> list[Guarded]:
    """The listeners that record this run: results.csv always, and those named. One that fails is told and dropped. What
    draws the run's pictures has to be registered before them."""
    run.forget_other_runs()
    if "wandb" not in names and is_set_up() and installed("wandb"):
        LOGGER.info("W&B is set up here, but not asked for: --loggers tensorboard wandb logs to it, as v6.1 would have")
    makers: dict[str, Callable[[], object]] = {
        "results.csv": partial(CsvLogger, run.directory / "results.csv", resume=run.resumed)
    }
    for name in names:
        options = {"entity": entity, "bbox_interval": bbox_interval} if name == "wandb" else {}
        makers[LOGGERS[name].title] = partial(LOGGERS[name].make, run, **options)
    return [Guarded(title, make) for title, make in makers.items()]


def installed(package: str) -> bool:
    """Whether it could be imported. A mere folder of that name in the working directory (wandb makes one for its own
    files) does not count."""
    spec = find_spec(package)
    return spec is not None and spec.origin is not None
