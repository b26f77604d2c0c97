import pytest
import torch
from torch import nn

from models import common
from models.common import (
    C3TR,
    SPP,
    SPPF,
    BottleneckCSP,
    C3Dy,
    C3DyLast,
    Concat,
    Contract,
    Conv,
    CrossConv,
    DWConv,
    DyConv,
    Expand,
    Fusable,
    GhostBottleneck,
    MixConv2d,
    Sum,
    autopad,
    set_temperature,
)
from utils.errors import InputError

MODULE_CASES = """
    Conv_k3s2 Conv_k6s2p2 Conv_noact_g2 DWConv Bottleneck_add Bottleneck_noadd BottleneckCSP C3_n2 C3_noshortcut C3TR
    C3SPP C3Ghost SPP SPPF Focus GhostConv GhostBottleneck_s1 GhostBottleneck_s2 Contract Expand Concat CrossConv
    CrossConv_s2 MixConv2d_equal_ch MixConv2d_equal_params Sum_weighted Sum
""".split()  # noqa: SIM905


def as_in_networks(module):
    """The batch normalisation constants that DetectionModel sets."""
    for bn in module.modules():
        if isinstance(bn, nn.BatchNorm2d):
            bn.eps, bn.momentum = 1e-3, 0.03
    return module


def with_random_statistics(module):
    """Batch normalisation that changes something, as after a training."""
    for bn in as_in_networks(module).modules():
        if isinstance(bn, nn.BatchNorm2d):
            nn.init.normal_(bn.running_mean)
            nn.init.uniform_(bn.running_var, 0.5, 2.0)
            nn.init.normal_(bn.weight)
            nn.init.normal_(bn.bias)
    return module.eval()


def test_every_golden_case_is_listed(golden_json):
    assert set(golden_json("modules")) == set(MODULE_CASES)


@pytest.mark.parametrize("case", MODULE_CASES)
def test_blocks_agree_with_v61(case, golden_json, golden_npz):
    facts, arrays = golden_json("modules")[case], golden_npz("modules")
    module = as_in_networks(getattr(common, facts["module"])(*facts["args"], **facts["kwargs"]))
    assert [[key, list(tensor.shape)] for key, tensor in module.state_dict().items()] == facts["state_dict"]
    weights = {key: torch.from_numpy(arrays[f"{case}/sd/{key}"]) for key, _ in facts["state_dict"]}
    module.load_state_dict(weights)
    inputs = [torch.from_numpy(arrays[f"{case}/x{index}"]) for index in range(len(facts["x_shapes"]))]
    x = inputs if facts["module"] in ("Concat", "Sum") else inputs[0]
    with torch.no_grad():
        for mode in ("eval", "train"):  # eval first: the train forward moves the statistics
            out = module.train(mode == "train")(x)
            expected = torch.from_numpy(arrays[f"{case}/out_{mode}"])
            torch.testing.assert_close(out, expected, rtol=0, atol=1e-4)


FUSABLE = [
    (Conv, (4, 6, 3, 2)),
    (Conv, (4, 6, 3, 1, None, 2, False)),
    (DWConv, (6, 9, 3, 2)),
    (CrossConv, (6, 8, 3, 2)),
    (MixConv2d, (4, 9, (1, 3, 5))),
    (BottleneckCSP, (8, 8, 2)),
    (GhostBottleneck, (8, 12, 3, 2)),
    (DyConv, (4, 6, 1)),
    (DyConv, (4, 6, 3, 2, None, 2)),
    (C3Dy, (8, 8, 2)),
    (C3DyLast, (8, 8, 2)),
]


@pytest.mark.parametrize(("block", "args"), FUSABLE)
def test_fusing_changes_nothing_but_the_modules(block, args):
    torch.manual_seed(0)
    module = with_random_statistics(block(*args)).double()
    x = torch.randn(3, args[0], 8, 10, dtype=torch.float64)
    with torch.no_grad():
        before = module(x)
        for _ in range(2):  # the second time does nothing
            for part in module.modules():
                if isinstance(part, Fusable):
                    part.fuse_()
        after = module(x)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-12)
    assert not [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]


@pytest.mark.parametrize("temperature", [1, 34])
def test_a_fused_dyconv_in_float32_at_any_temperature(temperature):
    torch.manual_seed(0)
    module = with_random_statistics(DyConv(8, 16, 3))
    set_temperature(module, temperature)
    x = torch.randn(2, 8, 9, 9)
    with torch.no_grad():
        before = module(x)
        module.fuse_()
        torch.testing.assert_close(module(x), before, rtol=0, atol=1e-5)


def test_fused_weights_keep_their_dtype():
    module = with_random_statistics(Conv(4, 4)).half()
    module.fuse_()
    assert module.conv.weight.dtype == module.conv.bias.dtype == torch.float16


@pytest.mark.parametrize(
    ("k", "p", "expected"), [(1, None, 0), (3, None, 1), (6, 2, 2), ((1, 5), None, (0, 2)), ((1, 5), (0, 0), (0, 0))]
)
def test_padding(k, p, expected):
    assert autopad(k, p) == expected


def test_activation_choices():
    assert isinstance(Conv(1, 1).act, nn.SiLU)
    assert isinstance(Conv(1, 1, act=False).act, nn.Identity)
    relu = nn.ReLU()
    assert Conv(1, 1, act=relu).act is relu


def test_sppf_equals_spp():
    torch.manual_seed(0)
    fast, slow = SPPF(8, 6).eval(), SPP(8, 6).eval()
    slow.load_state_dict(fast.state_dict())
    x = torch.randn(1, 8, 20, 17)
    assert torch.equal(fast(x), slow(x))


@pytest.mark.parametrize("shape", [(1, 4, 2, 2), (2, 8, 4, 6)])
def test_expand_undoes_contract(shape):
    x = torch.randn(shape)
    assert torch.equal(Expand(2)(Contract(2)(x)), x)


def test_joining_does_not_write_into_its_inputs():
    first, second = torch.zeros(1, 2, 2, 2), torch.ones(1, 2, 2, 2)
    assert Sum(2)([first, second]).sum() == 8
    assert Concat(1)([first, second]).shape == (1, 4, 2, 2)
    assert first.sum() == 0


# channels, kernels -> widths; the first three by v6.1's rule worked by hand, the last two in proportion to 1 / k^2
MIXED = [
    (2, (1,), True, [2]),
    (9, (1, 3), True, [5, 4]),
    (11, (1, 3, 5), True, [4, 3, 4]),
    (8, (1, 3), False, [7, 1]),
    (40, (3, 5, 7), False, [26, 9, 5]),
]


@pytest.mark.parametrize(("channels", "kernels", "equal", "widths"), MIXED)
def test_mixed_widths(channels, kernels, equal, widths):
    module = MixConv2d(4, channels, kernels, 1, equal)
    assert [conv.out_channels for conv in module.m] == widths
    assert module(torch.randn(1, 4, 9, 9)).shape[1] == channels


def test_transformer_with_a_width_that_heads_cannot_share():
    with pytest.raises(InputError, match="multiple of 4"):
        C3TR(8, 12, 1)


@pytest.mark.parametrize("block", [common.C3, common.C3Ghost, C3Dy, C3DyLast, common.SPPF, common.GhostConv, DyConv])
def test_channels_last_goes_through(block):
    module = block(8, 8).eval().to(memory_format=torch.channels_last)
    x = torch.randn(2, 8, 6, 5).to(memory_format=torch.channels_last)
    out = module(x)
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out, module(x.contiguous()), rtol=0, atol=1e-5)
