"""What loggers know of the training that they record: its options, its new pictures, and the ids by which services such
as W&B know it. Not for what one service needs alone: utils/logger_wandb.py, utils/logger_mlflow.py."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.files import atomic_write

# Kind of picture -> patterns of files in the run directory. The kinds are v6.1's panels at W&B.
PICTURES = {
    "Labels": ("labels*.jpg",),
    "Mosaics": ("train_batch*.jpg",),
    "Validation": ("val_batch*.jpg",),
    "Results": ("*.png",),
}
SERVICES_FILE = "services.json"  # {service: id of the run there}, so that a resumed run goes on there too


@dataclass(frozen=True)
class LoggedRun:
    """One training as its loggers see it.

    Attributes:
        directory: of the run; it exists.
        options: those of train.py, plain values, as in opt.yaml.
        hyp: the hyperparameters, as in hyp.yaml.
        names: of the classes.
        first_epoch: the first one that this process trains.
        resumed: whether an earlier process has begun the run.
    """

    directory: Path
    options: Mapping[str, Any]
    hyp: Mapping[str, Any]
    names: Mapping[int, str]
    first_epoch: int = 0
    resumed: bool = False

    @property
    def group(self) -> str:
        """The project (W&B) or experiment (MLflow) that the run belongs to, as in v6.1: the last part of --project, or
        YOLOv5 where that is not given."""
        project = Path(self.options["project"])
        return "YOLOv5" if project == Path("runs/train") else project.stem

    @property
    def config(self) -> dict[str, Any]:
        """Options and hyperparameters in one mapping, the latter as `hyp/lr0` and so on."""
        return {**self.options, **{f"hyp/{name}": value for name, value in self.hyp.items()}}

    def id_at(self, service: str) -> str | None:
        """The id by which the service knows this run from before it was resumed; None for a new run."""
        return self._ids().get(service) if self.resumed else None

    def keep_id(self, service: str, run_id: str) -> None:
        """Writes into the run directory by which id the service knows this run, for when it is resumed."""
        with atomic_write(self.directory / SERVICES_FILE) as file:
            file.write(json.dumps(self._ids() | {service: run_id}, indent=1).encode())

    def forget_other_runs(self) -> None:
        """For a new run: deletes the ids of an older one in the same directory (--exist-ok)."""
        if not self.resumed:
            (self.directory / SERVICES_FILE).unlink(missing_ok=True)

    def _ids(self) -> dict[str, str]:
        file = self.directory / SERVICES_FILE
        return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


class NewPictures:
    """Finds the pictures that are new in a run directory, or have changed, since this was made."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._known: dict[Path, int] = {}  # file -> time of its last change, ns
        self.take()  # what an earlier run or an earlier part of this one left

    def take(self) -> dict[str, list[Path]]:
        """Kind of picture -> its files that are new or have changed since the last call, sorted; kinds without any are
        left out."""
        new = {
            kind: sorted(file for pattern in patterns for file in self._directory.glob(pattern) if self._changed(file))
            for kind, patterns in PICTURES.items()
        }
        return {kind: files for kind, files in new.items() if files}

    def _changed(self, file: Path) -> bool:
        """Whether it is another file than at the last call."""
        time = file.stat().st_mtime_ns
        changed = self._known.get(file) != time
        self._known[file] = time
        return changed
