"""Builds what a training works on from the options: data, model, optimizer, loaders, callbacks. Not the loop: that is
trainer.py. Everything that the user gave is checked here, before the run directory is made."""

from argparse import Namespace
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch.utils.data import DataLoader

from engine.inputs import whole_strides
from engine.pictures import TrainingPictures
from engine.training_options import check_writable, checked_options, fill_defaults, resume_options
from engine.validator import Metrics
from models.common import dynamic_layers
from models.spread import spread_kernels
from models.summary import log_summary
from models.weights import Checkpoint, read_checkpoint, transfer_weights
from models.yolo import DetectionModel
from utils.anchors import in_stride_order
from utils.autoanchor import check_anchors, label_sizes
from utils.callbacks import Callbacks
from utils.data_config import DataConfig, load_data_config
from utils.dataloaders import create_dataloader
from utils.ema import ModelEma
from utils.errors import InputError
from utils.files import increment_path
from utils.hyp import OFF, Hyp, load_hyp, save_hyp
from utils.log import LOGGER
from utils.loggers import CsvLogger, TensorBoardLogger
from utils.loss import DetectionLoss
from utils.optim import EarlyStopping, Warmup, annealing_epochs, build_optimizer, lr_lambda, scaled_weight_decay
from utils.torch_utils import amp_dtype, seed_everything, select_device, to_channels_last_

# Of the gradients. It is there for the step that explodes: healthy steps were measured up to 23 when fine-tuning (BCCD)
# and 78 from scratch (digits). v7.0's limit of 10 cuts most of those, and cost 0.012 to 0.035 mAP50 on BCCD (3 seeds).
CLIP_NORM = 100.0


@dataclass
class TrainState:
    """What one training owns. Made by prepare(), changed by the loop alone."""

    opt: Namespace
    run_dir: Path
    data: DataConfig
    hyp: Hyp  # as given: loss_fn has its own, with scaled gains
    device: torch.device
    amp_dtype: torch.dtype | None
    stride: int  # image sides are multiples of it
    model: DetectionModel
    ema: ModelEma
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    loss_fn: DetectionLoss
    schedule: Warmup
    stopper: EarlyStopping
    train_loader: DataLoader
    val_loader: DataLoader
    callbacks: Callbacks
    class_maps: np.ndarray  # (nc,) mAP50-95 of the last validation
    start_epoch: int = 0
    best_fitness: float = -1.0
    last_step: int = -1  # the last step after which the optimizer moved
    temperature: float = 1.0
    resumable: Path | None = None  # the checkpoint that --resume would go on with
    is_best: bool = False
    has_best: bool = False  # whether best.pt is this run's: with --exist-ok an older one may lie there
    metrics: Metrics | None = None  # of the last validation
    clip_norm: float | None = CLIP_NORM

    def accumulated(self, step: int) -> bool:
        """Whether enough batches are gathered for an optimizer step after `step`; counts across epochs."""
        if step - self.last_step < self.schedule.at(step).accumulate:
            return False
        self.last_step = step
        return True

    def pending_gradients(self) -> dict[str, torch.Tensor]:
        """Gradients by parameter name that are gathered, but not stepped with yet."""
        return {name: p.grad.cpu() for name, p in self.model.named_parameters() if p.grad is not None}

    def lasting_hyp(self) -> Hyp:
        """The hyperparameters as a resumed run needs them: with more epochs the temperature must not rise again."""
        return replace(self.hyp, temperature_epochs=annealing_epochs(self.opt.epochs, self.hyp))

    def snapshot(self, epoch: int) -> dict[str, Any]:
        """What a checkpoint after `epoch` holds: the keyword arguments of models.weights.save_checkpoint."""
        options = {key: value for key, value in vars(self.opt).items() if key != "given"}
        return {
            "model": self.model,
            "ema": self.ema,
            "optimizer": self.optimizer,
            "epoch": epoch,
            "best_fitness": self.best_fitness,
            "info": {"opt": options, "hyp": asdict(self.lasting_hyp())},
            "training": {
                "scaler": self.scaler.state_dict(),
                "best_epoch": self.stopper.best_epoch,
                "last_step": self.last_step,
                "gradients": self.pending_gradients(),
                "class_maps": self.class_maps.tolist(),
            },
        }


