"""Builds what a training works on from the options: data, model, optimizer, loaders, callbacks. Not the loop, which is
trainer.py, nor the way back from a checkpoint, which is training_state.py. Everything that the user gave is checked
here, before the run directory is made."""

import math
import warnings
from argparse import Namespace
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from engine.inputs import whole_strides
from engine.pictures import TrainingPictures
from engine.training_options import check_writable, checked_options, fill_defaults, resume_options
from engine.training_state import Progress, TrainState
from models.common import dynamic_layers
from models.spread import spread_kernels
from models.summary import log_summary
from models.weights import Checkpoint, read_checkpoint, transfer_weights
from models.yolo import DetectionModel
from utils.anchors import in_stride_order
from utils.autoanchor import check_anchors, label_sizes
from utils.autobatch import AUTO, auto_batch_size
from utils.callbacks import Callbacks
from utils.data_config import DataConfig, load_data_config, need_splits
from utils.dataloaders import Loader, create_dataloader
from utils.distributed import local_rank, main_decides, main_first, rank, world_size
from utils.ema import ModelEma
from utils.errors import InputError
from utils.files import atomic_write, increment_path
from utils.hyp import OFF, Hyp, load_hyp, save_hyp
from utils.log import LOGGER
from utils.logged_run import LoggedRun
from utils.logger_csv import read_results
from utils.loggers import chosen_loggers
from utils.loss import DetectionLoss
from utils.mixed_precision import checked_amp_dtype
from utils.optim import EarlyStopping, Warmup, build_optimizer, lr_lambda, scaled_weight_decay
from utils.torch_utils import seed_everything, select_device, to_channels_last_

FEW_STEPS = 10  # a training of fewer optimizer steps teaches a model next to nothing


def prepare(opt: Namespace, callbacks: Callbacks) -> TrainState:
    """Makes of the options everything that a training needs, with its run directory. Raises InputError, before that
    directory is made, where something given cannot be used."""
    opt, checkpoint = resume_options(checked_options(opt))
    check_run_directory(opt, resumed=checkpoint is not None)
    with main_first():  # it may make the data
        data = training_data(opt)
    opt, hyp = resumed_run(opt, checkpoint, data) if checkpoint else new_run(opt, data)
    callbacks = callbacks.for_one_run() if rank() == 0 else Callbacks()
    device = training_device(opt)
    seed_everything(opt.seed, opt.deterministic)
    model = to_channels_last_(build_network(opt, data, hyp, checkpoint).to(device))
    amp_dtype = checked_amp_dtype(model) if opt.amp else None
    stride = image_stride(model)
    (opt.imgsz,) = whole_strides((opt.imgsz,), stride)
    if opt.batch_size == AUTO:
        opt.batch_size = main_decides(lambda: fitting_batch(opt, model, amp_dtype)) * world_size()
        callbacks.run("on_params_update", params={"batch_size": opt.batch_size})
    with main_first():  # it writes the cache of labels
        loaders = build_loaders(opt, data, hyp, stride)
    if not (opt.noautoanchor or checkpoint):
        fit_anchors(model, loaders[0], hyp, opt.imgsz)
    freeze(model, opt.freeze)
    state = assemble(opt, data, hyp, model, amp_dtype=amp_dtype, loaders=loaders, callbacks=callbacks)
    if rank() > 0:  # not before the weights are drawn, which must be the same on all ranks
        torch.manual_seed(opt.seed + rank())
    if checkpoint:
        restore(state, checkpoint)
    if rank() == 0:
        begin_run(state, resumed=checkpoint is not None)
    return state


def check_run_directory(opt: Namespace, *, resumed: bool) -> None:
    """Raises InputError where the run's directory cannot be written to, or where the results.csv of a run that goes on
    is none that rows can be added to: not only when the first epoch is trained."""
    if not resumed:
        check_writable(Path(opt.project) / opt.name, "--project")
        return
    check_writable(Path(opt.save_dir), "--resume")
    results = Path(opt.save_dir) / "results.csv"
    try:
        if results.exists():
            read_results(results)
    except (InputError, OSError) as error:
        raise InputError(
            f"--resume: {error}; put the run's own there, or move it away: then a new one begins"
        ) from error


