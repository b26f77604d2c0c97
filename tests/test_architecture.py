"""The rules of the house that a machine can hold: floors, sizes, forbidden calls, options that nobody reads, missing
docstrings, documents that name files which aren't there. Every message tells file, line and what to do about it."""

import ast
import fnmatch
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path, PurePosixPath

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ("train.py", "val.py", "detect.py", "export.py", "serve.py")
OUTSIDE = ("tests/", "benchmarks/")  # not bound by the law of floors

# The law: a file imports only from lower floors, so files of one floor do not import each other. A new file gets its
# place here, one floor above the highest file that it imports.
BUILDING = {
    0: "utils/__init__ models/__init__ engine/__init__ utils/errors utils/log utils/boxes utils/anchors utils/scene "
    "utils/bootstrap utils/flags utils/memory utils/unrolled utils/frames utils/captures utils/silence utils/findings "
    "engine/interruption "
    "engine/service_limits engine/service_docs engine/service_multipart engine/service_connection",
    1: "utils/callbacks utils/distributed utils/files utils/torch_utils utils/label_files utils/video "
    "utils/surviving utils/fonts utils/class_names utils/extras utils/quiet models/backend models/onnx_metadata "
    "models/export_metadata models/build_limits utils/tensorflow_beside_torch utils/plain_yaml utils/data_archive "
    "engine/service_form engine/service_options engine/service_guard engine/batching",
    2: (
        "models/dynamic_ops models/blocks_transformer utils/hyp models/unpickling models/model_yaml "
        "models/blocks_detect models/ensemble utils/nms models/exported models/tensorflow_ops "
        "utils/metrics utils/mosaic utils/labels utils/images utils/annotator "
        "utils/figures utils/ema utils/autobatch utils/mixed_precision utils/speed utils/digits "
        "utils/autoanchor utils/logger_csv utils/coco utils/attention utils/logged_run utils/downloads "
        "utils/screen models/export_options engine/service_schema"
    ),
    3: (
        "models/export_nms models/runtime_onnx models/runtime_dnn models/conversion models/runtime_coreml "
        "models/runtime_ncnn models/runtime_tensorflow models/runtime_tensorrt models/runtime_tflite "
        "models/blocks_dynamic utils/loss utils/augmentations utils/optim utils/evolution utils/logger_tensorboard "
        "utils/logger_wandb utils/logger_mlflow utils/size_plots utils/media_files utils/streams utils/image_inputs "
        "utils/official_weights utils/outputs engine/service_pictures"
    ),
    4: (
        "models/blocks_conv utils/study utils/evolution_plots models/attention_probe models/frozen utils/curves "
        "utils/plots utils/data_config utils/datasets utils/attention_plots utils/loggers utils/web_files "
        "utils/detections"
    ),
    5: "models/common models/unfuse utils/sources utils/kept_results",
    6: "models/yolo models/spread utils/dataloaders utils/tally",
    7: (
        "models/weights models/summary models/tta engine/pictures engine/inputs engine/attention_report "
        "engine/validator utils/comparison models/export_torchscript models/export_onnx "
        "models/export_openvino models/fixed_size"
    ),
    8: "models/export_coreml models/export_ncnn models/export_tensorflow models/export_tensorrt models/export_tflite "
    "engine/export_images models/runtime_torch models/runtime_torchscript models/runtime_openvino "
    "engine/training_options utils/compare_plots",
    9: "models/backends models/autoshape models/export_formats engine/training_state",
    10: "models/loading engine/served_model engine/validation engine/predictor engine/training_setup "
    "engine/training_saves",
    11: "engine/comparer engine/detector engine/size_study engine/training_epoch engine/faults engine/service",
    12: "engine/trainer engine/attention_freezer engine/export_proof engine/service_routes",
    13: "engine/exporter engine/evolver engine/server",
    14: "train val detect export serve hubconf",
}
FLOORS = {f"{name}.py": floor for floor, names in BUILDING.items() for name in names.split()}
ABSENT = {"general.py", "misc.py", "helpers.py"}  # what CONTRIBUTING.md says that there is none of
INHERITED = {"forward", "extra_repr"}  # torch's own methods: the docstring of the class is theirs

MAX_BODY, MAX_NESTING, MAX_LINES = 50, 3, 400
BLOCKS = (ast.For, ast.While, ast.If, ast.With, ast.Try, ast.AsyncFor, ast.AsyncWith)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


