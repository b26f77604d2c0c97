"""Class names as people write and read them: classes asked for by number or name, and what was counted. Not for where
the names come from: utils/data_config.py, models/weights.py."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from utils.errors import InputError

TOLD = 12  # names in a message


def class_numbers(
    wanted: int | str | Iterable[int | str] | None,
    names: Mapping[int, str] | Sequence[str],
    *,
    told_as: str = "classes",
) -> list[int] | None:
    """Classes, each by its number or its name, as numbers; None where all are wanted. A name that looks like a number
    is taken as the number. Raises InputError, in the words of the option, for what is neither."""
    if wanted is None:
        return None
    by_number = dict(names if isinstance(names, Mapping) else enumerate(names))
    given = [wanted] if isinstance(wanted, (int, str)) else list(wanted)
    found = {item: _numbers_of(item, by_number) for item in given}
    if unknown := [item for item in given if not found[item]]:
        known = ", ".join(f"{number} {name}" for number, name in list(by_number.items())[:TOLD])
        more = ", ..." if len(by_number) > TOLD else ""
        raise InputError(f"{told_as}: expected numbers or names of {known}{more}, got {unknown[0]!r}")
    return [number for item in given for number in found[item]]


def _numbers_of(wanted: int | str, names: Mapping[int, str]) -> list[int]:
    """The class of a number, or all classes of a name; none where there are none."""
    if isinstance(wanted, str) and not wanted.isdecimal():
        return [number for number, name in names.items() if name == wanted]
    return [int(wanted)] if int(wanted) in names else []


def counted(classes: Iterable[float], names: Mapping[int, str] | Sequence[str]) -> str:
    """The class of each detection -> "4 persons, 1 bus", by class number; "(no detections)" where there are none."""
    counts = sorted(Counter(map(int, classes)).items())
    return ", ".join(f"{count} {plural(names[number], count)}" for number, count in counts) or "(no detections)"


def plural(name: str, count: int) -> str:
    """The name as it follows the count: 1 bus, 2 buses, 2 persons."""
    if count == 1 or not name[-1:].isascii() or not name[-1:].isalpha():  # 3 人, not 3 人s
        return name
    return name + ("es" if name.endswith(("s", "x", "ch", "sh")) else "s")