def new_run(opt: Namespace, data: DataConfig) -> tuple[Namespace, Hyp]:
    """Options and hyperparameters of a training that begins. Raises InputError where they cannot be used."""
    opt = fill_defaults(opt, data)
    return opt, replace(load_hyp(opt.hyp), label_smoothing=opt.label_smoothing)


def resumed_run(opt: Namespace, checkpoint: Checkpoint, data: DataConfig) -> tuple[Namespace, Hyp]:
    """Options and hyperparameters of a training that goes on. Raises InputError where the data has more or fewer
    classes than the checkpoint, or where the hyperparameters cannot be used."""
    if data.nc != len(checkpoint.names):
        raise InputError(
            f"--resume: {checkpoint.file} knows {len(checkpoint.names)} classes, but {data.file} has {data.nc}"
        )
    return opt, resumed_hyp(opt, checkpoint)


def resumed_hyp(opt: Namespace, checkpoint: Checkpoint) -> Hyp:
    """The hyperparameters in a run's checkpoint, else those beside it. Raises InputError where they cannot be used."""
    held = checkpoint.info.get("hyp")
    if not held:
        return load_hyp(Path(opt.save_dir) / "hyp.yaml")
    try:
        return load_hyp(held)
    except InputError as error:
        raise InputError(f"--resume: {checkpoint.file}: {error}") from error


def training_device(opt: Namespace) -> torch.device:
    """The device of this process. Raises InputError where the device or the options don't fit the number of
    processes."""
    processes = world_size()
    if opt.batch_size != AUTO and opt.batch_size % processes:
        raise InputError(
            f"--batch-size {opt.batch_size} is the total of {processes} processes: a multiple of that was expected"
        )
    if opt.quad and opt.batch_size != AUTO and opt.batch_size // processes % 4:
        raise InputError(f"--quad: each of the {processes} processes needs a multiple of 4 images in its batch")
    device = select_device(opt.device, process=local_rank() if processes > 1 else None)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if device.type == "mps" and processes > 1:
        raise InputError("--device mps: Apple's GPU trains in one process only; start train.py without the launcher")
    if opt.sync_bn and device.type != "cuda":
        raise InputError("--sync-bn works on GPUs alone: torch's layer takes no CPU tensors")
    return device


def image_stride(model: DetectionModel) -> int:
    """Images are made with sides that are multiples of it, in pixels: the model's largest stride, but 32 at least."""
    return max(int(model.stride.max()), 32)


def fitting_batch(opt: Namespace, model: DetectionModel, amp_dtype: torch.dtype | None) -> int:
    """AutoBatch, --batch-size -1: how many images one process can train on at a time; with --multi-scale, images of the
    largest size that it draws. amp_dtype: the 16-bit type to train in, None for float32."""
    stride = image_stride(model)
    side = math.ceil(1.5 * opt.imgsz / stride) * stride if opt.multi_scale else opt.imgsz
    device = next(model.parameters()).device
    return auto_batch_size(model, imgsz=side, device=device, dtype=amp_dtype, multiple=4 if opt.quad else 1)


def training_data(opt: Namespace) -> DataConfig:
    """The data YAML; with --single-cls its classes become one."""
    data = load_data_config(opt.data)
    for split in ("train", "val"):
        if not getattr(data, split):
            raise InputError(f"{data.file}: key `{split}` is needed for a training (a directory or a list file)")
    need_splits(data, "train", "val")
    if opt.single_cls and data.nc > 1:
        return replace(data, nc=1, names={0: "item"})
    return data