# ----------------------------------------------------------------------------------------------------- reading the tree
@cache
def listed(pattern: str) -> tuple[str, ...]:
    """Tracked files (all files where there is no git, as in an unpacked archive), '/'-separated, that exist."""
    answer = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True)
    names = answer.stdout.splitlines() if answer.returncode == 0 else []
    if not names:
        hidden = {".git", ".venv", "runs", "datasets"}
        files = (p.relative_to(ROOT) for p in ROOT.rglob("*") if p.is_file())
        names = [p.as_posix() for p in files if not hidden & set(p.parts)]
    return tuple(sorted(n for n in names if fnmatch.fnmatch(n, pattern) and (ROOT / n).exists()))


@cache
def tree(name: str) -> ast.Module:
    return ast.parse((ROOT / name).read_text(encoding="utf-8"), filename=name)


def sources() -> list[str]:
    """Python files that the rules bind: all but tests and benchmarks."""
    return [name for name in listed("*.py") if not name.startswith(OUTSIDE)]


def nodes(name: str, *kinds: type[ast.AST]) -> Iterator[ast.AST]:
    return (node for node in ast.walk(tree(name)) if isinstance(node, kinds))


def check(complaints: list[str], advice: str) -> None:
    assert not complaints, "\n" + "\n".join(complaints) + f"\n-> {advice}"


def ours(dotted: str) -> str | None:
    """'utils.nms' -> 'utils/nms.py', 'utils' -> 'utils/__init__.py'; None for what is not in this repository."""
    path = dotted.replace(".", "/")
    return next((f for f in (f"{path}.py", f"{path}/__init__.py") if f in listed("*.py")), None)


