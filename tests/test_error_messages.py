"""Every message about unusable input says what it is about: the file, the flag, the key or the argument. The sources
are read for that; tests of each message are beside what they test."""

import ast
import re
from collections.abc import Iterator

import pytest

from tests.conftest import ROOT

SOURCES = sorted(
    [
        *ROOT.glob("*.py"),
        *(ROOT / "utils").glob("*.py"),
        *(ROOT / "models").glob("*.py"),
        *(ROOT / "engine").glob("*.py"),
    ]
)

# A place in the text itself: a flag, an environment variable, a key in backquotes, a file's name, an argument with its
# value or a colon behind it, a function of ours.
NAMED = re.compile(
    r"--[a-z]|\b[A-Z]+_[A-Z_]+\b|`[\w ./-]+`|\b\w+\.(csv|json|txt)\b|\b[a-z_]+=|^[a-z_.]+: |\b[a-z_]+\(\)|^\w+\.run "
)
# What an expression in braces is called that stands for a place: a file, an address, a flag, a key, an argument.
PLACES = re.compile(
    r"\b(file|files|path|where|source|cfg|directory|folder|chosen|url|address|archive|flag|flags|flag_of|key|name|names"
    r"|weights|checkpoint|last|csv_file|list_file|annotations|told_as|shown|pattern|label_path|prefix|purpose|failed)\b|images\[0\]"
)
UNUSABLE_INPUT = ("InputError", "TrainingDiverged", "LiveContent")  # InputError and what it is the base of
# Reasons that the reader of a file, which catches them, puts behind the file's name: raised in -> caught in.
REASONS = {
    "engine/service_multipart.py": "engine/service_form.py",
    "models/build_limits.py": "models/yolo.py",
    "models/export_metadata.py": "models/export_metadata.py",
    "models/onnx_metadata.py": "models/onnx_metadata.py",
    "models/weights.py": "models/weights.py",
    "utils/findings.py": "utils/labels.py",
    "utils/images.py": "utils/images.py",
    "utils/label_files.py": "utils/label_files.py",
    "utils/kept_results.py": "utils/kept_results.py",
    "utils/labels.py": "utils/labels.py",
    "utils/plain_yaml.py": "models/model_yaml.py",
}
# Our own callers' mistakes, which no input leads to.
OWN_MISTAKES = (
    "engine/batching.py",
    "models/attention_probe.py",
    "utils/annotator.py",
    "utils/autoanchor.py",
    "utils/datasets.py",
    "utils/scene.py",
)
# (file, first words) of messages about unusable input without a place of their own -> why.
UNPLACED = {
    ("engine/evolver.py", "; to go on once"): "begins with the DatabaseFault, which names the study's database",
    ("models/common.py", "C3TR's 4 heads"): "models/yolo.py puts the YAML and its layer before it",
    ("models/yolo.py", "layer "): "DetectionModel puts the YAML's name before it (models.model_yaml.naming)",
    ("models/yolo.py", "the last layer"): "the same",
    ("models/yolo.py", "anchors for"): "the same",
    ("utils/datasets.py", "expected readable pictures"): "ends with the error of the last picture, which names it",
    ("utils/distributed.py", "rank "): "passes on the message of another process",
}
# A signal has no message, NotImplementedError is our own mistake, the service answers a request and names its field,
# argparse puts the flag before the words of an ArgumentError, _damaged names the study's database.
OTHERS = (
    "StoppedBySignal",
    "NotImplementedError",
    "ServiceError",
    "_broken",
    "_no_picture",
    "ArgumentError",
    "_damaged",
)


def raised(tree: ast.AST) -> Iterator[tuple[ast.Call, str, str, str]]:
    """(call, exception, own words, expressions in braces) of every raise with a message."""
    for function in ast.walk(tree):
        for node in own_nodes(function) if isinstance(function, (ast.FunctionDef, ast.Module)) else ():
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
                yield node.exc, ast.unparse(node.exc.func).split(".")[-1], *message(node.exc.args[0], function)


