"""Core ML's programs (.mlpackage) computed by torch, one function for each operation that ours have: a file can be
checked where there is no macOS."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def predict(package: Path, pixels: Tensor) -> Tensor:
    """pixels: what the image has, 0..255, (1, 3, H, W). Returns the program's one output."""
    from coremltools.converters.mil.frontend.milproto.load import load
    from coremltools.models import MLModel

    model = MLModel(str(package), skip_model_load=True)
    spec = model.get_spec()
    program = load(spec, spec.specificationVersion, model.weights_dir)
    (function,) = program.functions.values()
    known = dict.fromkeys((variable.name for variable in function.inputs.values()), pixels)
    for operation in function.operations:
        if operation.op_type != "const":
            inputs = {name: _known(variable, known) for name, variable in operation.inputs.items()}
            known[operation.outputs[0].name] = OPERATIONS[operation.op_type](**inputs)
    (output,) = function.outputs
    return known[output.name]


def _known(variable: Any, known: dict[str, Tensor]) -> Any:
    """A tensor, or what a constant says: a text, numbers, an array as a tensor."""
    if isinstance(variable, (tuple, list)):
        return [_known(each, known) for each in variable]
    if variable.name in known:
        return known[variable.name]
    value = variable.val
    return torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) and value.ndim else value


def _conv(x, weight, strides, pad, dilations, groups, bias=None, pad_type="valid") -> Tensor:  # noqa: ANN001
    assert pad_type in ("custom", "valid")
    top, bottom, left, right = pad.tolist() if pad_type == "custom" else (0, 0, 0, 0)
    bias = None if bias is None else bias.float()
    x = F.pad(x.float(), (left, right, top, bottom))
    return F.conv2d(x, weight.float(), bias, strides.tolist(), 0, dilations.tolist(), int(groups))


def _max_pool(x, kernel_sizes, strides, pad, pad_type, ceil_mode) -> Tensor:  # noqa: ANN001
    assert pad_type == "custom"
    assert not ceil_mode
    top, bottom, left, right = pad.tolist()
    return F.max_pool2d(F.pad(x, (left, right, top, bottom), value=-torch.inf), kernel_sizes.tolist(), strides.tolist())


def _slice(x, begin, end, begin_mask=None, end_mask=None, stride=None, squeeze_mask=None) -> Tensor:  # noqa: ANN001
    assert squeeze_mask is None or not any(squeeze_mask)
    open_start, open_end = ([False] * x.ndim if mask is None else mask for mask in (begin_mask, end_mask))
    index = [
        slice(None if open_start[axis] else int(begin[axis]), None if open_end[axis] else int(end[axis]))
        for axis in range(x.ndim)
    ]
    return x[tuple(index)]


def _upsample(x, scale_factor_height, scale_factor_width) -> Tensor:  # noqa: ANN001
    return F.interpolate(x, scale_factor=(float(scale_factor_height), float(scale_factor_width)), mode="nearest")


def _cast(x, dtype) -> Tensor:  # noqa: ANN001
    return x.to({"fp16": torch.float16, "fp32": torch.float32}[dtype])


def _scaled(quantized_data, zero_point, scale, axis) -> Tensor:  # noqa: ANN001
    assert axis == 0
    shape = (-1, *[1] * (quantized_data.ndim - 1))
    return (quantized_data.float() - zero_point.float().view(shape)) * scale.view(shape)


OPERATIONS: dict[str, Callable[..., Tensor]] = {
    "add": lambda x, y: x + y,
    "cast": _cast,
    "concat": lambda values, axis, interleave: torch.cat(values, int(axis)),
    "constexpr_affine_dequantize": _scaled,
    "conv": _conv,
    "max_pool": _max_pool,
    "mul": lambda x, y: x * y,
    "real_div": lambda x, y: x / y,
    "reduce_mean": lambda x, axes, keep_dims: x.mean(axes.tolist(), keepdim=bool(keep_dims)),
    "relu": lambda x: x.relu(),
    "reshape": lambda x, shape: x.reshape(shape.tolist()),
    "sigmoid": lambda x: x.sigmoid(),
    "silu": lambda x: F.silu(x),
    "slice_by_index": _slice,
    "softmax": lambda x, axis: x.softmax(int(axis)),
    "transpose": lambda x, perm: x.permute(perm.tolist()),
    "upsample_nearest_neighbor": _upsample,
}