def prepare(opt: Namespace) -> TrainState:
    """Options -> everything that a training needs, with its run directory. Raises InputError where they don't fit."""
    opt, checkpoint = resume_options(checked_options(opt))
    if checkpoint:
        check_writable(Path(opt.save_dir), "--resume")
    else:
        check_writable(Path(opt.project) / opt.name, "--project")
    data = training_data(opt)
    if checkpoint:
        hyp = load_hyp(checkpoint.info.get("hyp") or Path(opt.save_dir) / "hyp.yaml")
    else:
        opt = fill_defaults(opt, data)
        hyp = replace(load_hyp(opt.hyp), label_smoothing=opt.label_smoothing)
    device = select_device(opt.device, opt.batch_size)
    seed_everything(opt.seed, opt.deterministic)
    model = build_network(opt, data, hyp, checkpoint)
    stride = max(int(model.stride.max()), 32)
    (opt.imgsz,) = whole_strides((opt.imgsz,), stride)
    train_loader, val_loader = build_loaders(opt, data, hyp, stride)
    if not (opt.noautoanchor or checkpoint):
        fit_anchors(model, train_loader, hyp, opt.imgsz)
    freeze(model, opt.freeze)
    state = assemble(opt, data, hyp, to_channels_last_(model.to(device)), (train_loader, val_loader))
    if checkpoint:
        restore(state, checkpoint)
    begin_run(state, resumed=checkpoint is not None)
    return state


def training_data(opt: Namespace) -> DataConfig:
    """The data YAML; with --single-cls its classes become one."""
    data = load_data_config(opt.data)
    for split in ("train", "val"):
        if not getattr(data, split):
            raise InputError(f"{data.file}: key `{split}` is needed for a training (a directory or a list file)")
    if opt.single_cls and data.nc > 1:
        return replace(data, nc=1, names={0: "item"})
    return data


def build_network(opt: Namespace, data: DataConfig, hyp: Hyp, checkpoint: Checkpoint | None) -> DetectionModel:
    """The model of --cfg or of the weights for the data's classes, with all weights that match taken over, and
    static kernels spread over the kernels of dynamic layers."""
    if checkpoint:
        model = DetectionModel(checkpoint.yaml, names=checkpoint.names)
        log_summary(model, name=Path(opt.cfg or opt.weights).stem)
        return model
    start = read_checkpoint(opt.weights) if opt.weights else None
    anchors = round(hyp.anchors) if hyp.anchors else None
    model = DetectionModel(opt.cfg or start.yaml, nc=data.nc, anchors=anchors, names=data.names)
    log_summary(model, name=Path(opt.cfg or opt.weights).stem)
    if start:
        if hyp.kernel_noise != OFF:
            rng = np.random.default_rng(opt.seed)
            start = replace(start, state=spread_kernels(model, start.state, noise=hyp.kernel_noise, rng=rng))
        transfer_weights(model, start, exclude=("anchor",) if opt.cfg or anchors else ())
    return model


def build_loaders(opt: Namespace, data: DataConfig, hyp: Hyp, stride: int) -> tuple[DataLoader, DataLoader]:
    """Loaders of the training and the validation pictures."""
    common = {"imgsz": opt.imgsz, "stride": stride, "nc": data.nc, "single_cls": opt.single_cls, "seed": opt.seed}
    train_loader = create_dataloader(
        data.train,
        batch_size=opt.batch_size,
        hyp=hyp,
        augment=True,
        rect=opt.rect,
        cache=opt.cache,
        quad=opt.quad,
        shuffle=not opt.rect,
        workers=opt.workers,
        mosaic_until=opt.epochs - opt.close_mosaic if opt.close_mosaic else None,
        prefix="train: ",
        **common,
    )
    val_loader = create_dataloader(
        data.val,
        batch_size=opt.batch_size * 2,
        rect=True,
        pad=0.5,
        cache=None if opt.noval else opt.cache,
        workers=opt.workers,
        prefix="val: ",
        **common,
    )
    return train_loader, val_loader


def fit_anchors(model: DetectionModel, loader: DataLoader, hyp: Hyp, imgsz: int) -> None:
    """AutoAnchor: other anchors, in place, where those of the model fit the training labels badly."""
    index, detect = loader.dataset.index, model.detect
    wh = label_sizes(index.sizes_wh, index.rows, index.offsets, imgsz=imgsz)
    cells = detect.stride.view(-1, 1, 1)
    old_px = (detect.anchors * cells).numpy()  # (nl, na, 2)
    new_px = check_anchors(wh, old_px, imgsz=imgsz, thr=hyp.anchor_t, rng=np.random.default_rng(0))
    if new_px is not old_px:
        detect.anchors.copy_(in_stride_order(torch.from_numpy(new_px), detect.stride) / cells)


