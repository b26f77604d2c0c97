"""YAML files to plain data, within limits, as they may come from strangers. Not for what their keys mean: that is for
the readers of data, model and hyperparameter files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from utils.unrolled import unrolled

LONGEST = 600_000  # bytes of a file: the 21,841 classes of ImageNet take 500 kB
MOST_VALUES = 60_000  # each takes time: ImageNet's classes and their numbers are 43,683
LARGEST = 4 * LONGEST  # characters of all values, those behind an alias (*x) counted each time that it stands there
DEEPEST = 50  # lists in lists
LONGEST_NUMBER = 100  # characters: the time that Python takes to read one grows with the square of its length
TOLD = 200  # characters of a parser's message
NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
TOO_DEEP = f"lists or mappings in each other, more than {DEEPEST} levels deep"
HINTS = {  # what the parser's complaint mostly means -> what to say besides
    "'\\t'": ": indent with spaces, not tabs",
    "mapping values are not allowed": ": check the indentation, and quote a text that has a colon in it",
}
# What PyYAML raises besides its own errors on values that are none, such as 2026-99-99 and !!bool maybe.
NOT_PLAIN = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError)


def read_yaml(file: Path) -> Any:
    """The one document in a UTF-8 file, as dicts, lists, texts, numbers, dates, booleans and None.

    Raises yaml.YAMLError where the file is no YAML, holds other types, or is larger than such a file has a reason to
    be; its message is one line without the file's name, and says line and column where the parser knows them. Raises
    OSError where the file cannot be read.
    """
    with open(file, "rb") as stream:
        content = stream.read(LONGEST + 1)
    if len(content) > LONGEST:
        raise yaml.YAMLError(f"more than {LONGEST} bytes")
    try:
        return _plain(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise yaml.YAMLError(f"expected text in UTF-8, got the byte 0x{byte:02x} at place {error.start}") from error
    except RecursionError as error:
        raise yaml.YAMLError(TOO_DEEP) from error
    except yaml.MarkedYAMLError as error:
        raise yaml.YAMLError(_with_place(error)) from error
    except (yaml.YAMLError, *NOT_PLAIN) as error:
        raise yaml.YAMLError(_one_line(str(error))) from error


def _with_place(error: yaml.MarkedYAMLError) -> str:
    """The parser's complaint: line and column, what is wrong there, what it was reading and since where, and a hint."""
    found, begun = error.problem_mark, error.context_mark
    if found is None:
        return _one_line(str(error))
    problem = _one_line(error.problem or "").replace("<stream end>", "the end of the file")
    told = f"{_place(found)}: {problem}"
    if error.context and begun and begun.index != found.index:
        told += f" ({_one_line(error.context)} that begins in {_place(begun)})"
    hint = next((hint for words, hint in HINTS.items() if words in problem), "")
    return told + hint


def _place(mark: yaml.Mark) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"


def _one_line(text: str) -> str:
    return " ".join(text.split())[:TOLD]


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which stops where there is too much to read."""

    values = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.values += 1
        if self.values > MOST_VALUES:
            raise yaml.YAMLError(f"more than {MOST_VALUES} values")
        return super().compose_node(parent, index)


def _plain(text: str) -> Any:
    """The document, made only after its size and depth are known: a few bytes of aliases can stand for gigabytes."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        size, depth = unrolled(node, _parts, _own_size)
        if size > LARGEST:
            raise yaml.YAMLError("aliases that stand for too much, or for themselves")
        if depth > DEEPEST:
            raise yaml.YAMLError(TOO_DEEP)
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _parts(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for pair in node.value:
            yield from pair
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


def _own_size(node: yaml.Node) -> int:
    if not isinstance(node, yaml.ScalarNode):
        return 1
    if node.tag in NUMBERS and len(node.value) > LONGEST_NUMBER:
        raise yaml.YAMLError(f"a number of {len(node.value)} characters")
    return 1 + len(node.value)
