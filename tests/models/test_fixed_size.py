"""The network of one size that mobile runtimes take, against the network itself; and how conversions fail."""

from pathlib import Path

import pytest
import torch

from models.blocks_dynamic import dynamic_layers
from models.conversion import check_one_image, conversion
from models.export_metadata import Metadata
from models.export_options import ExportOptions
from models.exported import in_pixels
from models.fixed_size import FixedSizeNetwork
from tests.models.exporting import tiny_model
from utils.errors import InputError

CONFIGS = ("yolov5n.yaml", "yolov5n_dynamic.yaml", "yolov5n_dyconv.yaml", "yolov5n_c3dy.yaml")


@pytest.mark.parametrize("cfg", CONFIGS)
@pytest.mark.parametrize(("batch", "height", "width"), [(1, 64, 96), (3, 96, 64)])
def test_it_predicts_what_the_network_predicts(cfg, batch, height, width):
    model, images = tiny_model(cfg), torch.rand(batch, 3, height, width)
    wanted = model(images)[0]
    plain = FixedSizeNetwork(model, (height, width))
    torch.testing.assert_close(plain(images), wanted, atol=1e-3, rtol=1e-5)
    mobile = FixedSizeNetwork(model, (height, width), channels_last=True, fractions=True)
    predictions = mobile(images.permute(0, 2, 3, 1))
    assert predictions[..., :2].max() < 1.2 < wanted[..., :2].max()
    torch.testing.assert_close(in_pixels(predictions, (height, width)), wanted, atol=1e-3, rtol=1e-5)


def test_the_network_itself_stays_as_it_is():
    model = tiny_model().half()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    plain = FixedSizeNetwork(model, (64, 64))
    assert len(dynamic_layers(model)) == 2
    assert not dynamic_layers(plain)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert {parameter.dtype for parameter in plain.parameters()} == {torch.float32}


def test_no_tensor_has_more_than_four_dimensions_and_no_kernel_is_computed():
    """What NCNN and 8-bit runtimes cannot do."""
    program = torch.export.export(FixedSizeNetwork(tiny_model(), (64, 64)), (torch.rand(1, 3, 64, 64),))
    nodes = list(program.graph.nodes)
    shapes = [node.meta["val"].shape for node in nodes if hasattr(node.meta.get("val"), "shape")]
    assert max(map(len, shapes)) == 4
    convolutions = [node for node in nodes if "conv2d" in str(node.target)]
    assert len(convolutions) > 60
    assert all(node.args[1].op == "placeholder" for node in convolutions)


# ---------------------------------------------------------------------------------------------------------- conversions
OPTIONS = ExportOptions(Metadata({}))


def test_a_converter_fails_in_one_sentence():
    told = r"x\.tflite: tool cannot convert this network \(--verbose shows more\): a b"
    with pytest.raises(InputError, match=told), conversion("tool", Path("x.tflite"), OPTIONS):
        raise SystemError("a\n  b")


def test_our_own_errors_pass():
    with pytest.raises(InputError, match="^ours$"), conversion("tool", Path("x"), OPTIONS):
        raise InputError("ours")


def test_one_image_at_a_time():
    check_one_image(OPTIONS, "ncnn")
    with pytest.raises(InputError, match="--batch-size 1, got 2"):
        check_one_image(ExportOptions(Metadata({}), batch_size=2), "ncnn")
