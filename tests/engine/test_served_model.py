from pathlib import Path

import pytest

from engine.served_model import model_ids


@pytest.mark.parametrize(
    ("given", "ids"),
    [
        ([], []),
        (["best.pt"], ["best"]),
        (["a/weights/best.pt", "b/weights/best.pt"], ["a/best", "b/best"]),
        (["tiny.pt", "tiny.torchscript"], ["tiny.pt", "tiny.torchscript"]),
        (["one.pt", "one.pt", "one-2.pt"], ["one", "one-2", "one-2-2"]),
        (["a b;c?&=%#.pt", "a-b-c.pt", "???.pt", "狗.pt"], ["a-b-c", "a-b-c-2", "model", "狗"]),
    ],
)
def test_ids_are_those_of_a_comparison_and_safe_in_forms_and_addresses(given, ids):
    assert model_ids([Path(file) for file in given]) == ids
