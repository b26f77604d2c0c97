"""The pairs of texts of an ONNX file, read without a package."""

import pytest

from models.onnx_metadata import texts_of
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
    assert dict(texts_of(tmp_path / "a.onnx")) == pairs


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
        dict(texts_of(tmp_path / "a.onnx"))


def test_an_empty_file_has_none(tmp_path):
    (tmp_path / "a.onnx").touch()
    assert dict(texts_of(tmp_path / "a.onnx")) == {}
