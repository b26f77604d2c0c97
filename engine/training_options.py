"""The options of train.py before anything is built: checked, completed from data YAML and weights, or taken from the
checkpoint of the run that --resume goes on with."""

from argparse import Namespace
from pathlib import Path

from models.weights import Checkpoint, read_checkpoint
from utils.data_config import DataConfig
from utils.errors import InputError
from utils.files import newest_run
from utils.log import LOGGER

DEFAULT_CFG = "models/yolov5n_dynamic.yaml"
DEFAULT_HYP = "data/hyps/hyp.scratch-low.yaml"
DEFAULT_IMGSZ = 640  # pixels
KEPT_ON_RESUME = ("epochs", "device", "workers")  # what --resume honours beside the run's own options


def check_options(opt: Namespace) -> None:
    """Raises InputError for values out of range, in the words of the flag."""
    at_least = {"epochs": 1, "batch_size": 1, "workers": 0, "patience": 0, "close_mosaic": 0, "imgsz": 32}
    for name, least in at_least.items():
        value = getattr(opt, name)
        if value is not None and value < least:
            raise InputError(f"--{name.replace('_', '-')}: {least} or more was expected, got {value}")
    if not 0 <= opt.label_smoothing <= 1:
        raise InputError(f"--label-smoothing: 0 to 1 was expected, got {opt.label_smoothing}")
    if opt.image_weights and opt.rect:
        raise InputError("--image-weights draws images at random, --rect needs their order: use one of them")
    if opt.quad and opt.batch_size % 4:
        raise InputError(f"--quad: --batch-size must be a multiple of 4, got {opt.batch_size}")


def fill_defaults(opt: Namespace, data: DataConfig) -> Namespace:
    """A copy in which what was not given is set: model, hyperparameters, image size. Says what the data YAML set."""
    opt = Namespace(**vars(opt))
    if not (opt.cfg or opt.weights):
        opt.cfg = DEFAULT_CFG
        LOGGER.info(f"Neither --cfg nor --weights given: training {opt.cfg} from scratch")
    from_data = {"hyp": data.hyp and str(data.hyp), "imgsz": data.imgsz}
    for name, value in from_data.items():
        if getattr(opt, name) is None and value is not None:
            setattr(opt, name, value)
            LOGGER.info(f"--{name} {value} taken from {data.file}")
    opt.hyp = opt.hyp or DEFAULT_HYP
    opt.imgsz = opt.imgsz or DEFAULT_IMGSZ
    return opt


def resume_options(opt: Namespace) -> tuple[Namespace, Checkpoint | None]:
    """With --resume the options and the checkpoint of the run that goes on, else those given and None."""
    if not opt.resume:
        return opt, None
    file = newest_run("runs", "last.pt") if opt.resume is True else Path(opt.resume)
    if file is None:
        raise InputError("--resume: no last.pt was found below runs/; start a training, or give the file's path")
    checkpoint = read_checkpoint(file)
    if not checkpoint.training:
        raise InputError(f"--resume: {file} holds weights alone; a last.pt of a run of ours was expected")
    options = dict(checkpoint.info["opt"], resume=str(file), save_dir=str(file.resolve().parents[1]))
    kept = {name: getattr(opt, name) for name in opt.given if name in KEPT_ON_RESUME}
    ignored = sorted(set(opt.given) - set(KEPT_ON_RESUME) - {"resume"})
    if ignored:
        LOGGER.warning(f"--resume takes these from {file}, what was given is ignored: {', '.join(ignored)}")
    options.update(kept, given=opt.given)
    done = checkpoint.training["epoch"] + 1
    if done >= options["epochs"]:
        raise InputError(f"--resume: {file} is finished ({done} epochs); --epochs N with more of them extends it")
    LOGGER.info(f"Resuming {file} at epoch {done}")
    return Namespace(**options), checkpoint
