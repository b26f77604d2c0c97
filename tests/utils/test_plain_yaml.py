"""What YAML files are read as, and that a message about a broken one says where it is broken."""

import pytest
import yaml

from models.model_yaml import read_model_yaml
from utils.data_config import load_data_config
from utils.errors import InputError
from utils.hyp import load_hyp
from utils.plain_yaml import read_yaml

READERS = {"model": read_model_yaml, "data": load_data_config, "hyp": load_hyp}


@pytest.mark.parametrize(
    ("text", "content"),
    [("", None), ("a: 1", {"a": 1}), ("\ufeff- ü", ["ü"]), ("a: &x [1]\nb: *x", {"a": [1], "b": [1]})],
)
def test_plain_data_is_read(text, content, tmp_path):
    (tmp_path / "a.yaml").write_text(text, encoding="utf-8")
    assert read_yaml(tmp_path / "a.yaml") == content


# The places were counted by hand in the texts.
BROKEN = {
    "a list that is not closed": (
        "nc: 2\nnames: [a, b\n",
        "line 3, column 1: expected ',' or ']', but got 'the end of the file' "
        "(while parsing a flow sequence that begins in line 2, column 8)",
    ),
    "a quote that is not closed": (
        "nc: 2\nnames: ['a, b]\n",
        "line 3, column 1: found unexpected end of stream "
        "(while scanning a quoted scalar that begins in line 2, column 9)",
    ),
    "a tab": (
        "names:\n\t- a\n",
        "line 2, column 1: found character '\\t' that cannot start any token: indent with spaces, not tabs",
    ),
    "a colon in a text": (
        "names: cat: dog\n",
        "line 1, column 11: mapping values are not allowed here: check the indentation, and quote a text that has a "
        "colon in it",
    ),
    "an object": ("a: !thing 1\n", "line 1, column 4: could not determine a constructor for the tag '!thing'"),
    "an alias of nothing": ("a: 1\nb: *x\n", "line 2, column 4: found undefined alias 'x'"),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("kind", READERS)
def test_a_broken_file_is_refused_with_line_and_column(kind, name, tmp_path):
    text, told = BROKEN[name]
    file = tmp_path / "my.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        READERS[kind](file)
    message = str(caught.value)
    assert str(file) in message
    assert message.endswith(told)
    assert "UTF-8" not in message
    assert "\n" not in message


@pytest.mark.parametrize("kind", READERS)
def test_another_encoding_is_named_as_that(kind, tmp_path):
    (tmp_path / "my.yaml").write_bytes("names: [狗]".encode("gbk"))
    with pytest.raises(InputError, match=r"my\.yaml.*: expected text in UTF-8, got the byte 0xb9 at place 8"):
        READERS[kind](tmp_path / "my.yaml")


@pytest.mark.parametrize("text", ["a: 1\0", "a: 2026-99-99", "a: !!bool maybe"])
def test_a_reason_without_a_place_is_one_line(text, tmp_path):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(yaml.YAMLError) as caught:
        read_yaml(tmp_path / "a.yaml")
    assert len(str(caught.value)) > 3
    assert "\n" not in str(caught.value)
