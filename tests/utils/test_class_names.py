import pytest

from utils.class_names import class_numbers, counted, plural
from utils.errors import InputError

NAMES = {0: "cat", 1: "bus", 2: "box"}


@pytest.mark.parametrize("names", [NAMES, list(NAMES.values())])
@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [(None, None), ([], []), (0, [0]), ("bus", [1]), ([2, "cat"], [2, 0]), (("1",), [1]), ([2.0], [2])],
)
def test_classes_by_number_or_name(wanted, numbers, names):
    assert class_numbers(wanted, names) == numbers


def test_a_name_of_two_classes_is_both():
    assert class_numbers(["cat"], {0: "cat", 1: "bus", 2: "cat"}) == [0, 2]


@pytest.mark.parametrize("wanted", ["dog", [0, "dog"], 3, [-1], ["7"]])
def test_a_class_that_is_none_is_told_with_those_that_are(wanted):
    with pytest.raises(InputError, match=r"--classes: expected numbers or names of 0 cat, 1 bus, 2 box, got"):
        class_numbers(wanted, NAMES, told_as="--classes")


def test_of_many_classes_some_are_told():
    with pytest.raises(InputError, match=r"11 c11, \.\.\., got 'dog'"):
        class_numbers("dog", [f"c{number}" for number in range(80)])


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        ([], "(no detections)"),
        ([1], "1 bus"),
        ([1.0, 0.0, 1.0], "1 cat, 2 buses"),
        ([2, 0, 0, 2], "2 cats, 2 boxes"),
    ],
)
def test_counts_by_class(classes, expected):
    assert counted(classes, NAMES) == expected


@pytest.mark.parametrize(
    ("name", "many"), [("cat", "cats"), ("bench", "benches"), ("brush", "brushes"), ("人", "人"), ("7", "7")]
)
def test_plural(name, many):
    assert plural(name, 1) == name
    assert plural(name, 2) == many
