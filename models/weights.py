"""Files of weights: reads our checkpoints and those of YOLOv5 v6 and v7, builds models from them, writes ours. Not for
opening a stranger's file safely: models/unpickling.py."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from models.common import dynamic_layers
from models.model_yaml import MOST_CLASSES
from models.unfuse import unfused
from models.unpickling import Inert, load_inert
from models.yolo import DetectionModel
from utils.ema import ModelEma
from utils.errors import InputError
from utils.files import atomic_write
from utils.log import LOGGER
from utils.official_weights import address_of, is_official

FORMAT, VERSION = "yolov5-dynamic", 1
DROPPED = "anchor_grid"  # a buffer of old files: v6.1 and ours compute it from anchors and strides


@dataclass(frozen=True)
class Checkpoint:
    """The content of a file of weights, as plain data.

    Attributes:
        file: where it was read.
        source: "ours"; "v6" for files of YOLOv5 v6 and v7; "tensors" for a bare state dict.
        yaml: the model's description, as DetectionModel takes it; empty for a bare state dict.
        names: class names by class number; empty for a bare state dict.
        state: state dict for inference (the averaged weights where the file has them), floats as float32.
        info: facts that stay when the file is stripped: date, and what save_checkpoint was given (options, ...).
        training: what a resume needs: model, updates, optimizer, epoch, best_fitness, ...; None in stripped and
            foreign files.
        activations: in foreign files the class name of each activation, by its place in the network: "model.0.act".
    """

    file: Path
    source: Literal["ours", "v6", "tensors"]
    yaml: dict[str, Any]
    names: dict[int, str]
    state: dict[str, Tensor]
    info: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] | None = None
    activations: dict[str, str] = field(default_factory=dict)


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Reads a file of weights onto the CPU; no code in it is run, whatever it holds. Raises InputError where there is
    no such file, where it names classes or functions that a checkpoint has no use for, or where it is no checkpoint."""
    file = Path(path)
    if not file.is_file() and is_official(file):
        raise InputError(f"weights: there is no file {file}. It is published at {address_of(file)}: download it first")
    content = load_inert(file)
    if isinstance(content, Mapping) and content.get("format") == FORMAT:
        return _read_ours(file, content)
    network = content
    if isinstance(content, Mapping) and not _is_state_dict(content):
        network = content.get("model") if content.get("ema") is None else content["ema"]
    if _is_state_dict(network):
        return Checkpoint(file, "tensors", {}, {}, _float32(network))
    if not isinstance(network, Inert):
        raise InputError(
            f"{file}: a checkpoint with a network under 'model' or 'ema' was expected, got {_told(content)}"
        )
    return _read_v6(file, network)


def build_model(checkpoint: Checkpoint) -> DetectionModel:
    """A fresh float32 model on the CPU with the checkpoint's weights. Raises InputError where the checkpoint has no
    yaml, or weights of another network."""
    if not checkpoint.yaml:
        raise InputError(f"{checkpoint.file} holds tensors alone; --cfg must say which network they belong to")
    model = DetectionModel(deepcopy(checkpoint.yaml), ch=checkpoint.yaml.get("ch", 3), names=checkpoint.names)
    for name, module in model.named_modules():
        stored = checkpoint.activations.get(name, type(module).__name__)
        if stored != type(module).__name__:
            raise InputError(
                f"{checkpoint.file}: its {name} is {stored}, where YOLOv5 v6 has {type(module).__name__}; "
                f"a network with other activations cannot be rebuilt from its yaml"
            )
    try:
        model.load_state_dict(unfused(checkpoint.state, model))
    except RuntimeError as error:
        raise InputError(
            f"{checkpoint.file}: the weights do not fit the network its yaml describes: {error}"
        ) from error
    return model


def load_model(path: str | Path, device: str | torch.device = "cpu", fuse: bool = True) -> DetectionModel:
    """A model for inference, as inference_model makes it. Raises InputError as read_checkpoint and build_model do."""
    return inference_model(read_checkpoint(path), device, fuse)


def inference_model(checkpoint: Checkpoint, device: str | torch.device = "cpu", fuse: bool = True) -> DetectionModel:
    """A model in eval mode, without gradients, batch normalisation folded into the convolutions where `fuse`. Warns
    where a dynamic layer's attention has not been annealed. Raises InputError as build_model does."""
    model = build_model(checkpoint).eval()
    _warn_of_temperature(model, checkpoint.file)
    if fuse:
        model.fuse()
    return model.requires_grad_(False).to(device)


def _warn_of_temperature(model: DetectionModel, path: str | Path) -> None:
    temperatures = sorted({float(layer.attention.temperature) for _, layer in dynamic_layers(model)} - {1.0})
    if temperatures:
        LOGGER.warning(
            f"{path}: its attention runs at temperature {', '.join(f'{value:g}' for value in temperatures)}, not 1: "
            f"it was saved before the annealing ended, or its training kept it there"
        )


