import pytest
import torch
import torch.nn.functional as F

from models.dynamic_ops import FORMULATIONS, dynamic_conv2d

# B, C, O, k, stride, padding, dilation, groups, K, bias
GEOMETRIES = [
    (1, 1, 1, 1, 1, 0, 1, 1, 1, False),
    (3, 8, 6, 1, 1, 0, 1, 1, 4, True),
    (3, 8, 6, 1, 2, 0, 1, 1, 4, False),
    (2, 8, 6, 1, 1, 1, 1, 2, 3, True),
    (2, 8, 6, 1, (1, 2), (1, 0), 1, 2, 3, True),
    (3, 8, 6, 3, 1, 1, 1, 1, 4, True),
    (1, 3, 4, 3, 2, 1, 1, 1, 4, True),
    (2, 8, 8, 3, 2, 1, 1, 8, 2, True),
    (2, 8, 4, 3, 1, 2, 2, 4, 4, False),
    (2, 4, 4, 5, (2, 1), (2, 1), 1, 1, 2, True),
]


def problem(geometry, dtype=torch.float64):
    batch, channels, outputs, k, stride, padding, dilation, groups, kernels, with_bias = geometry
    generator = torch.Generator().manual_seed(7)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=dtype)  # noqa: E731
    x = draw(batch, channels, 7, 8)
    weight = draw(kernels, outputs, channels // groups, k, k)
    bias = draw(kernels, outputs) if with_bias else None
    attention = draw(batch, kernels).softmax(1)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return (x, weight, bias, attention), options


def fitting(geometry):
    return [name for name in FORMULATIONS if name not in ("loop", *(() if geometry[3] == 1 else ("matmul",)))] + [None]


PAIRS = [(geometry, name) for geometry in GEOMETRIES for name in fitting(geometry)]


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_the_loop_is_the_definition(geometry):
    (x, weight, bias, attention), options = problem(geometry)
    for b in range(len(x)):
        kernel = sum(attention[b, k] * weight[k] for k in range(len(weight)))
        offset = None if bias is None else sum(attention[b, k] * bias[k] for k in range(len(weight)))
        expected = F.conv2d(x[b : b + 1], kernel, offset, **options)
        out = dynamic_conv2d(x, weight, bias, attention, **options, formulation="loop")
        torch.testing.assert_close(out[b : b + 1], expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("geometry", "name"), PAIRS)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_formulations_agree_with_the_loop(geometry, name, memory_format):
    (x, weight, bias, attention), options = problem(geometry)
    x = x.contiguous(memory_format=memory_format)
    leaves = [t.requires_grad_() for t in (x, weight, bias, attention) if t is not None]
    reference = dynamic_conv2d(x, weight, bias, attention, **options, formulation="loop")
    out = dynamic_conv2d(x, weight, bias, attention, **options, formulation=name)
    torch.testing.assert_close(out, reference, rtol=0, atol=1e-10)
    if x.shape[1] > 1:
        assert out.is_contiguous(memory_format=memory_format)
    cotangent = torch.randn(out.shape, dtype=out.dtype)
    expected = torch.autograd.grad((reference * cotangent).sum(), leaves)
    for got, wanted in zip(torch.autograd.grad((out * cotangent).sum(), leaves), expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("geometry", "name"), PAIRS)
def test_formulations_agree_in_float32(geometry, name):
    (x, weight, bias, attention), options = problem(geometry, torch.float32)
    reference = dynamic_conv2d(x, weight, bias, attention, **options, formulation="loop")
    out = dynamic_conv2d(x, weight, bias, attention, **options, formulation=name)
    torch.testing.assert_close(out, reference, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("k", [1, 3])
def test_empty_batch(k):
    (x, weight, bias, attention), options = problem((2, 4, 6, k, 1, k // 2, 1, 1, 4, True))
    assert dynamic_conv2d(x[:0], weight, bias, attention[:0], **options).shape == (0, 6, 7, 8)


@pytest.mark.filterwarnings("ignore")  # the tracer's remarks on constants, which are constants
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("batch", [1, 3])
def test_a_trace_is_free_in_batch_and_image_size(geometry, batch):
    (x, weight, bias, attention), options = problem(geometry)

    def layer(x, attention):
        return dynamic_conv2d(x, weight, bias, attention, **options)

    x, attention = x[:1].repeat(batch, 1, 1, 1), attention[:1].repeat(batch, 1)
    traced = torch.jit.trace(layer, (x, attention), check_trace=False)
    for other_batch, height, width in ((4, 7, 8), (1, 10, 9)):
        other = torch.randn(other_batch, x.shape[1], height, width, dtype=x.dtype)
        mixing = torch.rand(other_batch, attention.shape[1], dtype=x.dtype)
        torch.testing.assert_close(traced(other, mixing), layer(other, mixing), rtol=0, atol=1e-10)