def imported_names(name: str) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import in the file, lazy ones and importlib.import_module("...") included."""
    package = PurePosixPath(name).parent.parts
    for node in nodes(name, ast.Import, ast.ImportFrom, ast.Call):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *filter(None, [node.module])])
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)  # a module or a thing in it
        elif ast.unparse(node.func) in ("importlib.import_module", "import_module", "__import__"):
            yield from ((node.lineno, str(arg.value)) for arg in node.args[:1] if isinstance(arg, ast.Constant))


@cache
def imports(name: str) -> tuple[tuple[int, str], ...]:
    """(line, file of ours) that the file imports."""
    found = []
    for line, dotted in imported_names(name):
        file = ours(dotted) or ours(dotted.rpartition(".")[0])
        if file and file != name:
            found.append((line, file))
    return tuple(dict.fromkeys(found))


def strings(name: str) -> set[str]:
    return {node.value for node in nodes(name, ast.Constant) if isinstance(node.value, str)}


# ----------------------------------------------------------------------------------------------------------- the floors
def test_every_file_has_a_floor():
    missing = [f"{name}: has no floor" for name in sources() if name not in FLOORS]
    check(
        missing, "give it a floor in BUILDING (tests/test_architecture.py), one above the highest file that it imports"
    )


def test_no_floor_is_given_to_a_file_that_is_gone():
    gone = [
        f"{name}: in BUILDING (tests/test_architecture.py), but not in the tree" for name in FLOORS.keys() - sources()
    ]
    check(sorted(gone), "take it out there")


def test_files_import_only_from_lower_floors():
    complaints = [
        f"{name}:{line} (floor {FLOORS[name]}) imports {file} (floor {FLOORS[file]})"
        for name in sources()
        for line, file in imports(name)
        if not file.startswith(OUTSIDE) and FLOORS.get(file, -1) >= FLOORS.get(name, 99)
    ]
    check(complaints, "move what is needed to a lower floor, or pass it in as an argument (DESIGN: the law)")


def test_utils_never_imports_models_or_engines():
    complaints = [
        f"{name}:{line} imports {file}"
        for name in sources()
        if name.startswith("utils/")
        for line, file in imports(name)
        if not file.startswith("utils/")
    ]
    check(complaints, "let the caller pass the model, the anchors or a callable in")


def test_nothing_imports_a_script_or_the_tests():
    complaints = [
        f"{name}:{line} imports {file}"
        for name in sources()
        for line, file in imports(name)
        if file in SCRIPTS or file.startswith("tests/")
    ]
    check(complaints, "scripts are called by people; import their engine instead")


def test_no_import_cycles():
    try:
        TopologicalSorter({name: {file for _, file in imports(name)} for name in sources()}).prepare()
    except CycleError as error:
        check([" -> ".join(error.args[1])], "break the circle: pass an argument, or move the shared part down")


# ---------------------------------------------------------------------------------------------------------------- sizes
def nesting(node: ast.AST, level: int = 0) -> int:
    """Deepest level of blocks in a function; elif counts as its if, nested functions and classes for themselves."""
    deepest = level
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (*FUNCTIONS, ast.Lambda, ast.ClassDef)):
            continue
        is_elif = isinstance(node, ast.If) and node.orelse == [child] and isinstance(child, ast.If)
        deepest = max(deepest, nesting(child, level + (isinstance(child, BLOCKS) and not is_elif)))
    return deepest


def body_lines(node: ast.FunctionDef) -> int:
    body = node.body[1:] if ast.get_docstring(node) else node.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def test_function_bodies_fit_on_a_screen():
    complaints = [
        f"{name}:{node.lineno} {node.name}: {body_lines(node)} lines"
        for name in sources()
        for node in nodes(name, *FUNCTIONS)
        if body_lines(node) > MAX_BODY
    ]
    check(complaints, f"split it into named steps (at most {MAX_BODY} lines without the docstring)")


def test_nesting_is_shallow():
    complaints = [
        f"{name}:{node.lineno} {node.name}: {nesting(node)} levels"
        for name in sources()
        for node in nodes(name, *FUNCTIONS)
        if nesting(node) > MAX_NESTING
    ]
    check(complaints, f"return early or name the inner part (at most {MAX_NESTING} levels)")


def test_files_are_short():
    counts = {name: (ROOT / name).read_text(encoding="utf-8").count("\n") for name in sources()}
    complaints = [f"{name}: {count} lines" for name, count in counts.items() if count > MAX_LINES]
    check(complaints, f"a second noun lives in it: give it its own file (at most {MAX_LINES} lines)")


# ------------------------------------------------------------------------------------------------- forbidden constructs
def keyword(call: ast.Call, name: str) -> str:
    return next((ast.unparse(k.value) for k in call.keywords if k.arg == name), "")


def forbidden_call(call: ast.Call) -> str | None:
    """What is wrong with this call, None where nothing is."""
    name = ast.unparse(call.func)
    if name in ("eval", "exec"):
        return f"{name}(): a YAML, a checkpoint or a flag is data, never code"
    if name.split(".")[0] in ("pickle", "cPickle", "dill", "cloudpickle") and name.split(".")[-1].startswith("load"):
        return f"{name}(): runs code from the file; store plain data"
    if keyword(call, "shell") == "True" or name in ("os.system", "os.popen", "subprocess.getoutput"):
        return f"{name}() through a shell: pass a list of arguments to subprocess.run"
    if name == "yaml.load" and "SafeLoader" not in ast.unparse(call):
        return "yaml.load without SafeLoader: use yaml.safe_load"
    if name in ("yaml.unsafe_load", "yaml.full_load"):
        return f"{name}(): use yaml.safe_load"
    if name == "torch.load" and keyword(call, "weights_only") != "True":
        return "torch.load without weights_only=True runs code from the file"
    if name in ("np.load", "numpy.load") and keyword(call, "allow_pickle") == "True":
        return "np.load(allow_pickle=True) runs code from the file"
    return None


def test_no_forbidden_calls():
    complaints = [
        f"{name}:{call.lineno} {reason}"
        for name in sources()
        for call in nodes(name, ast.Call)
        if (reason := forbidden_call(call))
    ]
    check(complaints, "say it without running or trusting foreign text")


def test_nothing_is_installed_and_only_one_file_downloads():
    complaints = [
        f"{name}:{call.lineno} {ast.unparse(call)[:80]}"
        for name in sources()
        for call in nodes(name, ast.Call)
        if ast.unparse(call.func).startswith(("subprocess.", "runpy.", "os.spawn", "os.exec"))
        and {"pip", "install", "curl", "wget"} & {n.value for n in ast.walk(call) if isinstance(n, ast.Constant)}
    ]
    complaints += [
        f"{name}:{line} imports {dotted}"
        for name in sources()
        if name != "utils/downloads.py"
        for line, dotted in imported_names(name)
        if dotted.startswith(("urllib.request", "requests", "httpx", "ftplib", "pip", "torch.hub", "http.client"))
    ]
    check(complaints, "say what to install or download; utils/downloads.py alone fetches, and only what was asked for")


def test_no_star_imports_and_no_pickle_loaders():
    complaints = []
    for name in sources():
        for node in nodes(name, ast.ImportFrom):
            names = {alias.name for alias in node.names}
            if "*" in names or (node.module == "pickle" and names & {"load", "loads", "Unpickler"}):
                complaints.append(f"{name}:{node.lineno} {ast.unparse(node)}")
    check(complaints, "import the names that are used; never unpickle")


@pytest.mark.parametrize(
    ("code", "bad"),
    [
        ("f()", False),
        ("model.eval()", False),
        ("eval('1')", True),
        ("exec(text)", True),
        ("pickle.load(f)", True),
        ("pickle.dumps(x)", False),
        ("subprocess.run('ls', shell=True)", True),
        ("subprocess.run(['ls'])", False),
        ("os.system('ls')", True),
        ("yaml.load(f)", True),
        ("yaml.load(f, Loader=yaml.CSafeLoader)", False),
        ("yaml.safe_load(f)", False),
        ("torch.load(f)", True),
        ("torch.load(f, weights_only=False)", True),
        ("torch.load(f, weights_only=True)", False),
        ("np.load(f, allow_pickle=True)", True),
    ],
)
def test_the_forbidden_are_told_from_the_allowed(code, bad):
    assert bool(forbidden_call(ast.parse(code).body[0].value)) == bad


# -------------------------------------------------------------------------------------------- nothing that nobody reads
def options(script: str) -> dict[str, int]:
    """{destination: line} of the options that a script's parser defines, by whatever name it calls add_argument."""
    found = {}
    for call in nodes(script, ast.Call):
        flags = [str(a.value) for a in call.args if isinstance(a, ast.Constant) and str(a.value).startswith("--")]
        if flags:
            found[keyword(call, "dest").strip("'\"") or flags[0][2:].replace("-", "_")] = call.lineno
    assert len(found) > 5, f"found no options in {script}: is its parser built in another way now?"
    return found