def transfer_weights(model: nn.Module, checkpoint: Checkpoint, exclude: Sequence[str] = ()) -> tuple[int, int]:
    """Copies the checkpoint's tensors into the model where both have the name and shape, but none whose name contains
    one of the texts in `exclude`. Returns how many were copied and how many the model has, and logs both."""
    own = model.state_dict()
    taken = {
        name: tensor
        for name, tensor in unfused(checkpoint.state, model).items()
        if name in own and own[name].shape == tensor.shape and not any(part in name for part in exclude)
    }
    model.load_state_dict(taken, strict=False)
    LOGGER.info(f"Transferred {len(taken)}/{len(own)} items from {checkpoint.file}")
    return len(taken), len(own)


def save_checkpoint(
    path: str | Path,
    *,
    model: DetectionModel,
    ema: ModelEma[DetectionModel] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    epoch: int = -1,
    best_fitness: float | None = None,
    info: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
) -> None:
    """Writes a checkpoint of plain data, whole or not at all.

    Args:
        model: the network as it is trained. Without `ema`, its weights are those for inference.
        ema: the averaged weights, for inference.
        optimizer: with it, a training can be resumed from the file.
        epoch: the one that is over, from 0; -1 for none.
        best_fitness: of the training so far.
        info: small facts that stay when the file is stripped: options, data file.
        training: more that a resume needs and strip_optimizer drops; not without an optimizer.

    Paths and numpy scalars become text and numbers. Raises TypeError for anything else that is not plain data.
    """
    resumable = None
    if optimizer is not None:
        resumable = {
            "model": _on_cpu(model.state_dict()),
            "updates": ema.updates if ema else 0,
            "optimizer": optimizer.state_dict(),
            "epoch": epoch,
            "best_fitness": best_fitness,
            **(training or {}),
        }
    averaged = ema.ema if ema else model
    date = datetime.now().isoformat(timespec="seconds")
    facts = {"date": date, "epoch": epoch, "best_fitness": best_fitness, **(info or {})}
    _write(path, model.yaml, model.names, _on_cpu(averaged.state_dict()), facts, resumable)


def strip_optimizer(path: str | Path) -> None:
    """Reduces one of our checkpoints, in place, to what inference needs: the averaged weights as float16. Raises
    InputError for a file that is not ours.

    Differs from v6.1: a tensor with values beyond float16's range (65,504) stays float32.
    """
    checkpoint = read_checkpoint(path)
    if checkpoint.source != "ours":
        raise InputError(f"{path}: only checkpoints of our own trainings are stripped; this one is another project's")
    state = {name: _halved(tensor) for name, tensor in checkpoint.state.items()}
    _write(path, checkpoint.yaml, checkpoint.names, state, checkpoint.info, None)
    LOGGER.info(f"Optimizer stripped from {path}, {Path(path).stat().st_size / 1e6:.1f}MB")


def renew_checkpoint(path: str | Path) -> None:
    """Makes one of our stripped checkpoints, in place, of any that can be read. A file of another project is kept as
    <name>.pt.bak beside it, unless there is one of that name. Raises InputError as read_checkpoint and build_model
    do."""
    file, checkpoint = Path(path), read_checkpoint(path)
    if checkpoint.source == "ours":
        strip_optimizer(file)
        return
    model = build_model(checkpoint)
    backup = file.with_name(f"{file.name}.bak")
    if not backup.exists():
        with open(file, "rb") as original, atomic_write(backup) as copy:
            shutil.copyfileobj(original, copy)
    save_checkpoint(file, model=model)
    strip_optimizer(file)
    LOGGER.info(f"{file} is now a checkpoint of this project; what it was is in {backup}")


def _write(
    path: str | Path,
    yaml: dict[str, Any],
    names: dict[int, str],
    state: dict[str, Any],
    info: dict[str, Any],
    training: dict[str, Any] | None,
) -> None:
    content = {"format": FORMAT, "version": VERSION, "yaml": yaml, "names": names}
    content.update(state=state, info=info, training=training)
    with atomic_write(path) as file:
        stream = _Remembering(file)
        try:
            torch.save(_plain(content), stream)  # type: ignore[arg-type]  # torch writes and flushes, no more
        except RuntimeError as error:  # torch's writer, at the first byte after a write that failed
            raise stream.failure or error from error


class _Remembering:
    """A file to write to, which keeps the error of a write that failed (no space, ...): torch's writer does not tell
    it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.failure: OSError | None = None

    def write(self, content: bytes) -> int:
        """As the file's."""
        try:
            return self._file.write(content)
        except OSError as error:
            self.failure = error
            raise

    def flush(self) -> None:
        """As the file's."""
        self._file.flush()