def build_network(opt: Namespace, data: DataConfig, hyp: Hyp, checkpoint: Checkpoint | None) -> DetectionModel:
    """The model of --cfg, else of the weights, for the data's classes. Weights that match are taken over; those of a
    static layer are spread over the kernels of a dynamic one. Of a checkpoint, from which a run is resumed, only the
    architecture is taken here: restore() loads it."""
    if checkpoint:
        model = DetectionModel(checkpoint.yaml, names=checkpoint.names)
        log_summary(model, name=Path(opt.cfg or opt.weights).stem)
        return model
    start = read_checkpoint(opt.weights) if opt.weights else None
    anchors = round(hyp.anchors) if hyp.anchors else None
    described = start.yaml if start and not opt.cfg else opt.cfg
    model = DetectionModel(described, nc=data.nc, anchors=anchors, names=data.names)
    log_summary(model, name=Path(opt.cfg or opt.weights).stem)
    if start:
        if hyp.kernel_noise != OFF:
            rng = np.random.default_rng(opt.seed)
            start = replace(start, state=spread_kernels(model, start.state, noise=hyp.kernel_noise, rng=rng))
        transfer_weights(model, start, exclude=("anchor",) if opt.cfg or anchors else ())
    return model


def build_loaders(opt: Namespace, data: DataConfig, hyp: Hyp, stride: int) -> tuple[Loader, Loader | None]:
    """The loaders of the training and the validation images; the second is None on other ranks than 0, which alone
    validates."""
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
        share=(rank(), world_size()),
        mosaic_until=opt.epochs - opt.close_mosaic if opt.close_mosaic else None,
        prefix="train: ",
        **common,
    )
    if rank() > 0:
        return train_loader, None
    val_loader = create_dataloader(
        data.val,
        batch_size=opt.batch_size // world_size() * 2,  # one process validates
        rect=True,
        pad=0.5,
        cache=None if opt.noval else opt.cache,
        workers=opt.workers,
        prefix="val: ",
        **common,
    )
    return train_loader, val_loader


def fit_anchors(model: DetectionModel, loader: Loader, hyp: Hyp, imgsz: int) -> None:
    """AutoAnchor: other anchors, in place, where those of the model fit the training labels badly."""
    index, detect = loader.dataset.index, model.detect
    wh = label_sizes(index.sizes_wh, index.rows, index.offsets, imgsz=imgsz)
    cells = detect.stride.view(-1, 1, 1)
    old_px = (detect.anchors * cells).cpu().numpy()  # (nl, na, 2)
    new_px = check_anchors(wh, old_px, imgsz=imgsz, thr=hyp.anchor_t, rng=np.random.default_rng(0))
    if new_px is not old_px:
        detect.anchors.copy_(in_stride_order(torch.from_numpy(new_px).to(cells), detect.stride) / cells)


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
    opt: Namespace,
    data: DataConfig,
    hyp: Hyp,
    model: DetectionModel,
    *,
    amp_dtype: torch.dtype | None,
    loaders: tuple[Loader, Loader | None],
    callbacks: Callbacks,
) -> TrainState:
    """The state of a training that has not begun. amp_dtype: the 16-bit type to train in, None for float32."""
    device = next(model.parameters()).device
    detect = model.detect
    if opt.sync_bn and world_size() > 1:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    forward = distributed(model)  # gives all ranks the weights of rank 0, with which the average starts
    return TrainState(
        opt=opt,
        run_dir=Path(opt.save_dir) if opt.resume else main_decides(lambda: free_run_directory(opt)),
        data=data,
        hyp=hyp,
        device=device,
        amp_dtype=amp_dtype,
        stride=image_stride(model),
        model=model,
        forward=forward,
        ema=ModelEma(model),
        optimizer=build_optimizer(opt.optimizer, model, hyp, weight_decay=scaled_weight_decay(hyp, opt.batch_size)),
        scaler=torch.amp.GradScaler(device.type, enabled=amp_dtype is torch.float16),
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
        val_loader=loaders[1],  # type: ignore[arg-type]  # None on ranks that do not validate
        callbacks=callbacks,
        progress=Progress(class_maps=np.zeros(data.nc)),
    )


def free_run_directory(opt: Namespace) -> Path:
    """Makes --project/--name, with the next free number behind it unless --exist-ok."""
    return increment_path(Path(opt.project) / opt.name, opt.exist_ok, mkdir=True)


