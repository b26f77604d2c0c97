"""The logger for Weights & Biases (--loggers wandb), online or offline as W&B's own settings say. Not for data sets as
W&B artifacts: that is not built."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from utils.errors import InputError
from utils.log import LOGGER
from utils.logged_run import LoggedRun, NewPictures

SERVICE = "wandb"
BOXED_IMAGES = 16  # validation images with boxes that an interval shows at most, as in v6.1
INTERVALS = 10  # how often a training shows them where --bbox_interval is not given
NOT_GIVEN = -1  # of --bbox_interval
SIGNS = ("WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_ENTITY", "WANDB_MODE", "WANDB_NAME", "WANDB_PROJECT")  # of its use


class WandbLogger:
    """Scalars over the epoch, options and hyperparameters, pictures, validation images with boxes, and checkpoints as
    artifacts: best.pt, and those of --save-period. A resumed run goes on under its id.

    Differs from v6.1: only where it is asked for; nothing is asked on the terminal; files lie in the run directory.
    """

    def __init__(self, run: LoggedRun, *, entity: str | None = None, bbox_interval: int = NOT_GIVEN) -> None:
        import wandb

        self._wandb, self._facts = wandb, run
        self._pictures = NewPictures(run.directory)
        self._best = run.directory / "weights" / "best.pt"
        self._has_best = run.resumed and self._best.exists()
        self._boxes = BoxedImages(run.names, interval=image_interval(bbox_interval, run.options))
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or run.group,
            name=os.environ.get("WANDB_NAME") or run.directory.name,
            entity=entity,
            dir=os.environ.get("WANDB_DIR") or str(run.directory),
            job_type="Training",
            config={**run.options, "hyp": dict(run.hyp)},
            id=run.id_at(SERVICE),
            resume="allow" if run.id_at(SERVICE) else None,
            allow_val_change=True,  # of the options that --resume honours
        )
        self._run.define_metric("epoch")
        self._run.define_metric("*", step_metric="epoch")
        run.keep_id(SERVICE, self._run.id)
        where = self._run.url or f"offline; send it with `wandb sync {Path(self._run.dir).parent}`"
        LOGGER.info(f"W&B: run {self._run.id} ({where})")

    def on_train_epoch_end(self, epoch: int, **_: Any) -> None:
        """Decides whether images of the epoch's validation, which follows, are shown with boxes."""
        self._boxes.begin(epoch)

    def on_val_image_end(self, result: Any, **_: Any) -> None:
        """result: a utils.tally.ImageResult."""
        if self._boxes.wanted:
            self._boxes.add(self._wandb.Image, result)

    def on_fit_epoch_end(self, epoch: int, values: Mapping[str, float], **_: Any) -> None:
        """Logs the epoch's values, new pictures and images with boxes, in one step."""
        self._run.log({"epoch": epoch, **values, **self._new_pictures(), **self._boxes.take()})

    def on_model_save(self, epoch: int, file: Path, best: bool, **_: Any) -> None:
        """Uploads the checkpoint that --save-period keeps."""
        self._has_best = self._has_best or best
        period = self._facts.options["save_period"]
        if period > 0 and (epoch + 1) % period == 0:
            self._upload(file.with_name(f"epoch{epoch + 1}.pt"), [f"epoch {epoch + 1}"])

    def on_train_end(self, metrics: Any, **_: Any) -> None:
        """The pictures and figures (a utils.tally.Metrics) of the final validation, and best.pt."""
        if pictures := self._new_pictures():
            self._run.log(pictures)
        if self._has_best:
            figures = ("precision", "recall", "map50", "map")
            self._run.summary.update({f"best/{figure}": getattr(metrics, figure) for figure in figures})
            self._upload(self._best, ["best", "stripped"])

    def teardown(self, **_: Any) -> None:
        """Sends what is left, which can take a while."""
        self._run.finish()

    def _new_pictures(self) -> dict[str, Any]:
        """Name of the panel -> picture. Each has a panel of its own, as W&B shows lists of pictures of several sizes
        wrongly; the kinds are its sections."""
        return {
            f"{kind}/{file.stem}": self._wandb.Image(str(file))
            for kind, files in self._pictures.take().items()
            for file in files
        }

    def _upload(self, file: Path, aliases: list[str]) -> None:
        """Adds a checkpoint as the next version of the run's one artifact, which has v6.1's name."""
        artifact = self._wandb.Artifact(f"run_{self._run.id}_model", type="model")
        artifact.add_file(str(file), name=file.name)
        self._run.log_artifact(artifact, aliases=aliases)


