"""A network that torch.export has recorded, replayed in TensorFlow: a function for each of torch's operations that our
layers use. Not for files: models/export_tensorflow.py.

Images are (B, C, H, W) in torch, but TensorFlow convolves (B, H, W, C). A `Value` knows in which of these two orders it
is, so that it is transposed only where an operation needs the other one.
"""

from collections.abc import Callable, Sequence
from operator import getitem
from typing import Any, NamedTuple

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from utils.errors import InputError
from utils.tensorflow_beside_torch import import_tensorflow

tf = import_tensorflow()
TO_LAST, TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)
LAST_AXIS = {0: 0, 1: 3, 2: 1, 3: 2}  # axis of (B, C, H, W) -> that of (B, H, W, C)
TO_THE_END = 2**31  # the end of a slice that is left open is as large or larger in torch's graphs
IGNORED = ("aten._assert_tensor_metadata.default", "aten.promote_types.default")  # their results are not used


class Value(NamedTuple):
    """A tensor of TensorFlow. channels_last: it is (B, H, W, C) where torch's is (B, C, H, W)."""

    tensor: Any
    channels_last: bool = False


def as_channels_first(value: Value) -> Any:
    """The tensor in the order that torch's has."""
    return tf.transpose(value.tensor, TO_FIRST) if value.channels_last else value.tensor


def as_channels_last(value: Value) -> Any:
    """The tensor as (B, H, W, C)."""
    return value.tensor if value.channels_last else tf.transpose(value.tensor, TO_LAST)


def replay(program: ExportedProgram, images: Value) -> Any:
    """The program's first output for its one input, in torch's order. Raises InputError for an operation that is not
    in OPERATIONS."""
    known: dict[torch.fx.Node, Any] = {}
    constants = _constants(program)
    *steps, output = program.graph.nodes
    for node in steps:
        if node.op == "placeholder":
            known[node] = constants.get(node.name, images)
        elif str(node.target) not in IGNORED:
            args, kwargs = torch.fx.map_arg((node.args, node.kwargs), known.get)
            known[node] = _operation(str(node.target))(*args, **kwargs)
    return as_channels_first(known[output.args[0][0]])


def _operation(name: str) -> Callable[..., Any]:
    if name not in OPERATIONS:
        raise InputError(f"{name} is not among the operations that models/tensorflow_ops.py knows")
    return OPERATIONS[name]


def _constants(program: ExportedProgram) -> dict[str, Value]:
    """Parameters and buffers by the names of their nodes."""
    tensors = {**program.state_dict, **program.constants}
    return {
        spec.arg.name: Value(tf.constant(tensors[spec.target].detach().numpy()))
        for spec in program.graph_signature.input_specs
        if spec.kind is not InputKind.USER_INPUT
    }


# ----------------------------------------------------------------------------------------------- elements by themselves
def _of_one(function: Callable[[Any], Any]) -> Callable[..., Value]:
    """A function of each element of a tensor."""
    return lambda x: Value(function(x.tensor), x.channels_last)


def _of_two(function: Callable[[Any, Any], Any]) -> Callable[..., Value]:
    """A function of a tensor and a number, or of two tensors. Two tensors are broadcast in torch's order, unless both
    are images."""

    def operation(a: Value, b: Value | float) -> Value:
        if not isinstance(b, Value):
            return Value(function(a.tensor, b), a.channels_last)
        images = len(a.tensor.shape) == len(b.tensor.shape) == 4
        if images and (a.channels_last or b.channels_last):
            return Value(function(as_channels_last(a), as_channels_last(b)), True)
        return Value(function(as_channels_first(a), as_channels_first(b)))

    return operation


# --------------------------------------------------------------------------------------------------------- whole images
def _conv2d(
    x: Value,
    weight: Value,
    bias: Value | None = None,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
) -> Value:
    kernel = tf.transpose(weight.tensor, (2, 3, 1, 0))  # (k, k, C / groups, O)
    inputs = tf.split(_padded(as_channels_last(x), padding, 0.0), groups, axis=3)
    kernels = tf.split(kernel, groups, axis=3)
    stride, dilation = _pair(stride), _pair(dilation)
    outputs = [
        tf.nn.conv2d(one, of_one, stride, "VALID", dilations=dilation)
        for one, of_one in zip(inputs, kernels, strict=True)
    ]
    out = tf.concat(outputs, axis=3) if groups > 1 else outputs[0]
    return Value(out if bias is None else out + bias.tensor, True)


def _max_pool2d(x: Value, size: Sequence[int], stride: Sequence[int] = (), padding: Sequence[int] = (0, 0)) -> Value:
    size = _pair(size)
    pixels = _padded(as_channels_last(x), padding, float("-inf"))
    return Value(tf.nn.max_pool2d(pixels, size, _pair(stride or size), "VALID"), True)


def _upsample_nearest2d(x: Value, size: Sequence[int] | None, scales: Sequence[float] | None) -> Value:
    pixels = as_channels_last(x)
    size = size or [int(side * scale) for side, scale in zip(pixels.shape[1:3], scales or (), strict=True)]
    return Value(tf.image.resize(pixels, size, "nearest"), True)


def _adaptive_avg_pool2d(x: Value, size: Sequence[int]) -> Value:
    if _pair(size) != [1, 1]:
        raise InputError(
            f"--include saved_model, pb or tfjs: an average over the whole image was expected, got size {size}"
        )
    return Value(tf.reduce_mean(as_channels_last(x), (1, 2), keepdims=True), True)


