"""The logger for MLflow (--loggers mlflow), on a server or in a database on this machine, as MLFLOW_TRACKING_URI says.
Not for MLflow's models and registry."""

import os
import re
import time
from collections.abc import Mapping
from typing import Any

from utils.log import LOGGER
from utils.logged_run import LoggedRun, NewPictures

SERVICE = "mlflow"
CHUNK = 100  # parameters a request, MLflow's limit
SETTINGS = ("opt.yaml", "hyp.yaml")


class MlflowLogger:
    """Options and hyperparameters as parameters, scalars of every epoch as metrics, and as artifacts the run's
    settings, pictures, results.csv and best.pt. A resumed run goes on under its id; one that ends early is marked as
    killed."""

    def __init__(self, run: LoggedRun) -> None:
        from mlflow import MlflowClient

        self._facts = run
        self._client = MlflowClient()
        self._pictures = NewPictures(run.directory)
        self._best = run.directory / "weights" / "best.pt"
        self._has_best = run.resumed and self._best.exists()
        self._status = "KILLED"  # until the training ends
        LOGGER.info(f"MLflow: logging to {without_password(self._client.tracking_uri)}")
        known = run.id_at(SERVICE)
        self._id = known or self._begin()
        if known:
            self._client.update_run(known, status="RUNNING")

    def on_fit_epoch_end(self, epoch: int, values: Mapping[str, float], **_: Any) -> None:
        """The epoch's values in one request, and the pictures that are new."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)  # ms
        metrics = [Metric(metric_name(name), float(value), now, epoch) for name, value in values.items()]
        self._client.log_batch(self._id, metrics=metrics)
        self._add_new_pictures()

    def on_model_save(self, best: bool, **_: Any) -> None:
        """Notes that best.pt comes from this run, not from an older one in the same directory."""
        self._has_best = self._has_best or best

    def on_train_end(self, **_: Any) -> None:
        """The pictures of the final validation, results.csv and best.pt."""
        self._add_new_pictures()
        self._client.log_artifact(self._id, str(self._facts.directory / "results.csv"))
        if self._has_best:
            self._client.log_artifact(self._id, str(self._best), "weights")
        self._status = "FINISHED"

    def teardown(self, **_: Any) -> None:
        """Marks the run as finished or killed."""
        self._client.set_terminated(self._id, self._status)

    def _begin(self) -> str:
        """Makes a new run with its parameters and settings. Returns its id."""
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or self._facts.group
        experiment = self._client.get_experiment_by_name(name)
        experiment_id = experiment.experiment_id if experiment else self._client.create_experiment(name)
        run_name = os.environ.get("MLFLOW_RUN_NAME") or self._facts.directory.name
        run_id = self._client.create_run(experiment_id, run_name=run_name).info.run_id
        self._facts.keep_id(SERVICE, run_id)
        self._log_parameters(run_id)
        for file in SETTINGS:
            self._client.log_artifact(run_id, str(self._facts.directory / file))
        return run_id

    def _log_parameters(self, run_id: str) -> None:
        from mlflow.entities import Param

        params = [Param(name, str(value)) for name, value in self._facts.config.items()]
        for start in range(0, len(params), CHUNK):
            self._client.log_batch(run_id, params=params[start : start + CHUNK])

    def _add_new_pictures(self) -> None:
        for kind, files in self._pictures.take().items():
            for file in files:
                self._client.log_artifact(self._id, str(file), kind)


def without_password(uri: str) -> str:
    """The address as it may stand in a log: without user and password."""
    return re.sub(r"(?<=://)[^/@]*@", "", uri)


def metric_name(name: str) -> str:
    """The metric's name as MLflow takes it on every system: `metrics/mAP_0.5:0.95` becomes `metrics/mAP_0.5-0.95`."""
    return name.replace(":", "-")