def _read_ours(file: Path, content: Mapping[str, Any]) -> Checkpoint:
    version = content.get("version")
    if not isinstance(version, int) or version > VERSION:
        raise InputError(f"{file}: checkpoint version {VERSION} was expected, got {version}; it needs a newer release")
    wrong = [key for key in ("yaml", "names", "info") if not isinstance(content.get(key), dict)]
    if not _is_state_dict(content.get("state")):
        wrong.append("state")
    if "training" not in content:
        wrong.append("training")
    if wrong:
        raise InputError(f"{file}: a damaged checkpoint: {', '.join(wrong)} is missing or not what it should be")
    parts = {key: content[key] for key in ("yaml", "names", "info", "training")}
    return Checkpoint(file, "ours", state=_float32(content["state"]), **parts)


def _read_v6(file: Path, network: Inert) -> Checkpoint:
    attributes = network.state if isinstance(network.state, Mapping) else {}
    yaml, names = attributes.get("yaml"), attributes.get("names", [])
    if not isinstance(yaml, dict) or not isinstance(names, (list, dict)):
        raise InputError(f"{file}: its network has no yaml and names of YOLOv5 v6 or v7")
    try:
        yaml = _plain(yaml)
        members = list(_members(network))
        named = _names_by_index(names, yaml.get("nc"))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{file}: its network is not built like one of YOLOv5 v6 or v7: {error}") from error
    state = {name: member for name, member in members if isinstance(member, Tensor) and not name.endswith(DROPPED)}
    activations = {name: type(member).__name__ for name, member in members if name.endswith(".act")}
    return Checkpoint(file, "v6", yaml, named, _float32(state), activations=activations)


def _members(module: Inert, prefix: str = "") -> Iterator[tuple[str, Tensor | Inert]]:
    """(qualified name, tensor) of each parameter and persistent buffer, in the order of a state dict, and (qualified
    name, stand-in) of each module inside the given one. Raises TypeError where a stand-in does not hold what a module
    holds."""
    attributes = module.state
    if not isinstance(attributes, Mapping):
        raise TypeError(f"{prefix or 'the network'} has no attributes")
    not_saved = attributes.get("_non_persistent_buffers_set", ())
    for kind in ("_parameters", "_buffers"):
        for name, tensor in _mapping(attributes, kind, prefix).items():
            if tensor is not None and name not in not_saved:
                yield prefix + name, _tensor(tensor, prefix + name)
    temperature = attributes.get("temperature")  # in the published layer no buffer but a plain number
    if type(module).__name__ == "attention2d" and isinstance(temperature, (int, float)):
        yield f"{prefix}temperature", torch.tensor(float(temperature))
    for name, child in _mapping(attributes, "_modules", prefix).items():
        if isinstance(child, Inert):
            yield prefix + name, child
            yield from _members(child, f"{prefix}{name}.")


def _mapping(attributes: Mapping[str, Any], key: str, prefix: str) -> Mapping[str, Any]:
    value = attributes.get(key, {})
    if not isinstance(value, Mapping):
        raise TypeError(f"{prefix}{key} is {type(value).__name__}")
    return value


def _tensor(value: Any, name: str) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} is {type(value).__name__}, not a tensor")
    return value.detach()


def _names_by_index(names: list[Any] | dict[Any, Any], nc: int | None) -> dict[int, str]:
    """{class number: name} of a list, which v6.1 has, or a dict, which v6.2 and later have. Without nc, there are as
    many classes as names; a class without a name is called class<number>. Raises ValueError for an unusable nc."""
    if nc is not None and not 1 <= nc <= MOST_CLASSES:
        raise ValueError(f"nc is {nc}")
    pairs = names.items() if isinstance(names, dict) else enumerate(names)
    named = {int(index): str(name) for index, name in pairs}
    return {index: named.get(index, f"class{index}") for index in range(nc or len(named))}


def _is_state_dict(content: Any) -> bool:
    return isinstance(content, Mapping) and bool(content) and all(isinstance(v, Tensor) for v in content.values())


def _float32(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def _halved(tensor: Tensor) -> Tensor:
    """As float16, unless a value is beyond its range. Integers and single numbers (a temperature) stay as they are."""
    if not tensor.is_floating_point() or tensor.dim() == 0:
        return tensor
    return tensor.half() if (tensor.abs() <= torch.finfo(torch.float16).max).all() else tensor


def _on_cpu(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu() for name, tensor in state.items()}


def _plain(value: Any) -> Any:
    """A copy of nested dicts, lists and tuples whose leaves are tensors, text, numbers, booleans and None."""
    if isinstance(value, np.generic):  # before float, which np.float64 is too
        return value.item()
    if value is None or isinstance(value, (str, bool, int, float, Tensor)):
        return value
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value] if isinstance(value, list) else tuple(map(_plain, value))
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"plain data was expected, got {type(value).__name__}")


def _told(content: Any) -> str:
    return f"the keys {', '.join(map(str, content))}" if isinstance(content, Mapping) else type(content).__name__
