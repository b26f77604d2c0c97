import pytest
import torch
import torch.nn.functional as F

from models.dynamic_ops import FORMULATIONS, dynamic_conv2d, fitting_formulation

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
    (2, 4, 64, 3, 1, 1, 1, 1, 2, True),  # many more numbers in the kernel than in the image
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


@pytest.mark.parametrize(("k", "name"), [(1, None), (3, None), (1, "matmul"), (1, "stacked"), (3, "stacked")])
def test_empty_batch(k, name):
    (x, weight, bias, attention), options = problem((2, 4, 6, k, 1, k // 2, 1, 1, 4, True))
    out = dynamic_conv2d(x[:0], weight, bias, attention[:0], **options, formulation=name)
    assert out.shape == (0, 6, 7, 8)


@pytest.mark.parametrize(
    ("batch", "outputs", "k", "dtype", "expected"),
    [
        (0, 8, 1, torch.float32, "matmul"),
        (0, 8, 3, torch.float32, "stacked"),
        (1, 8, 3, torch.float32, "loop"),
        (8, 8, 3, torch.float32, "grouped"),
        (1, 8, 1, torch.float32, "matmul"),
        (8, 512, 1, torch.float32, "matmul"),  # 13 million products a sample
        (1, 512, 1, torch.float32, "matmul"),
        (1, 1024, 1, torch.float32, "loop"),
        (16, 1024, 1, torch.float32, "loop"),
        (16, 1024, 1, torch.bfloat16, "matmul"),
        (8, 256, 3, torch.float32, "loop"),  # 8 * 256 * 256 * 9 numbers are 19 MB
        (8, 256, 3, torch.bfloat16, "grouped"),
        (16, 256, 3, torch.bfloat16, "loop"),
    ],
)
def test_the_default_follows_kernel_batch_and_bytes(batch, outputs, k, dtype, expected):
    x = torch.empty(batch, 256, 10, 10, dtype=dtype)
    weight = torch.empty(1, 1, 1, 1, 1).expand(4, outputs, 256, k, k)
    assert fitting_formulation(x, weight) == expected
    assert fitting_formulation(x.to("meta"), weight) != "loop" or batch == 1, "only a CPU's caches count"


@pytest.mark.parametrize("channels", [2, 64])
def test_one_sample_keeps_channels_last_strides(channels):
    """A stride of the batch that isn't channels_last's makes the next convolution copy."""
    (x, weight, bias, attention), options = problem((1, channels, 8, 3, 1, 1, 1, 1, 4, True))
    out = dynamic_conv2d(x.contiguous(memory_format=torch.channels_last), weight, bias, attention, **options)
    assert out.stride() == (7 * 8 * 8, 1, 8 * 8, 8)


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
