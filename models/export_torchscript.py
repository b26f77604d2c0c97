"""A network as TorchScript: torch.jit.load runs it without our code, in C++ too. Not for running the files:
models/runtime_torchscript.py."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.export_options import Exportable, ExportOptions, example
from models.yolo import DetectionModel
from utils.quiet import quiet
from utils.torch_utils import to_channels_last_

METADATA_NAME = "config.txt"  # of the extra file; v6.1's name


def export_torchscript(model: DetectionModel, file: Path, options: ExportOptions) -> Path:
    """Writes the network as a trace whose weights are in channels_last order, as that is fastest.

    Differs from v6.1: --optimize folds the weights into the program (torch.jit.freeze), as the optimizer for mobile
    processors is no longer in torch's packages; --dynamic leaves batch, height and width free.
    """
    if not options.inplace:
        leave_inputs_alone_(model)
    network = to_channels_last_(model.half() if options.half else model)
    images = example(network, options).contiguous(memory_format=torch.channels_last)
    with quiet(not options.verbose):
        program = torch.jit.trace(Exportable(network, train=options.train), images, strict=False, check_trace=False)
        if options.optimize:
            program = torch.jit.freeze(program)
    program.save(str(file), _extra_files={METADATA_NAME: options.metadata.as_json()})
    return file


def leave_inputs_alone_(model: nn.Module) -> None:
    """Changes activations that overwrite their input, in place, so that they do not."""
    module: Any  # of any class, with that attribute or without
    for module in model.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
