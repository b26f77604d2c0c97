"""YAML files, which may come from strangers, to plain data within limits. Not for what stands in them: that is for the
readers of data, model and hyperparameter files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from utils.unrolled import unrolled

LONGEST = 600_000  # bytes of a file: the 21,841 classes of ImageNet take 500 kB
MOST_VALUES = 60_000  # as they take time: ImageNet's classes are 43,683 with their numbers
LARGEST = 4 * LONGEST  # characters of values when each alias is written out
DEEPEST = 50  # lists in lists
LONGEST_NUMBER = 100  # characters: Python takes time that grows with the square
TOLD = 200  # characters of a parser's message
NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
NOT_PLAIN = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError)  # 2026-99-99, !!bool maybe


def read_yaml(file: Path) -> Any:
    """The one document in a file in UTF-8, as dicts, lists, texts, numbers, dates, booleans and None. Raises
    yaml.YAMLError, with a message of one line, where it is no YAML, holds other types, or is larger than such a file
    has a reason to be; OSError where it can't be read."""
    with open(file, "rb") as stream:
        content = stream.read(LONGEST + 1)
    if len(content) > LONGEST:
        raise yaml.YAMLError(f"more than {LONGEST} bytes")
    try:
        return _plain(content.decode("utf-8-sig"))
    except RecursionError as error:
        raise yaml.YAMLError(f"lists or mappings in each other, more than {DEEPEST} levels deep") from error
    except (yaml.YAMLError, *NOT_PLAIN) as error:
        raise yaml.YAMLError(" ".join(str(error).split())[:TOLD]) from error


class _Loader(yaml.SafeLoader):
    """PyYAML's safe one, which stops where there is too much to read."""

    values = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.values += 1
        if self.values > MOST_VALUES:
            raise yaml.YAMLError(f"more than {MOST_VALUES} values")
        return super().compose_node(parent, index)


def _plain(text: str) -> Any:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        size, depth = unrolled(node, _parts, _own_size)
        if size > LARGEST:
            raise yaml.YAMLError("aliases that stand for too much, or for themselves")
        if depth > DEEPEST:
            raise yaml.YAMLError(f"lists or mappings in each other, more than {DEEPEST} levels deep")
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