def engine_files(script: str) -> set[str]:
    """The script and the engine files that it reaches."""
    seen, todo = set(), [script]
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += [file for _, file in imports(name) if file.startswith("engine/")]
    return seen


def attributes_of(owners: tuple[str, ...], names: set[str]) -> set[str]:
    """Attributes that are read from something called like an owner: opt.epochs, self.opt.epochs -> epochs."""
    found = set()
    for name in names:
        for node in nodes(name, ast.Attribute):
            owner = ast.unparse(node.value).split(".")[-1]
            if isinstance(node.ctx, ast.Load) and owner in owners:
                found.add(node.attr)
    return found


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_option_is_read(script):
    read = attributes_of(("opt", "options"), engine_files(script))
    unread = [
        f"{script}:{line} --{name.replace('_', '-')}" for name, line in options(script).items() if name not in read
    ]
    check(unread, f"read opt.<name> in {script} or its engine, or take the flag away: an option that does nothing lies")


def hyp_fields() -> dict[str, int]:
    cls = next(node for node in nodes("utils/hyp.py", ast.ClassDef) if node.name == "Hyp")
    found = {node.target.id: node.lineno for node in cls.body if isinstance(node, ast.AnnAssign)}
    assert len(found) > 20, "found no fields in utils/hyp.py: are they defined in another way now?"
    return found


def test_every_hyperparameter_is_read():
    read = attributes_of(("hyp",), set(sources()) - {"utils/hyp.py"})
    unread = [f"utils/hyp.py:{line} {name}" for name, line in hyp_fields().items() if name not in read]
    check(unread, "read it as hyp.<name> outside utils/hyp.py, or delete the field")


def yaml_keys(pattern: str) -> Iterator[tuple[str, str]]:
    for name in listed(pattern):
        content = yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))
        yield from ((name, str(key)) for key in content or {})


@pytest.mark.parametrize(
    ("pattern", "readers"),
    [("models/*.yaml", "models/*.py"), ("data/*.yaml", "utils/data_config.py"), ("data/hyps/*.yaml", "utils/hyp.py")],
)
def test_every_yaml_key_is_read(pattern, readers):
    known = set().union(*(strings(name) for name in listed(readers)))
    known |= set(hyp_fields()) if "hyps" in pattern else set()
    elsewhere = ("models/hub/anchors.yaml", "data/hyps/" if pattern == "data/*.yaml" else "-")  # its keys are names
    unread = [f"{n}: {key}" for n, key in yaml_keys(pattern) if key not in known and not n.startswith(elsewhere)]
    check(unread, f"nothing in {readers} reads this key: read it or take it out of the YAML")