def distributed(model: nn.Module) -> nn.Module:
    """The model, wrapped so that its gradients are averaged over all ranks where there are several; they start from
    rank 0's weights. Statistics of batch normalisation are not exchanged here: the loop averages them."""
    if world_size() == 1:
        return model
    device = next(model.parameters()).device
    devices = [device] if device.type == "cuda" else None
    # torch means copies that cost time, but of a 1x1 kernel in channels_last order the strides are merely ambiguous
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides", category=UserWarning)
    with warnings.catch_warnings():  # torch 2.14 has a new name for broadcast_buffers, which older ones do not know
        warnings.filterwarnings("ignore", message=".*broadcast_buffers", category=FutureWarning)
        return DistributedDataParallel(model, device_ids=devices, broadcast_buffers=False)


def restore(state: TrainState, checkpoint: Checkpoint) -> None:
    """Puts the state of a stopped training back. Raises InputError where the checkpoint's parts don't fit its model."""
    try:
        state.restore(checkpoint)
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, ArithmeticError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"--resume: {checkpoint.file} is no checkpoint to go on with: {reason}") from error


def begin_run(state: TrainState, *, resumed: bool) -> None:
    """What only rank 0 does before the first epoch: files of the run, loggers, a word of what is about to happen."""
    write_run_files(state, resumed=resumed)
    connect_listeners(state, resumed=resumed)
    state.callbacks.run("on_pretrain_routine_start")
    state.callbacks.run("on_pretrain_routine_end", labels=state.train_loader.dataset.index.rows)
    announce(state)


def write_run_files(state: TrainState, *, resumed: bool) -> None:
    """Makes the run directory with opt.yaml, hyp.yaml and the findings in the data."""
    (state.run_dir / "weights").mkdir(parents=True, exist_ok=True)
    state.opt.save_dir = str(state.run_dir)
    with atomic_write(state.run_dir / "opt.yaml") as stream:
        stream.write(yaml.safe_dump(state.options, sort_keys=False).encode())
    if not resumed:
        save_hyp(state.hyp, state.run_dir / "hyp.yaml")
    for remains in (state.run_dir / "weights").glob(".*.pt.*.tmp"):  # of a process that was killed while it wrote
        remains.unlink()
    for split, loader in (("train", state.train_loader), ("val", state.val_loader)):
        loader.dataset.index.write_findings(state.run_dir, split)


def connect_listeners(state: TrainState, *, resumed: bool) -> None:
    """Registers what draws the run's pictures and the loggers that --loggers names."""
    run = LoggedRun(
        state.run_dir,
        state.options,
        asdict(state.hyp),
        state.data.names,
        first_epoch=state.progress.epoch,
        resumed=resumed,
    )
    loggers = chosen_loggers(state.opt.loggers, run, entity=state.opt.entity, bbox_interval=state.opt.bbox_interval)
    pictures = [] if state.opt.noplots else [TrainingPictures(state.run_dir, state.data.names)]
    for listener in (*pictures, *loggers):  # in this order: loggers show the pictures
        state.callbacks.register_all(listener)


def announce(state: TrainState) -> None:
    """Tells in the log what will be trained, how, and where the results go."""
    kind = "bfloat16" if state.amp_dtype is torch.bfloat16 else "float16" if state.amp_dtype else "float32"
    layers = len(dynamic_layers(state.model))
    batches = (state.opt.epochs - state.progress.epoch) * len(state.train_loader)
    accumulate = state.schedule.at(state.opt.epochs * len(state.train_loader)).accumulate
    steps, whole = batches // accumulate, state.opt.epochs * len(state.train_loader) // accumulate
    LOGGER.info(
        f"Image sizes {state.opt.imgsz} train and val, {kind}, {state.train_loader.num_workers} loader workers, "
        f"{layers} dynamic layers, about {steps} optimizer steps\nLogging to {state.run_dir}\n"
        f"Training epochs {state.progress.epoch} to {state.opt.epochs - 1} ..."
    )
    if whole < FEW_STEPS:
        smaller = f"nominal_batch (it is {state.hyp.nominal_batch}) in the hyperparameters"
        LOGGER.warning(
            f"A whole training of about {whole} optimizer steps teaches a model next to nothing: try more --epochs, or "
            f"a smaller {smaller if accumulate > 1 else '--batch-size'} (docs/troubleshooting.md, entry 22)"
        )
