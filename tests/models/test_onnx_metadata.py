"""The pairs of texts of an ONNX file, read without a package."""

import pytest

from models.onnx_metadata import image_shape_of, texts_of
from utils.errors import InputError

PAIRS = [{}, {"stride": "32"}, {"names": "{0: '数字'}", "": "", "long": "x" * 300}]


@pytest.mark.parametrize("pairs", PAIRS)
def test_they_are_those_that_onnx_wrote(tmp_path, pairs):
    onnx = pytest.importorskip("onnx")
    values = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [300], [0.5] * 300)
    graph = onnx.helper.make_graph([], "g", [], [], initializer=[values])
    model = onnx.helper.make_model(graph)
    onnx.helper.set_model_props(model, pairs)
    onnx.save(model, tmp_path / "a.onnx")
    assert texts_of(tmp_path / "a.onnx") == pairs


@pytest.mark.parametrize(
    "content",
    [
        b"\x07",  # wire type 7
        b"\xff" * 20,  # a number without end
        b"\x72\x05ab",  # field 14, which ends in the middle
        b"\x72\x03\x0a\x05a",  # the key in it ends in the middle
        b"\x72\x04\x0a\x02\xff\xfe",  # a key that is no text
        b"\x70\x05",  # field 14 as a number
        b"\x72\x02\x08\x05",  # its key as a number
    ],
)
def test_other_content_is_told(tmp_path, content):
    (tmp_path / "a.onnx").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.onnx: it is no ONNX file"):
        texts_of(tmp_path / "a.onnx")


def test_an_empty_file_has_none(tmp_path):
    (tmp_path / "a.onnx").touch()
    assert texts_of(tmp_path / "a.onnx") == {}


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ([[1, 3, 64, 96]], (1, 3, 64, 96)),
        ([["batch", 3, "height", "width"]], (None, 3, None, None)),
        ([[5], [2, 3, None, 32]], (2, 3, None, 32)),
    ],
)
def test_the_size_of_images(tmp_path, shapes, expected):
    onnx = pytest.importorskip("onnx")
    inputs = [onnx.helper.make_tensor_value_info(f"i{place}", 1, shape) for place, shape in enumerate(shapes)]
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "g", inputs, [])), tmp_path / "a.onnx")
    assert image_shape_of(tmp_path / "a.onnx") == expected


def test_a_file_without_images_is_told(tmp_path):
    (tmp_path / "a.onnx").touch()
    with pytest.raises(InputError, match="got none of four dimensions"):
        image_shape_of(tmp_path / "a.onnx")