def own_nodes(function: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those of functions inside."""
    for child in ast.iter_child_nodes(function):
        if not isinstance(child, ast.FunctionDef):
            yield child
            yield from own_nodes(child)


def message(argument: ast.AST, function: ast.AST) -> tuple[str, str]:
    """The message's own words, and the expressions in its braces; names stand for what the function assigns to them."""
    words, expressions, waiting, seen = [], [], [argument], set()
    assigned = {
        target.id: node.value
        for node in own_nodes(function)
        if isinstance(node, (ast.Assign, ast.NamedExpr, ast.AugAssign))
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    while waiting:
        part = waiting.pop(0)
        for node in ast.walk(part):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                words.append(node.value)
            elif isinstance(node, ast.FormattedValue):
                expressions.append(ast.unparse(node.value))
            if isinstance(node, ast.Name) and node.id in assigned and node.id not in seen:
                seen.add(node.id)
                waiting.append(assigned[node.id])
    return " | ".join(words), " | ".join(expressions)


def is_placed(words: str, expressions: str) -> bool:
    return bool(any(NAMED.search(part) for part in words.split(" | ")) or PLACES.search(expressions))


def messages() -> Iterator[tuple[str, int, str, str, str]]:
    """(file, line, exception, words, expressions) of every message in our sources."""
    for file in SOURCES:
        name = file.relative_to(ROOT).as_posix()
        for call, exception, words, expressions in raised(ast.parse(file.read_text(encoding="utf-8"))):
            yield name, call.lineno, exception, words, expressions


def excused(name: str, words: str) -> tuple[str, str] | None:
    """The row of UNPLACED that the message falls under."""
    return next((row for row in UNPLACED if row[0] == name and words.startswith(row[1])), None)


def caught(name: str) -> set[str]:
    """The exceptions that a file catches somewhere, by name or in a constant."""
    tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))
    types = [node.type for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler) and node.type]
    constants = {ast.unparse(node.targets[0]): node.value for node in tree.body if isinstance(node, ast.Assign)}
    types += [constants[node.id] for node in types if isinstance(node, ast.Name) and node.id in constants]
    return {re.split(r"\W", ast.unparse(node))[-1] for outer in types for node in ast.walk(outer)}


def test_messages_about_unusable_input_name_a_file_flag_key_or_argument():
    complaints = [
        f"{name}:{line} {words}"
        for name, line, exception, words, expressions in messages()
        if exception in UNUSABLE_INPUT and words and not is_placed(words, expressions) and not excused(name, words)
    ]
    assert not complaints, "\n".join(["these tell not what they are about:", *complaints])


def test_other_errors_are_reasons_that_get_a_place_or_our_own_mistakes():
    complaints = [
        f"{name}:{line} {exception} {words}"
        for name, line, exception, words, expressions in messages()
        if exception not in (*UNUSABLE_INPUT, *OTHERS)
        and not is_placed(words, expressions)
        and name not in OWN_MISTAKES
        and exception not in caught(REASONS.get(name, name))
    ]
    assert not complaints, "\n".join(["an InputError that names the place was expected:", *complaints])


def test_each_excuse_is_needed():
    bare = [(name, words) for name, _, _, words, expressions in messages() if not is_placed(words, expressions)]
    used = {excused(name, words) for name, words in bare}
    assert set(UNPLACED) - used == set()
    assert {*REASONS, *OWN_MISTAKES} - {name for name, _ in bare} == set()


@pytest.mark.parametrize(
    ("code", "placed"),
    [
        ('raise InputError("")', False),
        ('raise InputError("the value is wrong")', False),
        ('raise InputError(f"expected 3, got {value}")', False),
        ('raise InputError("--imgsz: expected 3")', True),
        ('raise InputError(f"{file}: expected 3, got {value}")', True),
        ('told = f"{path} is wrong"\nraise InputError(told + " indeed")', True),
        ('told = f"{value} is wrong"\nraise InputError(told)', False),
        ('raise InputError("names: expected 3")', True),
        ('raise InputError("WORLD_SIZE is set")', True),
    ],
)
def test_placed_messages_are_told_from_others(code, placed):
    ((_, _, words, expressions),) = raised(ast.parse(code))
    assert is_placed(words, expressions) == placed