def _pad(x: Value, sides: Sequence[int], mode: str = "constant", value: float | None = None) -> Value:
    """sides: left, right, top, bottom."""
    if len(sides) != 4 or mode != "constant":
        raise InputError(
            f"--include saved_model, pb or tfjs: four sides to pad with a number were expected, got {mode} of {sides}"
        )
    left, right, top, bottom = sides
    amounts = ((0, 0), (top, bottom), (left, right), (0, 0))
    return Value(tf.pad(as_channels_last(x), amounts, constant_values=value or 0.0), True)


def _padded(pixels: Any, padding: Sequence[int], value: float) -> Any:
    """pixels (B, H, W, C)."""
    vertical, horizontal = _pair(padding)
    if not vertical and not horizontal:
        return pixels
    return tf.pad(pixels, ((0, 0), (vertical, vertical), (horizontal, horizontal), (0, 0)), constant_values=value)


def _pair(numbers: Sequence[int]) -> list[int]:
    return list(numbers) * 2 if len(numbers) == 1 else list(numbers)


# --------------------------------------------------------------------------------------------------------------- shapes
def _permute(x: Value, order: Sequence[int]) -> Value:
    if tuple(order) == TO_FIRST and not x.channels_last:
        return Value(x.tensor, True)  # this is how FixedSizeNetwork takes (B, H, W, C): nothing has to be transposed
    return Value(tf.transpose(as_channels_first(x), order))


def _cat(values: Sequence[Value], axis: int = 0) -> Value:
    if all(value.channels_last for value in values):
        return Value(tf.concat([value.tensor for value in values], LAST_AXIS[axis % 4]), True)
    return Value(tf.concat([as_channels_first(value) for value in values], axis))


def _slice(x: Value, axis: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Value:
    end = None if end is not None and end >= TO_THE_END else end
    return _indexed(x, axis, slice(start, end, step))


def _indexed(x: Value, axis: int, wanted: slice | int) -> Value:
    tensor = as_channels_first(x)
    index: list[slice | int] = [slice(None)] * len(tensor.shape)
    index[axis] = wanted
    return Value(tensor[tuple(index)])


def _chunk(x: Value, parts: int, axis: int = 0) -> list[Value]:
    return [Value(part) for part in tf.split(as_channels_first(x), parts, axis)]


def _transpose(x: Value, one: int, other: int) -> Value:
    tensor = as_channels_first(x)
    order = list(range(len(tensor.shape)))
    order[one], order[other] = order[other], order[one]
    return Value(tf.transpose(tensor, order))


def _flatten(x: Value, start: int = 0, end: int = -1) -> Value:
    tensor = as_channels_first(x)
    end = end % len(tensor.shape)
    return Value(tf.reshape(tensor, [*tensor.shape[:start], -1, *tensor.shape[end + 1 :]]))


def _reshape(x: Value, shape: Sequence[int]) -> Value:
    return Value(tf.reshape(as_channels_first(x), shape))


def _as_it_is(x: Value, *_: Any, **__: Any) -> Value:
    """For copies, and for conversions of type: all is float32."""
    return x


# --------------------------------------------------------------------------------------------------------- transformers
def _linear(x: Value, weight: Value, bias: Value | None = None) -> Value:
    product = tf.matmul(as_channels_first(x), weight.tensor, transpose_b=True)
    return Value(product if bias is None else product + bias.tensor)


def _attention(query: Value, key: Value, value: Value) -> Value:
    """(B, heads, tokens, width) each."""
    width = query.tensor.shape[-1]
    scores = tf.matmul(as_channels_first(query), as_channels_first(key), transpose_b=True) / width**0.5
    return Value(tf.matmul(tf.nn.softmax(scores), as_channels_first(value)))


OPERATIONS: dict[str, Callable[..., Any]] = {
    "<built-in function getitem>": getitem,
    "aten.adaptive_avg_pool2d.default": _adaptive_avg_pool2d,
    "aten.add.Tensor": _of_two(tf.add),
    "aten.cat.default": _cat,
    "aten.chunk.default": _chunk,
    "aten.contiguous.default": _as_it_is,
    "aten.conv2d.default": _conv2d,
    "aten.div.Tensor": _of_two(tf.divide),
    "aten.flatten.using_ints": _flatten,
    "aten.linear.default": _linear,
    "aten.max_pool2d.default": _max_pool2d,
    "aten.mul.Tensor": _of_two(tf.multiply),
    "aten.pad.default": _pad,
    "aten.permute.default": _permute,
    "aten.relu.default": _of_one(tf.nn.relu),
    "aten.reshape.default": _reshape,
    "aten.scaled_dot_product_attention.default": _attention,
    "aten.select.int": _indexed,
    "aten.sigmoid.default": _of_one(tf.sigmoid),
    "aten.silu.default": _of_one(tf.nn.silu),
    "aten.silu_.default": _of_one(tf.nn.silu),
    "aten.slice.Tensor": _slice,
    "aten.softmax.int": lambda x, axis, *_: Value(tf.nn.softmax(as_channels_first(x), axis)),
    "aten.sub.Tensor": _of_two(tf.subtract),
    "aten.to.dtype": _as_it_is,
    "aten.transpose.int": _transpose,
    "aten.upsample_nearest2d.vec": _upsample_nearest2d,
    "aten.view.default": _reshape,
}
