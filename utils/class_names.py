"""Class names as people write and read them: from numbers or names that were asked for to class ids, and from counts to
words. Not for where the names come from: utils/data_config.py, models/weights.py."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from utils.errors import InputError
from utils.log import visible_name

MOST_LISTED = 12  # names in a message


def class_numbers(
    wanted: int | str | Iterable[int | str] | None,
    names: Mapping[int, str] | Sequence[str],
    *,
    told_as: str = "classes",
) -> list[int] | None:
    """Class ids of the classes that are wanted, each given by its number or its name; None where all are wanted.

    wanted: one, several, or None for all. A text of digits counts as a number; a name that several classes share stands
    for all of them. names: by class id. told_as: what the user calls the option, for the message.

    Raises InputError for what is neither a number nor a name of a class.
    """
    if wanted is None:
        return None
    by_number = dict(names if isinstance(names, Mapping) else enumerate(names))
    given = [wanted] if isinstance(wanted, (int, str)) else list(wanted)
    found = {item: _numbers_of(item, by_number) for item in given}
    if unknown := [item for item in given if not found[item]]:
        known = ", ".join(f"{number} {visible_name(name)}" for number, name in list(by_number.items())[:MOST_LISTED])
        more = ", ..." if len(by_number) > MOST_LISTED else ""
        raise InputError(f"{told_as}: expected numbers or names of {known}{more}, got {unknown[0]!r}")
    return [number for item in given for number in found[item]]


def _numbers_of(wanted: int | str, names: Mapping[int, str]) -> list[int]:
    """The class with that number, or all classes with that name; an empty list where there is none."""
    if isinstance(wanted, str) and not wanted.isdecimal():
        return [number for number, name in names.items() if name == wanted]
    return [int(wanted)] if int(wanted) in names else []


def counted(classes: Iterable[float], names: Mapping[int, str] | Sequence[str]) -> str:
    """Class ids, one for each detection -> "4 persons, 1 bus", in the order of ids; "(no detections)" for none."""
    counts = sorted(Counter(map(int, classes)).items())
    told = [f"{count} {plural(visible_name(names[number]), count)}" for number, count in counts]
    return ", ".join(told) or "(no detections)"


def plural(name: str, count: int) -> str:
    """The name as it stands behind its count: 1 bus, 2 buses, 2 persons."""
    if count == 1 or not name[-1:].isascii() or not name[-1:].isalpha():  # 3 人, not 3 人s
        return name
    return name + ("es" if name.endswith(("s", "x", "ch", "sh")) else "s")