def freeze(model: DetectionModel, layers: list[int]) -> None:
    """--freeze: [N] stops the first N layers from training, a longer list those layers. Raises InputError for numbers
    that the model does not have, and where nothing is left to train."""
    given, last = " ".join(map(str, layers)), len(model.model) - (len(layers) > 1)
    if not all(0 <= number <= last for number in layers):
        what = "layers are numbered" if len(layers) > 1 else "as many layers can be frozen:"
        raise InputError(f"--freeze {given}: {what} 0 to {last} in this model")
    frozen = range(layers[0]) if len(layers) == 1 else layers
    prefixes = tuple(f"model.{number}." for number in frozen)
    for name, parameter in model.named_parameters():
        if name.startswith(prefixes):
            parameter.requires_grad = False
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError(f"--freeze {given} leaves nothing to train: the model has no more layers")
    if prefixes:
        LOGGER.info(f"Frozen layers: {', '.join(map(str, frozen))}")


def assemble(
    opt: Namespace, data: DataConfig, hyp: Hyp, model: DetectionModel, loaders: tuple[DataLoader, DataLoader]
) -> TrainState:
    """The state of a training that has not begun."""
    device = next(model.parameters()).device
    detect = model.detect
    half = amp_dtype(device) if opt.amp else None
    return TrainState(
        opt=opt,
        run_dir=Path(opt.save_dir) if opt.resume else increment_path(Path(opt.project) / opt.name, opt.exist_ok),
        data=data,
        hyp=hyp,
        device=device,
        amp_dtype=half,
        stride=max(int(detect.stride.max()), 32),
        model=model,
        ema=ModelEma(model),
        optimizer=build_optimizer(opt.optimizer, model, hyp, weight_decay=scaled_weight_decay(hyp, opt.batch_size)),
        scaler=torch.amp.GradScaler(device.type, enabled=half is torch.float16),
        loss_fn=DetectionLoss(
            detect.anchors,
            nc=data.nc,
            hyp=hyp.scaled(nl=detect.nl, nc=data.nc, imgsz=opt.imgsz),
            strides=detect.stride,
        ),
        schedule=Warmup(
            hyp=hyp,
            factor=lr_lambda(opt.epochs, hyp.lrf, opt.cos_lr),
            batches=len(loaders[0]),
            batch_size=opt.batch_size,
        ),
        stopper=EarlyStopping(opt.patience),
        train_loader=loaders[0],
        val_loader=loaders[1],
        callbacks=Callbacks(),
        class_maps=np.zeros(data.nc),
    )


def restore(state: TrainState, checkpoint: Checkpoint) -> None:
    """Puts a stopped training's optimizer, average and counters back."""
    saved: dict[str, Any] = checkpoint.training
    state.model.load_state_dict(saved["model"])
    state.ema.ema.load_state_dict(checkpoint.state)
    state.ema.updates = saved["updates"]
    state.optimizer.load_state_dict(saved["optimizer"])
    state.scaler.load_state_dict(saved["scaler"])
    for name, parameter in state.model.named_parameters():
        if name in saved["gradients"]:
            parameter.grad = saved["gradients"][name].to(parameter)
    state.start_epoch = saved["epoch"] + 1
    state.best_fitness = saved["best_fitness"]
    state.stopper.best_fitness, state.stopper.best_epoch = saved["best_fitness"], saved["best_epoch"]
    state.last_step = saved["last_step"]
    state.class_maps = np.asarray(saved["class_maps"])
    state.resumable = checkpoint.file
    state.has_best = (checkpoint.file.parent / "best.pt").exists()


def begin_run(state: TrainState, *, resumed: bool) -> None:
    """Makes the run directory with opt.yaml and hyp.yaml, and connects the loggers."""
    (state.run_dir / "weights").mkdir(parents=True, exist_ok=True)
    options = {key: value for key, value in vars(state.opt).items() if key != "given"}
    state.opt.save_dir = options["save_dir"] = str(state.run_dir)
    (state.run_dir / "opt.yaml").write_text(yaml.safe_dump(options, sort_keys=False), encoding="utf-8")
    if not resumed:
        save_hyp(state.hyp, state.run_dir / "hyp.yaml")
    listeners = [
        CsvLogger(state.run_dir / "results.csv", resume=resumed),
        TensorBoardLogger(state.run_dir, first_epoch=state.start_epoch),
    ]
    if not state.opt.noplots:
        listeners.append(TrainingPictures(state.run_dir, state.data.names))
    for listener in listeners:
        state.callbacks.register_all(listener)
    state.callbacks.run("on_pretrain_routine_start")
    state.callbacks.run("on_pretrain_routine_end", labels=state.train_loader.dataset.index.rows)
    kind = "bfloat16" if state.amp_dtype is torch.bfloat16 else "float16" if state.amp_dtype else "float32"
    layers = len(dynamic_layers(state.model))
    LOGGER.info(
        f"Image sizes {state.opt.imgsz} train and val, {kind}, {state.train_loader.num_workers} loader workers, "
        f"{layers} dynamic layers\nLogging to {state.run_dir}\n"
        f"Training epochs {state.start_epoch} to {state.opt.epochs - 1} ..."
    )