# ------------------------------------------------------------------------------------------------------- what is loaded
def loaded_modules(code: str, wanted: tuple[str, ...]) -> list[str]:
    """Those of `wanted` that are loaded after `code` has run in a fresh interpreter at the repository's root."""
    report = f"{code}\nimport sys\nprint('LOADED', *[m for m in {wanted!r} if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", report], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.rpartition("LOADED")[2].split()


def test_importing_the_models_loads_no_picture_or_table_library():
    heavy = loaded_modules("import models.yolo", ("cv2", "matplotlib", "pandas", "seaborn"))
    check(heavy, "models must import without these: import them inside the function that needs them")


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_instant(script):
    code = (
        f"import runpy, sys\nsys.argv = [{script!r}, '--help']\n"
        f"try:\n    runpy.run_path({script!r}, run_name='__main__')\nexcept SystemExit:\n    pass"
    )
    heavy = loaded_modules(code, ("torch", "numpy", "cv2", "yaml", "utils.torch_utils"))
    check([f"{script} --help loads {m}" for m in heavy], "import it inside run(): the top is for the standard library")

    def seconds() -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, script, "--help"], cwd=ROOT, capture_output=True, check=True)
        return time.perf_counter() - start

    assert min(seconds() for _ in range(3)) < 0.5


# -------------------------------------------------------------------------------------------------------- documentation
def undocumented(node: ast.AST, prefix: str) -> Iterator[str]:
    """Public classes, functions and methods without a docstring."""
    for child in getattr(node, "body", []):
        if not isinstance(child, (*FUNCTIONS, ast.ClassDef)) or child.name.startswith("_") or child.name in INHERITED:
            continue
        if not ast.get_docstring(child) and not is_setter(child):
            yield f"{prefix}:{child.lineno} {child.name}"
        if isinstance(child, ast.ClassDef):
            yield from undocumented(child, prefix)


def is_setter(node: ast.AST) -> bool:
    return any(ast.unparse(d).endswith((".setter", "overload")) for d in getattr(node, "decorator_list", []))


def test_everything_public_is_documented():
    complaints = []
    for name in sources():
        if PurePosixPath(name).name == "__init__.py":
            continue
        if not ast.get_docstring(tree(name)):
            complaints.append(f"{name}:1 the file: what it is for and what it is not for")
        complaints += undocumented(tree(name), name)
    check(complaints, "write the contract: shape, format, range or unit, what raises, source")


def test_every_difference_from_the_reference_is_listed():
    file = ROOT / "docs" / "differences.md"
    told = file.read_text(encoding="utf-8") if file.exists() else ""
    missing = [
        f"{name}: says 'Differs from v6.1:'"
        for name in sources()
        if "Differs from v6.1:" in (ROOT / name).read_text(encoding="utf-8") and name not in told
    ]
    check(missing, "give it a row in docs/differences.md that names the file")


def mentioned_files(text: str) -> Iterator[str]:
    """Paths into the repository, names of Python, Markdown and TOML files, and targets of relative Markdown links."""
    folders = sorted({name.split("/")[0] for name in listed("*") if "/" in name})
    inside = "|".join(map(re.escape, folders))
    # <...> and {...} mark a placeholder, * a pattern: those name no file
    yield from re.findall(rf"(?<![\w./<{{-])((?:{inside})/[\w./-]*\w/?)(?![\w*<{{\[])", text)
    yield from re.findall(r"(?<![\w./<*{}-])([\w-]+\.(?:py|md|toml))\b(?![\w*])", text)
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if "://" not in target and not target.startswith("mailto:"):
            yield target


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_documents_name_only_files_that_exist(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    names = {PurePosixPath(name).name for name in listed("*")}
    missing = []
    for number, line in enumerate(text.splitlines(), 1):
        for path in mentioned_files(line):
            if not (ROOT / path).exists() and path not in names | ABSENT:
                missing.append(f"{document}:{number} {path}")
    check(missing, "correct the name, or write a placeholder like <my_model>.yaml where no file is meant")