class BoxedImages:
    """The first BOXED_IMAGES images of an epoch's validation with their labels and detections: every `interval` epochs,
    with 0 never."""

    def __init__(self, names: Mapping[int, str], *, interval: int) -> None:
        self.wanted = 0  # how many more of this epoch
        self._names = dict(names)
        self._interval = interval
        self._images: dict[str, Any] = {}

    def begin(self, epoch: int) -> None:
        """To be called before an epoch's validation: decides how many of its images are wanted."""
        self.wanted = BOXED_IMAGES if self._interval and (epoch + 1) % self._interval == 0 else 0

    def add(self, image_class: type, result: Any) -> None:
        """Keeps one validated image. image_class: wandb.Image."""
        self.wanted -= 1
        boxes = {
            "predictions": self._layer([box_entry(row[:4], row[5], self._names, row[4]) for row in result.detections]),
            "ground_truth": self._layer([box_entry(row[1:5], row[0], self._names) for row in result.labels]),
        }
        self._images[f"Bounding Box Debugger/{Path(result.path).stem}"] = image_class(result.path, boxes=boxes)

    def take(self) -> dict[str, Any]:
        """The epoch's images by the name of their panel, in v6.1's section. None are kept until the next begin(): the
        validation of best.pt after the last epoch is not shown."""
        images, self._images, self.wanted = self._images, {}, 0
        return images

    def _layer(self, entries: list[dict[str, Any]]) -> dict[str, Any]:
        """Boxes that can be shown and hidden together at W&B."""
        return {"box_data": entries, "class_labels": self._names}


def box_entry(xyxy: Tensor, cls: Tensor, names: Mapping[int, str], confidence: Tensor | None = None) -> dict[str, Any]:
    """A box [x1, y1, x2, y2] in pixels in the form that W&B draws; confidence: of a detection, None for a label."""
    name = names[int(cls)]
    entry = {
        "position": dict(zip(("minX", "minY", "maxX", "maxY"), xyxy.tolist(), strict=True)),
        "class_id": int(cls),
        "box_caption": name if confidence is None else f"{name} {float(confidence):.2f}",
        "domain": "pixel",
    }
    return entry if confidence is None else {**entry, "scores": {"confidence": float(confidence)}}


def image_interval(bbox_interval: int, options: Mapping[str, Any]) -> int:
    """Epochs from one showing of boxes to the next; 0 for never, as with --noplots."""
    if options["noplots"]:
        return 0
    return max(options["epochs"] // INTERVALS, 1) if bbox_interval == NOT_GIVEN else bbox_interval


def is_set_up() -> bool:
    """Whether this shell is set up for W&B: by a variable that says where runs go, and none that switches it off."""
    return any(os.environ.get(name) for name in SIGNS) and os.environ.get("WANDB_MODE") != "disabled"


def check_login() -> None:
    """Raises InputError where W&B would ask on the terminal who you are."""
    import wandb

    if wandb.setup().settings.mode not in ("offline", "disabled") and not wandb.login(prompt=False, verify=False):
        raise InputError(
            "--loggers wandb: W&B is installed but not logged in; run `wandb login`, or set WANDB_MODE=offline to keep "
            "the run on this machine and send it later with `wandb sync`"
        )
